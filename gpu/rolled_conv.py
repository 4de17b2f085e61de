"""Depthwise convolutions of rolled images on the GPU: one roll of all channels, then a convolution per group."""

from typing import Any, NamedTuple

import numpy

from mixers.gpu import conv, shift
from mixers.gpu.device import device_of


def rolled_conv2d_forward(x, w_lr, w_td, b=None, shifts=None, kernels=None, save=True):
    device = device_of(x)
    groups, moves = _groups(x.shape[-1], shifts, kernels)
    wide = numpy.float64 if x.dtype == numpy.float64 else numpy.float32
    y = device.zeros(x.shape, wide)
    for w, axis in ((w_lr, 2), (w_td, 1)):
        rolled = shift.channel_shift_forward(x, moves, axis, "wrap")[0]
        for part, place, shape in groups:
            own = device.contiguous(rolled[..., part])
            y[..., part] += conv.depthwise_conv2d_forward(own, w[place].reshape(shape))[0]
    return (y if b is None else y + b).astype(x.dtype), ()


def rolled_conv2d_backward(dout, saved):
    x, device = saved.x, device_of(saved.x)
    groups, moves = _groups(x.shape[-1], saved.shifts, saved.kernels)
    dx, dws = None, []
    for w, axis in ((saved.w_lr, 2), (saved.w_td, 1)):
        rolled = shift.channel_shift_forward(x, moves, axis, "wrap")[0]
        drolled, dw = device.zeros(x.shape, x.dtype), device.zeros(w.shape, w.dtype)
        for part, place, shape in groups:
            one = _Convolution(device.contiguous(rolled[..., part]), w[place].reshape(shape))
            own, dkernel, _ = conv.depthwise_conv2d_backward(device.contiguous(dout[..., part]), one)
            drolled[..., part] = own
            dw[place] = dkernel.reshape(-1)
        back = shift.channel_shift_forward(drolled, -moves, axis, "wrap")[0]
        dx = back if dx is None else dx + back
        dws.append(dw)
    db = None if saved.b is None else dout.sum(axis=(0, 1, 2), dtype=saved.b.dtype)
    return dx, *dws, db


class _Convolution(NamedTuple):
    """What the backward of a convolution takes."""

    x: Any
    w: Any
    b: Any = None
    dilation: int = 1
    padding: str = "same"


def _groups(c, shifts, kernels):
    """Of each group its channels, place in the flat kernels and their shape; and the shift of each channel."""
    size, start, groups = -(-c // len(shifts)), 0, []
    moves = numpy.zeros(c, numpy.int64)
    for j, (s, k) in enumerate(zip(shifts, kernels)):
        part = slice(j * size, min(c, (j + 1) * size))
        shape = k, k, part.stop - part.start
        groups.append((part, slice(start, start + k * k * shape[2]), shape))
        moves[part], start = s, start + k * k * shape[2]
    return groups, moves
