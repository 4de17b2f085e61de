"""Kolmogorov-Arnold layers on the windows of an image."""

from mixers import _checks as check
from mixers.op import op
from mixers.ops.kan_layer import check_basis

BASES = ("bspline", "fourier", "rbf", "chebyshev", "silu")


def output_grid(grid, size, stride, padding):
    """Rows and columns of the windows."""
    return tuple((n + 2 * padding - size) // stride + 1 for n in grid)


def _flops(x, w, stride=1, padding=0, **_):
    down, across = output_grid(x.shape[1:3], w.shape[0], stride, padding)
    return 2 * x.shape[0] * down * across * w.size


@op(inputs="x", parameters="w", flops=_flops)
def kan_conv2d(x, w, *, basis="bspline", order=3, low=-1.0, high=1.0, width=None, stride=1, padding=0):
    """Convolution whose kernel has a function of the pixel where others have a weight.

    y[b, p, q, o] = sum_{i, j, c, g} beta_g(x[b, p stride + i - padding, q stride + j - padding, c]) w[i, j, c, g, o]

    Parameters
    ----------
    x : array (b, h, w, c)
        Numbers of any range; zero outside the image, which goes through the functions like other zeros.
    w : array (k, k, c, g, o)
        Coefficients of the g functions.
    basis : {"bspline", "fourier", "rbf", "chebyshev", "silu"}
        Functions that are the same for all taps and channels, as in :data:`kan_contract`.
    order : int
        >= 0; < g with "bspline".
    low, high : float
        low < high.
    width : float, optional
        > 0.
    stride : int
        >= 1.
    padding : int
        Rows and columns of zeros on each side, >= 0.

    Returns
    -------
    array (b, ho, wo, o)
        ho = (h + 2 padding - k) // stride + 1, wo likewise; dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, an option is out of range, or the kernel is larger than the padded image.

    Notes
    -----
    The same as :data:`kan_contract` of :data:`unfold2d`, without the windows: the CPU evaluates the functions once
    per pixel, in bands of rows that stay in the cache. 2 k^2 c g o flops per output pixel forward and twice that
    backward. Saved: the arguments. With E[pixel, c, g] = sum over the taps of dy w, at the windows that hold the pixel,
    dx = sum_g beta'_g E; dw = sum over the windows of beta dy, in a fixed order.
    Source: SeriYann/KANConv2d, class KANConv2d; arXiv:2408.08338.

    Examples
    --------
    >>> import numpy
    >>> x = numpy.linspace(-1, 0.99, 9).reshape(1, 3, 3, 1)
    >>> kan_conv2d(x, numpy.ones((3, 3, 1, 8, 1))).round(12).ravel()
    array([9.])
    """
    f = "kan_conv2d"
    check.choice(f, "basis", basis, BASES)
    _, down, across, c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    size, other, _, g, _ = check.shape(f, "w", w, kh=None, kw=None, c=c, g=None, o=None)
    if not size == other >= 1:
        raise ValueError(f"{f}: w must have a square kernel of side k >= 1, got {tuple(w.shape[:2])}")
    check_basis(f, g, basis, order, low, high, width)
    check.integer(f, "stride", stride, minimum=1)
    check.integer(f, "padding", padding, minimum=0)
    if min(down, across) + 2 * padding < size:
        raise ValueError(
            f"{f}: w must have a side k of at most the padded image "
            f"{(down + 2 * padding, across + 2 * padding)}, got {size}"
        )
