"""Bases of functions of one variable, inside kernels: the lanes are different x.

The kind of basis is a number that the kernels capture, so that of every function here the code of one kind
remains. What a basis has per input is a row of a table: see :func:`tables`.
"""

import numpy

from mixers.cpu.runner import helper
from mixers.cpu.simd import lanes, load, mul_add, scalar, select, store, zeros
from mixers.cpu.vector_math import exp, logistic, silu, silu_derivative, sincos, tanh

BSPLINE, FOURIER, RADIAL, CHEBYSHEV, RELU, SILU = range(6)
KINDS = {
    "bspline": BSPLINE,
    "fourier": FOURIER,
    "rbf": RADIAL,
    "chebyshev": CHEBYSHEV,
    "relu": RELU,
    "silu": SILU,
}
# frequencies after which the angle is computed afresh
_RESEED = 16


def all_knots(g, first, order, low, high):
    """The given knots, or even ones for all inputs; float64 (i, g + order + 1) or (1, g + order + 1)."""
    if first is not None:
        return first.astype(numpy.float64)
    return low + (high - low) / (g - order) * numpy.arange(-order, g + 1)[None]


def tables(g, first, second, basis, order, low, high, width, dtype):
    """One row of numbers per input, or a single row for all: (rows, length) of the dtype.

    B-splines: the knots t, then for q = 1..order the numbers 1 / (t[f + q] - t[f]), each padded to as many as
    there are knots. Radial: centres, then 1 / widths. ReLU: starts, then ends.
    """
    if basis == "bspline":
        knots = all_knots(g, first, order, low, high)
        rows = numpy.zeros((knots.shape[0], order + 1, knots.shape[1]))
        rows[:, 0] = knots
        for q in range(1, order + 1):
            rows[:, q, :-q] = 1.0 / (knots[:, q:] - knots[:, :-q])
        return rows.reshape(len(rows), -1).astype(dtype)
    if basis == "rbf":
        if first is None:
            first = numpy.linspace(low, high, g)[None]
            second = numpy.full((1, g), (high - low) / (g - 1) if width is None else width)
        return numpy.concatenate([first, 1.0 / second.astype(numpy.float64)], axis=1).astype(dtype)
    if basis == "relu":
        return numpy.concatenate([first, second], axis=1)
    return numpy.zeros((1, 1), dtype)


@helper
def _bsplines(x, table, t, g, order, degree, out, at, step):
    """B-splines of a lower degree or the order itself; there are g + order - degree of them."""
    knots = g + order + 1
    right = scalar(table, t)
    for f in range(knots - 1):
        left, right = right, scalar(table, t + f + 1)
        inside = select((x >= left) & (x < right), 1.0, zeros(out))
        store(out, at + f * step, select(x != x, x, inside))
    for q in range(1, degree + 1):
        inverse = t + q * knots
        upper = load(out, at) * scalar(table, inverse)
        for f in range(knots - 1 - q):
            lower, upper = upper, load(out, at + (f + 1) * step) * scalar(table, inverse + f + 1)
            value = (x - scalar(table, t + f)) * lower
            store(out, at + f * step, mul_add(scalar(table, t + f + q + 1) - x, upper, value))


@helper
def _turn(a, m, sine_1, cosine_1, sine, cosine):
    """Sine and cosine of (m + 1) a from those of m a."""
    if m % _RESEED:
        turned = cosine * cosine_1 - sine * sine_1
        sine = sine * cosine_1 + cosine * sine_1
        cosine = turned
    else:
        # the product with what its rounding lost, so that a large angle keeps its phase
        high = a * (m + 1)
        low = mul_add(a, m + 1, -high)
        sine_high, cosine_high = sincos(high)
        sine_low, cosine_low = sincos(low)
        cosine = cosine_high * cosine_low - sine_high * sine_low
        sine = sine_high * cosine_low + cosine_high * sine_low
    return sine, cosine


@helper
def _positive(x):
    return select(x < 0.0, 0.0, x)


