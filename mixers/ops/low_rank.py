"""Attention whose matrix of weights is of low rank."""

from mixers import _checks as check
from mixers.op import op


def _flops(z, x, w_out, **_):
    b, n, h, r = z.shape
    c, o = x.shape[2], w_out.shape[1]
    return b * (2 * h * r * n * (c + o) + 2 * r * w_out.shape[0] * (c + o))


@op(inputs="z x", parameters="w_up w_v w_out b_v b_out", saves="t u m", flops=_flops)
def low_rank_values(z, x, w_up, w_v, w_out, b_v=None, b_out=None):
    """Values weighted by a matrix of low rank per head, with the linear maps before and behind.

    For every head, v = x w_v + b_v (its columns) and o[i] = sum_{p, j} z[i, p] w_up[j, p] v[j];
    then y = o w_out + b_out with the heads o side by side.

    Parameters
    ----------
    z : array (b, n, h, r)
        Left factors of h matrices of rank r.
    x : array (b, n, c)
    w_up : array (h, n, r)
        Right factors.
    w_v : array (c, e)
        Columns by heads: h divides e.
    w_out : array (e, o)
    b_v : array (e,), optional
    b_out : array (o,), optional

    Returns
    -------
    array (b, n, o)
        dtype of z.

    Raises
    ------
    ValueError
        If a shape disagrees or h does not divide e.

    Notes
    -----
    The cheap order: t = w_up^T x, u = t w_v, m = u w_out, y = z m; neither the values nor o are formed. 2 h r n (c + o)
    + 2 r e (c + o) flops per batch item, instead of 2 n e (c + o) + 4 n r e in the order of the definition.
    Saved by the cpu backend: `t` (h, b, r, c), `u` (h, b, r, e / h) and `m` (b, h, r, o). Others save None for them,
    and a backward that needs what is None computes it again.
    Source: the products of :func:`kan_attention` and of the linear maps around it, by associativity.

    Examples
    --------
    >>> import numpy
    >>> z, x, w = numpy.ones((1, 5, 2, 1)), numpy.ones((1, 5, 4)), numpy.ones((4, 4))
    >>> low_rank_values(z, x, numpy.ones((2, 5, 1)), w, w)[0, 0]
    array([80., 80., 80., 80.])
    """
    f = "low_rank_values"
    b, n, h, r = check.shape(f, "z", z, b=None, n=None, h=None, r=None)
    c = check.shape(f, "x", x, b=b, n=n, c=None)[-1]
    check.shape(f, "w_up", w_up, h=h, n=n, r=r)
    e = check.shape(f, "w_v", w_v, c=c, e=None)[-1]
    check.divides(f, "h", h, "e", e)
    o = check.shape(f, "w_out", w_out, e=e, o=None)[-1]
    if b_v is not None:
        check.shape(f, "b_v", b_v, e=e)
    if b_out is not None:
        check.shape(f, "b_out", b_out, o=o)
