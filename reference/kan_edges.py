"""Sums of wavelets and rational functions in NumPy, with their derivatives."""

import math

import numpy


def kan_edges_forward(x, first, second, third=None, function="mexican_hat", save=True):
    """y = sum over the inputs of f(x)."""
    return _edges(x, first, second, third, function)[0].sum(axis=-2), ()


def kan_edges_backward(dout, saved):
    """dx = sum_o dy f', and dtheta = sum over the rows of dy df/dtheta for every parameter of an edge."""
    x = saved.x
    _, by_x, by_parameters = _edges(x, saved.first, saved.second, saved.third, saved.function)
    rows = tuple(range(x.ndim - 1))
    dx = (dout[..., None, :] * by_x).sum(axis=-1)
    if saved.function == "rational":
        gradients = [
            numpy.stack([(dout[..., None, :] * p).sum(axis=rows) for p in parts], axis=1)
            if parts
            else numpy.zeros_like(array)
            for parts, array in zip(by_parameters, (saved.first, saved.second))
        ]
        return dx, *gradients, None
    return dx, *((dout[..., None, :] * part).sum(axis=rows) for part in by_parameters)


def _edges(x, first, second, third, function):
    """Values (..., i, o), derivatives by x, and derivatives by each parameter."""
    if function == "rational":
        return _rational(x[..., None], first, second)
    z = (x[..., None] - third) / second
    psi, slope = _WAVELETS[function](z)
    if function == "shannon":
        window = _hamming(x.shape[-1]).astype(x.dtype)[:, None]
        psi, slope = window * psi, window * slope
    by_x = first * slope / second
    return first * psi, by_x, (psi, -by_x * z, -by_x)


def _rational(x, a, b):
    """P / D with D = 1 + |Q|; x^0 ... x^n by products, so that 0^0 is 1."""
    powers = [numpy.ones_like(x)]
    for _ in range(max(a.shape[1] - 1, b.shape[1])):
        powers.append(powers[-1] * x)
    p = sum(a[:, j] * powers[j] for j in range(a.shape[1]))
    dp = sum((j * a[:, j] * powers[j - 1] for j in range(1, a.shape[1])), numpy.zeros_like(p))
    q = sum((b[:, j - 1] * powers[j] for j in range(1, b.shape[1] + 1)), numpy.zeros_like(p))
    dq = sum((j * b[:, j - 1] * powers[j - 1] for j in range(1, b.shape[1] + 1)), numpy.zeros_like(p))
    d = 1.0 + numpy.abs(q)
    pull = -p * numpy.sign(q) / (d * d)
    by_a = [powers[j] / d for j in range(a.shape[1])]
    by_b = [pull * powers[j] for j in range(1, b.shape[1] + 1)]
    return p / d, dp / d + pull * dq, (by_a, by_b)


def _hamming(n):
    if n == 1:
        return numpy.ones(1)
    return 0.54 - 0.46 * numpy.cos(2.0 * numpy.pi * numpy.arange(n) / (n - 1))


def _mexican_hat(z):
    a = 2.0 / (3.0**0.5 * numpy.pi**0.25) * numpy.exp(-0.5 * z * z)
    return (z * z - 1.0) * a, z * (3.0 - z * z) * a


def _morlet(z):
    e = numpy.exp(-0.5 * z * z)
    return numpy.cos(5.0 * z) * e, -(5.0 * numpy.sin(5.0 * z) + z * numpy.cos(5.0 * z)) * e


def _derivative_of_gaussian(z):
    e = numpy.exp(-0.5 * z * z)
    return -z * e, (z * z - 1.0) * e


def _meyer(z):
    """sin(pi v) M(v) with v = |z|; M falls from 1 at 1/2 to 0 at 1."""
    v = numpy.abs(z)
    t = numpy.clip(2.0 * v - 1.0, 0.0, 1.0)
    nu = t**4 * (35.0 - 84.0 * t + 70.0 * t**2 - 20.0 * t**3)
    angle = 0.5 * numpy.pi * nu
    m = numpy.where(v >= 1.0, 0.0, numpy.cos(angle))
    dm = -numpy.pi * 140.0 * t**3 * (1.0 - t) ** 3 * numpy.sin(angle)
    # angles beyond 1 meet a window of zero
    w = numpy.pi * numpy.minimum(v, 1.0)
    return numpy.sin(w) * m, numpy.sign(z) * (numpy.pi * numpy.cos(w) * m + numpy.sin(w) * dm)


def _shannon(z):
    """sin(z) / z and its derivative; below 1 by their series, as the difference of cos z and sin(z) / z vanishes."""
    near = numpy.abs(z) < 1.0
    small, safe = numpy.where(near, z, 0.0), numpy.where(near, 1.0, z)
    psi, slope = numpy.zeros_like(z), numpy.zeros_like(z)
    for k in range(11):
        term = (-1.0) ** k * small ** (2 * k) / math.factorial(2 * k + 1)
        psi += term
        slope += (-1.0) ** k * 2 * k * small ** max(2 * k - 1, 0) / math.factorial(2 * k + 1)
    far = numpy.sin(safe) / safe
    return numpy.where(near, psi, far), numpy.where(near, slope, (numpy.cos(safe) - far) / safe)


_WAVELETS = {
    "mexican_hat": _mexican_hat,
    "morlet": _morlet,
    "dog": _derivative_of_gaussian,
    "meyer": _meyer,
    "shannon": _shannon,
}
