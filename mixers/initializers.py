"""How parameters start: small functions ``(rng, shape) -> float64 array``.

Each public function takes the law's constants and returns such a function, to be used in a mixer's
``parameters()``.
"""

import math

import numpy


def constant(value):
    """Every element equal to `value`."""
    return lambda rng, shape: numpy.full(shape, value, numpy.float64)


zeros = constant(0.0)
ones = constant(1.0)


def table(values):
    """A given table of values."""
    return lambda rng, shape: numpy.array(values, numpy.float64).reshape(shape)


def normal(std=1.0, mean=0.0):
    """Normal law."""
    return lambda rng, shape: rng.normal(mean, std, shape)


def truncated_normal(std=0.02, bound=2.0):
    """Normal law cut at ``bound`` (absolute value, not multiples of std), as ViT code bases use it.

    With the usual std of 0.02 the cut is never reached.
    """

    def draw(rng, shape):
        values = rng.normal(0.0, std, shape)
        while (outside := numpy.abs(values) > bound).any():
            values[outside] = rng.normal(0.0, std, int(outside.sum()))
        return values

    return draw


def uniform(low, high):
    """Uniform law on [low, high)."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def fan_in_uniform(fan_in):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): weights and biases of linears and convolutions in PyTorch."""
    bound = 1.0 / math.sqrt(max(1, fan_in))
    return uniform(-bound, bound)


def xavier_uniform(fan_in, fan_out):
    """Glorot & Bengio 2010: U(-a, a), a = sqrt(6 / (fan_in + fan_out))."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return uniform(-bound, bound)


def kaiming_uniform(fan_in, slope=math.sqrt(5.0)):
    """He et al. 2015 with the leaky-ReLU gain of PyTorch: U(-a, a), a = sqrt(6 / ((1 + slope^2) fan_in))."""
    bound = math.sqrt(6.0 / ((1.0 + slope**2) * fan_in))
    return uniform(-bound, bound)
