"""Depthwise convolutions of rolled images, as defined."""

from typing import Any, NamedTuple

import numpy

from mixers.reference import conv


def rolled_conv2d_forward(x, w_lr, w_td, b=None, shifts=None, kernels=None, save=True):
    """Group by group: roll along an axis, then convolve."""
    y = numpy.zeros_like(x)
    for part, place, shape, s in _groups(x.shape[-1], shifts, kernels):
        for w, axis in ((w_lr, 2), (w_td, 1)):
            rolled = numpy.roll(x[..., part], s, axis=axis)
            y[..., part] += conv.depthwise_conv2d_forward(rolled, w[place].reshape(shape))[0]
    return (y if b is None else y + b), ()


def rolled_conv2d_backward(dout, saved):
    """The convolution's backward on the rolled x, then dx rolled back."""
    x, dx = saved.x, numpy.zeros_like(saved.x)
    dws = [numpy.zeros_like(w) for w in (saved.w_lr, saved.w_td)]
    for part, place, shape, s in _groups(x.shape[-1], saved.shifts, saved.kernels):
        for w, dw, axis in ((saved.w_lr, dws[0], 2), (saved.w_td, dws[1], 1)):
            rolled = numpy.roll(x[..., part], s, axis=axis)
            one = _Convolution(rolled, w[place].reshape(shape))
            drolled, own, _ = conv.depthwise_conv2d_backward(dout[..., part], one)
            dx[..., part] += numpy.roll(drolled, -s, axis=axis)
            dw[place] = own.reshape(-1)
    return dx, *dws, None if saved.b is None else dout.sum(axis=(0, 1, 2))


class _Convolution(NamedTuple):
    """What the backward of a convolution takes."""

    x: Any
    w: Any
    b: Any = None
    dilation: int = 1
    padding: str = "same"


def _groups(c, shifts, kernels):
    """Of each group: its channels, its place in the flat kernels, their shape, its shift."""
    size, start = -(-c // len(shifts)), 0
    for j, (s, k) in enumerate(zip(shifts, kernels)):
        part = slice(j * size, min(c, (j + 1) * size))
        shape = k, k, part.stop - part.start
        yield part, slice(start, start + k * k * shape[2]), shape, s
        start += k * k * shape[2]
