"""Filters that multiply the Fourier spectrum of a grid."""

import math

from mixers import _checks as check
from mixers.op import op


def _filter_flops(x, **_):
    _, h, w, _ = x.shape
    return x.size * (5 * math.log2(max(h * w, 2)) + 3)


@op(inputs="x", parameters="w_re w_im", flops=_filter_flops)
def spectral_filter(x, w_re, w_im):
    """Multiply the spectrum of a grid by complex weights: a circular convolution as large as the grid.

    y = irfft2(rfft2(x) (w_re + i w_im)), both transforms orthonormal, over the rows and columns of each channel.

    Parameters
    ----------
    x : array (b, h, w, c)
        Grids of any size; a sequence is a grid of one row or one column.
    w_re, w_im : array (h, w // 2 + 1, c)
        The weight of frequency (i, j) of numpy.fft.rfft2.

    Returns
    -------
    array (b, h, w, c)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees.

    Notes
    -----
    Columns 0 and, for even w, w / 2 of the spectrum hold each frequency along h twice, as conjugates: there only
    (W[i] + conj W[-i]) / 2 has an effect, as in NumPy and PyTorch.
    With G = rfft2(dy) and X = rfft2(x): dx = irfft2(conj(W) G), dW = n sum over the batch of conj(X) G, n = 1 in
    those columns and 2 in the others, for the frequencies that they stand for.
    About 5 log2(h w) flops per value. NaN and Inf spread over the grid of their channel, and on the CPU over that of
    the neighbouring item of the batch, with which it shares a transform.
    Source: Rao et al. 2021, arXiv:2107.00645, section 3.2.

    Examples
    --------
    >>> import numpy
    >>> x = numpy.arange(4.0).reshape(1, 1, 4, 1)
    >>> spectral_filter(x, numpy.ones((1, 3, 1)), numpy.zeros((1, 3, 1)))[0, 0, :, 0].round(12)
    array([0., 1., 2., 3.])
    """
    f = "spectral_filter"
    _, h, w, c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    for name, weight in (("w_re", w_re), ("w_im", w_im)):
        if weight.shape != (h, w // 2 + 1, c):
            raise ValueError(
                f"{f}: {name} must have shape (h, w // 2 + 1, c) = {(h, w // 2 + 1, c)}, got {tuple(weight.shape)}"
            )
