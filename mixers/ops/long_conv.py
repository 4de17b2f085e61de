"""Convolutions with a kernel as long as the sequence."""

import math

from mixers import _checks as check
from mixers.op import op


def _long_conv_flops(x, h, **_):
    b, l, c = x.shape
    transform = 5 * l * math.log2(max(2 * l, 2))
    return c * ((2 * b + 1) * transform + 6 * b * l)


@op(inputs="x", parameters="h D", saves="spectrum", flops=_long_conv_flops)
def long_conv1d(x, h, D=None, *, causal=True):
    """Long convolution per channel, with a skip.

    causal: y[n] = sum_{j=0..n} h[j] x[n - j] + D x[n].
    bidirectional: h has 2 k - 1 taps, the centre one at k - 1: y[n] = sum_{|j|<k} h[k - 1 + j] x[n - j] + D x[n].

    Parameters
    ----------
    x : array (b, l, c)
        Any l >= 1.
    h : array (k, c), or (2 k - 1, c) if not causal
        Shared over the batch. Taps that reach beyond the sequence have no effect (and gradient zero).
    D : array (c,), optional
    causal : bool

    Returns
    -------
    array (b, l, c)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, h is empty, or h has an even number of taps while causal is False.

    Notes
    -----
    dx is the correlation of dy with h, dh[j] = sum over batch and n of dy[n] x[n - j], dD = sum dy x.
    By FFT of length >= 2 l for long filters, about 10 l log2(2 l) flops per batch item and channel, directly
    for short ones. The FFT leaks rounding of size eps max|h| max|x| into the past (about 6e-8 relative in float32)
    and spreads NaN and Inf over the sequence; on the CPU two neighbouring batch items share a transform, and this.
    Memory besides inputs and outputs: on the CPU, per thread, 8 (backward: 16) times the size of one vector
    register of channels of one item; on the GPU about 6 (8) times the size of x.
    Saved: `spectrum`, the filter's spectrum in a layout private to the backend that made it, or None; a
    backend that finds another's recomputes. The CPU recomputes always.
    Source: Poli et al. 2023, arXiv:2302.10866, section 2.

    Examples
    --------
    >>> import numpy
    >>> long_conv1d(numpy.array([[[1.0], [0.0], [0.0]]]), numpy.array([[3.0], [2.0], [1.0]]))[0, :, 0]
    array([3., 2., 1.])
    """
    f = "long_conv1d"
    _, _, c = check.shape(f, "x", x, b=None, l=None, c=None)
    k, _ = check.shape(f, "h", h, k=None, c=c)
    check.boolean(f, "causal", causal)
    if k < 1 or (not causal and k % 2 == 0):
        wanted = "at least one tap" if causal else "an odd number of taps (2 k - 1)"
        raise ValueError(f"{f}: h must have {wanted}, got shape {tuple(h.shape)}")
    if D is not None:
        check.shape(f, "D", D, c=c)
