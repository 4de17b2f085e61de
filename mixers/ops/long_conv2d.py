"""Convolutions with a kernel as large as the image."""

import math

from mixers import _checks as check
from mixers.op import op


def _flops(x, **_):
    b, h, w, c = x.shape
    transform = 10 * h * w * math.log2(max(4 * h * w, 2))
    return c * ((2 * b + 1) * transform + 12 * b * h * w)


@op(inputs="x", parameters="h D", flops=_flops)
def long_conv2d(x, h, D=None, *, reverse=(False, False)):
    """Convolution over one quadrant of an image per channel, with a skip.

    y[p, q] = sum_{i <= p, j <= q} h[i, j] x[p - i, q - j] + D x[p, q]; along an axis that is reversed the kernel looks
    ahead instead, x[p + i] or x[q + j].

    Parameters
    ----------
    x : array (b, h, w, c)
        Any h, w >= 1.
    h : array (k, m, c)
        Shared over the batch. Taps that reach beyond the image have no effect (and gradient zero).
    D : array (c,), optional
    reverse : (bool, bool)
        Per axis. Reversing both gives the adjoint. The same as flipping x and y along the axis.

    Returns
    -------
    array (b, h, w, c)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees or h is empty.

    Notes
    -----
    dx is the convolution of dy with the opposite directions, dh[i, j] = sum over batch, p and q of
    dy[p, q] x[p - i, q - j], dD = sum dy x.
    By Fourier transforms of the image padded to about twice its size, 20 log2(4 h w) flops per value or more, with
    rounding of about eps max|h| max|x| everywhere. NaN and Inf spread over the image, and on the CPU over the
    neighbouring item of the batch, with which it shares a transform.
    Source: Zimerman & Wolf 2023, arXiv:2309.13600.

    Examples
    --------
    >>> import numpy
    >>> x = numpy.zeros((1, 2, 2, 1))
    >>> x[0, 0, 0] = 1.0
    >>> long_conv2d(x, numpy.array([[[1.0], [2.0]], [[3.0], [4.0]]]))[0, :, :, 0].round(12)
    array([[1., 2.],
           [3., 4.]])
    """
    f = "long_conv2d"
    *_, c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    k, m, _ = check.shape(f, "h", h, k=None, m=None, c=c)
    if k < 1 or m < 1:
        raise ValueError(f"{f}: h must have at least one tap, got shape {tuple(h.shape)}")
    if D is not None:
        check.shape(f, "D", D, c=c)
    if not isinstance(reverse, tuple | list) or len(reverse) != 2:
        raise ValueError(f"{f}: reverse must be a pair of True or False, got {reverse!r}")
    for part in reverse:
        check.boolean(f, "reverse", part)
