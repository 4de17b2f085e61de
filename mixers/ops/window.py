"""Token linears inside windows and across windows of an image."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[0])
def window_linear(x, w, b=None, *, size, across=False):
    """Linear map over the tokens of each window, or over the windows at each place inside them.

    With windows of fh x fw tokens, gh x gw of them, token (p fh + i, q fw + j) is cell f = i fw + j of window
    g = p gw + q. Inside: y[g, n] = sum_m w[n, m] x[g, m] + b[n]. Across: y[n, f] = sum_m w[n, m] x[m, f] + b[n].

    Parameters
    ----------
    x : array (b, h, w, c)
    w : array (n, n)
        n = the product of `size`.
    b : array (n,), optional
    size : (int, int)
        (fh, fw), the tokens of a window; with `across` (gh, gw), the number of windows. Divides (h, w).
    across : bool
        Mix the windows: tokens on a lattice with strides (h / gh, w / gw).

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If size does not divide the grid or a shape disagrees.

    Notes
    -----
    Both views are pure index maps: dx is the same map with w^T, dw[n, m] = sum dy[n] x[m] over batch, windows
    (places) and channels, db[n] = sum dy[n]. 2 n flops per element.
    Source: Tu et al. 2022, arXiv:2201.02973, section 3.2 (block and grid branches of the multi-axis gMLP).

    Examples
    --------
    >>> import numpy
    >>> x = numpy.arange(8.0).reshape(1, 2, 4, 1)
    >>> window_linear(x, numpy.ones((4, 4)), size=(2, 2))[0, :, :, 0]
    array([[10., 10., 18., 18.],
           [10., 10., 18., 18.]])
    """
    f = "window_linear"
    _, height, width, _ = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    if not isinstance(size, tuple) or len(size) != 2:
        raise ValueError(f"{f}: size must be a pair of integers, got {size!r}")
    for part, total in zip(size, (height, width)):
        check.integer(f, "size", part, minimum=1)
        if total % part:
            raise ValueError(f"{f}: size must divide the grid {(height, width)}, got {size}")
    n = size[0] * size[1]
    check.shape(f, "w", w, n_out=n, n_in=n)
    if b is not None:
        check.shape(f, "b", b, n_out=n)
    check.boolean(f, "across", across)
