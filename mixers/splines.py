"""B-splines for setting up layers: bases, least-squares fits, knots that follow samples. Float64, on the host."""

import numpy


def uniform_knots(low, high, size, order):
    """Knots of B-splines: `size` even intervals on [low, high] and `order` more on each side.

    >>> uniform_knots(0.0, 1.0, 2, 1)
    array([-0.5,  0. ,  0.5,  1. ,  1.5])
    """
    step = (high - low) / size
    return low + step * numpy.arange(-order, size + order + 1)


def basis(x, knots, order):
    """Values (n, g) of the g = knots - order - 1 B-splines of a degree at the points x (n,).

    Intervals are left-closed, and outside the knots every function is zero; knots increase.
    """
    x, left, right = numpy.asarray(x, numpy.float64)[:, None], knots[:-1], knots[1:]
    values = ((left <= x) & (x < right)).astype(numpy.float64)
    for q in range(1, order + 1):
        part = values / (knots[q:] - knots[:-q])
        values = (x - knots[: -q - 1]) * part[:, :-1] + (knots[q + 1 :] - x) * part[:, 1:]
    return values


def fit(x, y, knots, order):
    """Coefficients (g, o) of the splines nearest to the values y (n, o) at x (n,); the smallest ones if several are."""
    return numpy.linalg.lstsq(basis(x, knots, order), y, rcond=None)[0]


def refit(coefficients, old, new, order):
    """Coefficients on other knots of the splines with coefficients (g, o), fitted between the inner ends of both.

    Exact if the new knots contain the old ones.
    """
    low, high = (max(old[order], new[order]), min(old[-order - 1], new[-order - 1]))
    ends = numpy.unique(numpy.clip(numpy.concatenate([old, new]), low, high))
    # order + 1 points inside each interval determine a polynomial of that degree
    places = (numpy.arange(order + 1) + 0.5) / (order + 1)
    points = (ends[:-1, None] + numpy.diff(ends)[:, None] * places).ravel()
    return fit(points, basis(points, old, order) @ coefficients, new, order)


def adaptive_knots(samples, size, order, adaptivity=0.02, margin=0.01):
    """Knots for sorted samples (n,): `adaptivity` times even ones plus the rest times quantiles.

    The even ones span the samples and a margin; `order` knots of their step are added on each side.
    """
    step = (samples[-1] - samples[0] + 2.0 * margin) / size
    even = samples[0] - margin + step * numpy.arange(size + 1)
    quantiles = samples[numpy.linspace(0, len(samples) - 1, size + 1).astype(int)]
    inner = adaptivity * even + (1.0 - adaptivity) * quantiles
    side = step * numpy.arange(1, order + 1)
    return numpy.concatenate([inner[0] - side[::-1], inner, inner[-1] + side])
