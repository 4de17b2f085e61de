"""Long convolution of images in NumPy: the sum over the taps as it is written."""

import numpy


def long_conv2d_forward(x, h, D=None, reverse=(False, False), save=True):
    """y[p, q] = sum_ij h[i, j] x[p - i, q - j] + D x[p, q], one shifted product per tap."""
    y = numpy.zeros_like(x) if D is None else x * D
    for i, j, now, before in _shifts(x, h, reverse):
        y[now] += h[i, j] * x[before]
    return y, ()


def long_conv2d_backward(dout, saved):
    """The adjoint of every shifted product y[now] += h[i, j] x[before] of the forward.

    dx[before] += h[i, j] dy[now];  dh[i, j] = sum over batch and tokens of dy[now] x[before];  dD = sum dy x.
    """
    x, h, D = saved.x, saved.h, saved.D
    dx = numpy.zeros_like(x) if D is None else dout * D
    dh = numpy.zeros_like(h)
    for i, j, now, before in _shifts(x, h, saved.reverse):
        dx[before] += h[i, j] * dout[now]
        dh[i, j] = (dout[now] * x[before]).sum(axis=(0, 1, 2))
    return dx, dh, None if D is None else (dout * x).sum(axis=(0, 1, 2))


def _shifts(x, h, reverse):
    """Taps i, j that meet the image, with the tokens whose output they enter and those they read."""
    for i in range(min(h.shape[0], x.shape[1])):
        for j in range(min(h.shape[1], x.shape[2])):
            late = [slice(shift, None) for shift in (i, j)]
            early = [slice(0, size - shift) for size, shift in zip(x.shape[1:3], (i, j))]
            now = [e if r else t for e, t, r in zip(early, late, reverse)]
            before = [t if r else e for e, t, r in zip(early, late, reverse)]
            yield i, j, (slice(None), *now), (slice(None), *before)
