"""Kolmogorov-Arnold layers in NumPy: bases with their derivatives, contracted with coefficients."""

import math

import numpy


def kan_contract_forward(
    x, w, first=None, second=None, basis="bspline", order=3, low=-1.0, high=1.0, width=None, save=True
):
    """y = sum over inputs and functions of beta(x) w."""
    beta = expand(x, w.shape[1], first, second, basis, order, low, high, width).values
    return numpy.einsum("...ig,igo->...o", beta, w), ()


def kan_contract_backward(dout, saved):
    """E = dy w^T; then dx = sum_g beta' E, and so for each parameter of the basis; dw = sum over rows of beta dy."""
    x, w = saved.x, saved.w
    options = (saved.basis, saved.order, saved.low, saved.high, saved.width)
    found = expand(x, w.shape[1], saved.first, saved.second, *options)
    e = numpy.einsum("...o,igo->...ig", dout, w)
    rows = tuple(range(x.ndim - 1))
    count = math.prod(x.shape[:-1])
    beta = found.values.reshape(count, *w.shape[:2])
    dw = numpy.einsum("nig,no->igo", beta, dout.reshape(count, w.shape[2]))
    dfirst = None if found.by_first is None else (e * found.by_first).sum(axis=rows)
    dsecond = None if found.by_second is None else (e * found.by_second).sum(axis=rows)
    return (e * found.by_x).sum(axis=-1), dw, dfirst, dsecond


class _Expansion:
    """Values (..., i, g) of a basis and their derivatives by x and by the parameters of the basis."""

    def __init__(self, values, by_x, by_first=None, by_second=None):
        self.values, self.by_x, self.by_first, self.by_second = values, by_x, by_first, by_second


def expand(x, g, first, second, basis, order, low, high, width):
    """Values and derivatives of a basis; arguments as of kan_contract."""
    if basis == "bspline":
        knots = uniform_knots(low, high, g, order).astype(x.dtype)[None] if first is None else first
        return _bsplines(x[..., None], knots, order)
    if basis == "fourier":
        return _fourier(x[..., None], g // 2)
    if basis == "chebyshev":
        return _chebyshev(x[..., None], g)
    if basis == "silu":
        return _silu(x[..., None])
    if basis == "relu":
        return _relu(x[..., None], first, second, 4.0 * (g - order) ** 2 / (order + 1) ** 2)
    if first is not None:
        return _radial(x[..., None], first, second)
    width = (high - low) / (g - 1) if width is None else width
    found = _radial(x[..., None], numpy.linspace(low, high, g, dtype=x.dtype), x.dtype.type(width))
    return _Expansion(found.values, found.by_x)


def uniform_knots(low, high, g, order):
    """The knots of g B-splines whose intervals divide [low, high]: low + (n - order) h."""
    h = (high - low) / (g - order)
    return low + h * numpy.arange(-order, g + 1)


def _bsplines(x, t, order):
    """Cox and de Boor; t (i, g + order + 1).

    B'_{g, k} = k (B_{g, k-1} / (t_{g+k} - t_g) - B_{g+1, k-1} / (t_{g+k+1} - t_{g+1})).
    """
    b = ((t[:, :-1] <= x) & (x < t[:, 1:])).astype(x.dtype)
    b = numpy.where(numpy.isnan(x), x, b)
    slope = 0.0 * b
    for q in range(1, order + 1):
        part = b / (t[:, q:] - t[:, :-q])
        slope = q * (part[..., :-1] - part[..., 1:])
        b = (x - t[:, : -q - 1]) * part[..., :-1] + (t[:, q + 1 :] - x) * part[..., 1:]
    return _Expansion(b, slope)


def _fourier(x, count):
    m = numpy.arange(1, count + 1, dtype=x.dtype)
    c, s = numpy.cos(m * x), numpy.sin(m * x)
    return _Expansion(numpy.concatenate([c, s], axis=-1), numpy.concatenate([-m * s, m * c], axis=-1))


def _radial(x, centres, widths):
    """beta = exp(-u^2), u = (x - centre) / width."""
    u = (x - centres) / widths
    beta = numpy.exp(-u * u)
    slope = -2.0 * u * beta / widths
    return _Expansion(beta, slope, -slope, -slope * u)


def _chebyshev(x, g):
    """T_d(tau) and d U_{d-1}(tau), tau = tanh x, by their common recurrence; dtau = 1 - tau^2."""
    tau = numpy.tanh(x)
    t, u = [numpy.ones_like(tau), tau], [numpy.ones_like(tau), 2.0 * tau]
    for _ in range(2, g):
        t.append(2.0 * tau * t[-1] - t[-2])
        u.append(2.0 * tau * u[-1] - u[-2])
    slopes = [numpy.zeros_like(tau)] + [d * u[d - 1] for d in range(1, g)]
    # 1 - tau^2 without cancellation
    dtau = 1.0 / numpy.cosh(numpy.clip(x, -300.0, 300.0)) ** 2
    return _Expansion(numpy.concatenate(t[:g], axis=-1), dtau * numpy.concatenate(slopes[:g], axis=-1))


def _relu(x, start, end, rho):
    """beta = (rho p q)^2 with p = relu(x - start), q = relu(end - x)."""
    p, q = numpy.maximum(x - start, 0.0), numpy.maximum(end - x, 0.0)
    scale = 2.0 * rho * rho
    by_start, by_end = -scale * p * q * q, scale * p * p * q
    return _Expansion((rho * p * q) ** 2, -by_start - by_end, by_start, by_end)


def _silu(x):
    """One function, x sigma(x); its slope is sigma (1 + x (1 - sigma))."""
    gate = 0.5 * (1.0 + numpy.tanh(0.5 * x))
    return _Expansion(x * gate, gate * (1.0 + x * (1.0 - gate)))
