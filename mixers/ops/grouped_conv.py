"""Convolutions that mix the channels of a group."""

from mixers import _checks as check
from mixers.op import op


def _flops(x, w, **_):
    taps = w.size // (w.shape[-1] * w.shape[-2])
    return 2 * x.size // x.shape[-1] * taps * w.shape[-2] * w.shape[-1]


@op(inputs="x", parameters="w b", flops=_flops)
def grouped_conv1d(x, w, b=None, *, groups=1):
    """Grouped 1-D convolution (cross-correlation), stride 1, zero padding k // 2 on both sides.

    y[l, o] = b[o] + sum_{a, i} w[a, i, o] x[l + a - k // 2, g(o) c_in / groups + i], g(o) = o groups // c_out.

    Parameters
    ----------
    x : array (b, l, c_in)
    w : array (k, c_in / groups, c_out)
        k odd.
    b : array (c_out,), optional
    groups : int
        >= 1, divides c_in and c_out.

    Returns
    -------
    array (b, l, c_out)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, k is even, or groups does not divide the channels.

    Notes
    -----
    dx is the convolution of dy with the kernel flipped and its channel axes exchanged; dw and db are sums over
    batch and tokens. 2 k c_in c_out / groups flops per token.

    Examples
    --------
    >>> import numpy
    >>> grouped_conv1d(numpy.ones((1, 3, 1)), numpy.ones((3, 1, 1)))[0, :, 0]
    array([2., 3., 2.])
    """
    f = "grouped_conv1d"
    c_in = check.shape(f, "x", x, b=None, l=None, c=None)[-1]
    k, _, c_out = check.shape(f, "w", w, k=None, **{"c_in / groups": None}, c_out=None)
    _kernel(f, w, b, groups, c_in, c_out, (k,))


@op(inputs="x", parameters="w b", flops=_flops)
def grouped_conv2d(x, w, b=None, *, groups=1):
    """Grouped 2-D convolution (cross-correlation), stride 1, zero padding (kh // 2, kw // 2).

    y[p, q, o] = b[o] + sum_{i, j, m} w[i, j, m, o] x[p + i - kh // 2, q + j - kw // 2, g(o) c_in / groups + m],
    g(o) = o groups // c_out.

    Parameters
    ----------
    x : array (b, h, w, c_in)
    w : array (kh, kw, c_in / groups, c_out)
        kh, kw odd.
    b : array (c_out,), optional
    groups : int
        >= 1, divides c_in and c_out.

    Returns
    -------
    array (b, h, w, c_out)
        dtype of x.

    Raises
    ------
    ValueError
        As :data:`grouped_conv1d`.

    Notes
    -----
    See :data:`grouped_conv1d`. 2 kh kw c_in c_out / groups flops per token.
    """
    f = "grouped_conv2d"
    c_in = check.shape(f, "x", x, b=None, h=None, w=None, c=None)[-1]
    kh, kw, _, c_out = check.shape(f, "w", w, kh=None, kw=None, **{"c_in / groups": None}, c_out=None)
    _kernel(f, w, b, groups, c_in, c_out, (kh, kw))


def _kernel(function, w, b, groups, c_in, c_out, sizes):
    check.integer(function, "groups", groups, minimum=1)
    check.divides(function, "groups", groups, "c_in", c_in)
    check.divides(function, "groups", groups, "c_out", c_out)
    if w.shape[-2] != c_in // groups:
        raise ValueError(
            f"{function}: w must have c_in / groups = {c_in // groups} input channels, got shape {tuple(w.shape)}"
        )
    if any(k % 2 == 0 for k in sizes):
        raise ValueError(f"{function}: w must have odd kernel sizes, got shape {tuple(w.shape)}")
    if b is not None:
        check.shape(function, "b", b, c_out=c_out)
