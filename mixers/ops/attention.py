"""Attention with softmax."""

from mixers import _checks as check
from mixers.op import op


@op(
    inputs="q k v",
    parameters="table",
    flops=lambda q, window, **_: 4 * q.size * window**2,
)
def shifted_window_attention(q, k, v, table, *, window, shift=0, scale=None):
    """Softmax attention within square windows of a grid, with a bias by relative position (Swin).

    The grid is rolled by -shift along both axes and cut into windows; within each, and for each head,
    y[i] = sum_j softmax_j(scale q[i] . k[j] + table[r(i, j)] + mask[i, j]) v[j]; y is rolled back. A roll brings
    tokens from opposite edges into one window: the mask between them is -100.

    Parameters
    ----------
    q, k, v : array (b, h, w, n, d)
        n heads of d channels.
    table : array ((2 m - 1)^2, n)
        Bias of each head; row (i - i' + m - 1) (2 m - 1) + j - j' + m - 1 for a query at (i, j) and a key at
        (i', j') of the window.
    window : int
        Side m of a window; divides h and w.
    shift : int
        0 <= shift < m.
    scale : float, optional
        1 / sqrt(d) by default.

    Returns
    -------
    array (b, h, w, n, d)
        dtype of q.

    Raises
    ------
    ValueError
        If a shape disagrees, the window does not divide the grid or shift is out of its range.

    Notes
    -----
    With p the weights and g = dy: dv[j] = sum_i p[i, j] g[i]; ds[i, j] = p[i, j] (g[i] . v[j] - g[i] . y[i]);
    dq = scale ds k, dk = scale ds^T q; dtable[r] is the sum of ds over the pairs at r. Nothing is saved: the
    weights are computed again. 4 m^2 n d flops per token forward, 2.5 times that backward. Windows are read in
    place, without a rolled or partitioned copy.
    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2, eq. 4.

    Examples
    --------
    >>> import numpy
    >>> q = numpy.zeros((1, 2, 2, 1, 1))
    >>> v = numpy.arange(4.0).reshape(1, 2, 2, 1, 1)
    >>> shifted_window_attention(q, q, v, numpy.zeros((9, 1)), window=2).ravel()
    array([1.5, 1.5, 1.5, 1.5])
    """
    f = "shifted_window_attention"
    b, h, w, n, d = check.shape(f, "q", q, b=None, h=None, w=None, n=None, d=None)
    for name, array in (("k", k), ("v", v)):
        check.shape(f, name, array, b=b, h=h, w=w, n=n, d=d)
    check.integer(f, "window", window, minimum=1)
    check.divides(f, "window", window, "h", h)
    check.divides(f, "window", window, "w", w)
    check.integer(f, "shift", shift, minimum=0)
    if shift >= window:
        raise ValueError(f"{f}: shift must be below window = {window}, got {shift}")
    check.shape(f, "table", table, **{"(2 m - 1)^2": (2 * window - 1) ** 2, "n": n})
    if scale is not None:
        check.number(f, "scale", scale)