@helper
def values(kind, x, table, t, g, order, rho, scratch, out, at, step):
    """out[at + f step] = beta_f(x) for all f < g; scratch holds g + order + 1 vectors."""
    if kind == BSPLINE:
        _bsplines(x, table, t, g, order, order, scratch, 0, lanes(out))
        for f in range(g):
            store(out, at + f * step, load(scratch, f * lanes(out)))
    elif kind == FOURIER:
        half = g // 2
        sine_1, cosine_1 = sincos(x)
        sine, cosine = sine_1, cosine_1
        for f in range(half):
            store(out, at + f * step, cosine)
            store(out, at + (half + f) * step, sine)
            sine, cosine = _turn(x, f + 1, sine_1, cosine_1, sine, cosine)
    elif kind == RADIAL:
        for f in range(g):
            u = (x - scalar(table, t + f)) * scalar(table, t + g + f)
            store(out, at + f * step, exp(-(u * u)))
    elif kind == CHEBYSHEV:
        tau = tanh(x)
        before, value = tau, zeros(out) + 1.0
        for f in range(g):
            store(out, at + f * step, value)
            before, value = value, mul_add(tau + tau, value, -before)
    elif kind == SILU:
        store(out, at, silu(x))
    else:
        for f in range(g):
            product = _positive(x - scalar(table, t + f)) * _positive(scalar(table, t + g + f) - x) * rho
            store(out, at + f * step, product * product)


@helper
def pull(kind, x, e, at, step, table, t, g, order, rho, scratch, slopes, s):
    """sum_f beta'_f(x) e[at + f step].

    Radial and ReLU bases also write to slopes[s + 2 f lanes] and the vector after it what the lanes give for
    the two parameters of function f.
    """
    n, total = lanes(e), zeros(e)
    if kind == BSPLINE:
        if order:
            _bsplines(x, table, t, g, order, order - 1, scratch, 0, n)
            inverse = t + order * (g + order + 1)
            upper = load(scratch, 0) * scalar(table, inverse)
            for f in range(g):
                lower, upper = upper, load(scratch, (f + 1) * n) * scalar(table, inverse + f + 1)
                total = mul_add(lower - upper, load(e, at + f * step), total)
            total = total * order
    elif kind == FOURIER:
        half = g // 2
        sine_1, cosine_1 = sincos(x)
        sine, cosine = sine_1, cosine_1
        for f in range(half):
            turn = cosine * load(e, at + (half + f) * step) - sine * load(e, at + f * step)
            total = mul_add(turn, f + 1, total)
            sine, cosine = _turn(x, f + 1, sine_1, cosine_1, sine, cosine)
    elif kind == RADIAL:
        for f in range(g):
            inverse = scalar(table, t + g + f)
            u = (x - scalar(table, t + f)) * inverse
            part = exp(-(u * u)) * u * (-2.0 * inverse) * load(e, at + f * step)
            total = total + part
            store(slopes, s + 2 * f * n, -part)
            store(slopes, s + (2 * f + 1) * n, -(part * u))
    elif kind == CHEBYSHEV:
        tau = tanh(x)
        # U_{-1} = 0, U_0 = 1
        before, value = zeros(e), zeros(e) + 1.0
        for f in range(1, g):
            total = mul_add(value * load(e, at + f * step), f, total)
            before, value = value, mul_add(tau + tau, value, -before)
        # the derivative of tanh without cancellation
        total = total * (4.0 * logistic(x + x)[1])
    elif kind == SILU:
        total = silu_derivative(x) * load(e, at)
    else:
        for f in range(g):
            p, q = _positive(x - scalar(table, t + f)), _positive(scalar(table, t + g + f) - x)
            part = p * q * (2.0 * rho * rho) * load(e, at + f * step)
            store(slopes, s + 2 * f * n, -(part * q))
            store(slopes, s + (2 * f + 1) * n, part * p)
            total = mul_add(part, q - p, total)
    return total
