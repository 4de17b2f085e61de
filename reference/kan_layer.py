"""Kolmogorov-Arnold layers in NumPy: bases and edge functions with their derivatives, and the sums over them."""

import numpy


def kan_contract_forward(
    x, w, first=None, second=None, basis="bspline", order=3, low=-1.0, high=1.0, width=None, save=True
):
    """y = sum over inputs and functions of beta(x) w."""
    beta = _expand(x, w.shape[1], first, second, basis, order, low, high, width).values
    return numpy.einsum("...ig,igo->...o", beta, w), ()


def kan_contract_backward(dout, saved):
    """E = dy w^T; then dx = sum_g beta' E, and so for each parameter of the basis; dw = sum over rows of beta dy."""
    x, w = saved.x, saved.w
    options = (saved.basis, saved.order, saved.low, saved.high, saved.width)
    found = _expand(x, w.shape[1], saved.first, saved.second, *options)
    e = numpy.einsum("...o,igo->...ig", dout, w)
    rows = tuple(range(x.ndim - 1))
    dw = numpy.einsum("nig,no->igo", found.values.reshape(-1, *w.shape[:2]), dout.reshape(-1, w.shape[2]))
    dfirst = None if found.by_first is None else (e * found.by_first).sum(axis=rows)
    dsecond = None if found.by_second is None else (e * found.by_second).sum(axis=rows)
    return (e * found.by_x).sum(axis=-1), dw, dfirst, dsecond


class _Expansion:
    """Values (..., i, g) of a basis and their derivatives by x and by the parameters of the basis."""

    def __init__(self, values, by_x, by_first=None, by_second=None):
        self.values, self.by_x, self.by_first, self.by_second = values, by_x, by_first, by_second


def _expand(x, g, first, second, basis, order, low, high, width):
    if basis == "bspline":
        knots = uniform_knots(low, high, g, order).astype(x.dtype)[None] if first is None else first
        return _bsplines(x[..., None], knots, order)
    if basis == "fourier":
        return _fourier(x[..., None], g // 2)
    if basis == "chebyshev":
        return _chebyshev(x[..., None], g)
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
    return _Expansion(
        numpy.concatenate([c, s], axis=-1), numpy.concatenate([-m * s, m * c], axis=-1)
    )


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
    near = numpy.abs(z) < 1e-4
    safe = numpy.where(near, 1.0, z)
    s = numpy.where(near, 1.0 - z * z / 6.0, numpy.sin(safe) / safe)
    return s, numpy.where(near, -z / 3.0, (numpy.cos(safe) - s) / safe)


_WAVELETS = {
    "mexican_hat": _mexican_hat,
    "morlet": _morlet,
    "dog": _derivative_of_gaussian,
    "meyer": _meyer,
    "shannon": _shannon,
}
