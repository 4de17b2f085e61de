"""Kolmogorov-Arnold layers: sums of functions of one variable, whose coefficients are learnt per edge."""

import math

from mixers import _checks as check
from mixers.op import op

BASES = ("bspline", "fourier", "rbf", "chebyshev", "relu", "silu")


def _contract_flops(x, w, **_):
    return 2 * math.prod(x.shape[:-1]) * math.prod(w.shape)


@op(inputs="x", parameters="w first second", flops=_contract_flops)
def kan_contract(x, w, first=None, second=None, *, basis="bspline", order=3, low=-1.0, high=1.0, width=None):
    """Expand every input in a basis of functions and contract with coefficients, without storing the expansion.

    y[..., o] = sum_{i, g} beta_{i, g}(x[..., i]) w[i, g, o]

    Parameters
    ----------
    x : array (..., i)
        Numbers of any range.
    w : array (i, g, o)
        Coefficients of the g functions.
    first, second : array, optional
        What the basis has per input, see below. Without it the basis is the same for all inputs and
        follows from `low`, `high` and `width`.
    basis : {"bspline", "fourier", "rbf", "chebyshev", "relu", "silu"}
        "bspline": g = n + order B-splines of degree `order`, intervals left-closed, zero outside the knots;
        `first` holds the increasing knots (i, g + order + 1), or n intervals divide [low, high] evenly and
        order more lie on each side. The knots have no gradient.
        "fourier": cos x, ..., cos(g x / 2), then sin x, ..., sin(g x / 2); g is even.
        "rbf": exp(-((x - first) / second)^2), both (i, g), or centres even from low to high, both included,
        with `width` or else the distance of centres.
        "chebyshev": T_0, ..., T_(g - 1) of tanh x.
        "relu": (rho relu(x - first) relu(second - x))^2 with rho = 4 n^2 / (order + 1)^2, n = g - order; both
        ends (i, g) are given.
        "silu": x / (1 + exp(-x)) alone, g = 1.
    order : int
        >= 0; < g with "bspline" and "relu".
    low, high : float
        low < high.
    width : float, optional
        > 0.

    Returns
    -------
    array (..., o)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, an option is out of range, or the ends of "relu" are missing.

    Notes
    -----
    2 g i o flops per row forward and twice that backward, besides the functions. Saved: the arguments. No
    array of (rows, i, g) is formed: tiles of the expansion are made where they are used up, and made again in
    the backward, E[., i, g] = sum_o dy[., o] w[i, g, o]: dx[., i] = sum_g beta'_{i, g} E[., i, g] and
    dw[i, g] = sum over the rows of beta_{i, g} dy, in a fixed order. At a knot a B-spline of degree 1 has its
    right-hand slope, one of degree 0 the slope 0.
    Source: Liu et al. 2024, arXiv:2404.19756, section 2.2 (B-splines); Li 2024, arXiv:2405.06721 (radial
    functions); Qiu et al. 2024, arXiv:2406.02075 (ReLU-KAN).

    Examples
    --------
    >>> import numpy
    >>> x = numpy.linspace(-1, 0.99, 5)[:, None]
    >>> kan_contract(x, numpy.ones((1, 8, 1))).round(12).ravel()
    array([1., 1., 1., 1., 1.])
    """
    f = "kan_contract"
    check.choice(f, "basis", basis, BASES)
    i, g, _ = check.shape(f, "w", w, i=None, g=None, o=None)
    check_rows(f, x, i)
    check_basis(f, g, basis, order, low, high, width, first is not None)
    takes = {"bspline": "first", "rbf": "first second", "relu": "first second"}.get(basis, "").split()
    for name, array in (("first", first), ("second", second)):
        if array is not None and name not in takes:
            raise ValueError(f"{f}: {name} must not be given with basis={basis!r}")
        if array is None and (basis == "relu" or (len(takes) == 2 and (first is None) != (second is None))):
            raise ValueError(f"{f}: first and second must be given with basis={basis!r}")
        if array is not None:
            check.shape(f, name, array, i=i, g=g + order + 1 if basis == "bspline" else g)


def check_basis(f, g, basis, order, low, high, width, placed=False):
    """Check the options of a basis of g functions; `placed` where knots or centres are given."""
    order = check.integer(f, "order", order, minimum=0)
    if check.number(f, "low", low) >= check.number(f, "high", high):
        raise ValueError(f"{f}: low must be < high, got {low} and {high}")
    if width is not None:
        check.number(f, "width", width, above=0)
    if basis == "rbf" and g < 2 and width is None and not placed:
        raise ValueError(f"{f}: w must have g >= 2 functions without centres and width, got {g}")
    if basis == "fourier" and g % 2:
        raise ValueError(f"{f}: w must have an even number g of functions with basis='fourier', got {g}")
    if basis in ("bspline", "relu") and g <= order:
        raise ValueError(f"{f}: w must have g > order = {order} functions, got {g}")
    if basis == "silu" and g != 1:
        raise ValueError(f"{f}: w must have g = 1 function with basis='silu', got {g}")


def check_rows(function, x, i):
    """Check that the last axis of x has i inputs."""
    if x.ndim < 1 or x.shape[-1] != i:
        raise ValueError(f"{function}: x must have shape (..., i) with i = {i}, got {tuple(x.shape)}")
