"""Elementwise ops in NumPy."""

import numpy
from scipy import special


def gelu_forward(x, save=True):
    """y = x Phi(x)."""
    return x * special.ndtr(x), ()


def gelu_backward(dout, saved):
    """dy/dx = Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    x = saved.x
    density = numpy.exp(-0.5 * x * x) / numpy.sqrt(2.0 * numpy.pi)
    return ((dout * (special.ndtr(x) + x * density)).astype(x.dtype),)


def gelu_tanh_forward(x, save=True):
    """y = x (1 + t) / 2, t = tanh(k (x + 0.044715 x^3)), k = sqrt(2 / pi)."""
    k = float(numpy.sqrt(2.0 / numpy.pi))
    return 0.5 * x * (1.0 + numpy.tanh(k * (x + 0.044715 * x**3))), ()


def gelu_tanh_backward(dout, saved):
    """dy/dx = (1 + t) / 2 + x (1 - t^2) k (1 + 3 * 0.044715 x^2) / 2."""
    x = saved.x
    k = float(numpy.sqrt(2.0 / numpy.pi))
    t = numpy.tanh(k * (x + 0.044715 * x**3))
    return (dout * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 0.134145 * x * x)),)


def silu_forward(x, save=True):
    """y = x sigmoid(x)."""
    return x * special.expit(x), ()


def silu_backward(dout, saved):
    """dy/dx = s (1 + x (1 - s)), s = sigmoid(x)."""
    x = saved.x
    s = special.expit(x)
    return (dout * s * (1.0 + x * (1.0 - s)),)


def relu_forward(x, save=True):
    """y = max(x, 0); numpy.maximum keeps a NaN."""
    return numpy.maximum(x, 0.0), ()


def relu_backward(dout, saved):
    """dy/dx = 1 for x > 0, else 0."""
    return (dout * (saved.x > 0),)


def sigmoid_forward(x, save=True):
    """y = 1 / (1 + exp(-x))."""
    return special.expit(x), ()


def sigmoid_backward(dout, saved):
    """dy/dx = s (1 - s)."""
    s = special.expit(saved.x)
    return (dout * s * (1.0 - s),)


def tanh_forward(x, save=True):
    """y = tanh(x)."""
    return numpy.tanh(x), ()


def tanh_backward(dout, saved):
    """dy/dx = 1 - tanh(x)^2."""
    return (dout * (1.0 - numpy.tanh(saved.x) ** 2),)


def softplus_forward(x, save=True):
    """y = log(exp(x) + exp(0)), which logaddexp evaluates without overflow."""
    return numpy.logaddexp(x, numpy.zeros((), x.dtype)), ()


def softplus_backward(dout, saved):
    """dy/dx = sigmoid(x)."""
    return (dout * special.expit(saved.x),)


def sin_forward(x, save=True):
    """y = sin(x)."""
    return numpy.sin(x), ()


def sin_backward(dout, saved):
    """dy/dx = cos(x)."""
    return (dout * numpy.cos(saved.x),)


def exp_forward(x, save=True):
    """y = exp(x)."""
    return numpy.exp(x), ()


def exp_backward(dout, saved):
    """dy/dx = exp(x)."""
    return (dout * numpy.exp(saved.x),)


def absolute_forward(x, save=True):
    """y = |x|."""
    return numpy.abs(x), ()


def absolute_backward(dout, saved):
    """dy/dx = sign(x), 0 at 0."""
    return (dout * numpy.sign(saved.x),)


def add_forward(a, b, save=True):
    """y = a + b."""
    return a + b, ()


def add_backward(dout, saved):
    """dy/da = dy/db = 1."""
    return _unbroadcast(dout, saved.a.shape), _unbroadcast(dout, saved.b.shape)


def sub_forward(a, b, save=True):
    """y = a - b."""
    return a - b, ()


def sub_backward(dout, saved):
    """dy/da = 1, dy/db = -1."""
    return _unbroadcast(dout, saved.a.shape), _unbroadcast(-dout, saved.b.shape)


def mul_forward(a, b, save=True):
    """y = a b."""
    return a * b, ()


def mul_backward(dout, saved):
    """dy/da = b, dy/db = a."""
    return _unbroadcast(dout * saved.b, saved.a.shape), _unbroadcast(dout * saved.a, saved.b.shape)


def div_forward(a, b, save=True):
    """y = a / b."""
    return a / b, ()


def div_backward(dout, saved):
    """dy/da = 1 / b, dy/db = -a / b^2."""
    a, b = saved.a, saved.b
    return _unbroadcast(dout / b, a.shape), _unbroadcast(-dout * a / (b * b), b.shape)


def _unbroadcast(d, shape):
    """Sum over the axes along which an operand of this shape was broadcast; always a fresh array."""
    leading = d.ndim - len(shape)
    axes = tuple(range(leading))
    axes += tuple(leading + i for i, n in enumerate(shape) if n == 1 and d.shape[leading + i] != 1)
    return d.sum(axis=axes).reshape(shape) if axes else d.copy()
