"""Shifts of channel groups on the GPU."""

import math

import numpy

from mixers.gpu import linear
from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
_MODES = {"zero": 0, "clamp": 1, "wrap": 2}


def channel_shift_forward(x, shifts, axis=1, mode="zero", save=True):
    return _launch("shift_forward", x, shifts, axis, mode), ()


def channel_shift_backward(dout, saved):
    return (_launch("shift_backward", dout, saved.shifts, saved.axis, saved.mode),)


def shift_linear_forward(x, w, b=None, shifts=None, axis=1, mode="zero", save=True):
    shifted, _ = channel_shift_forward(x, shifts, axis, mode)
    return linear.linear_forward(shifted, w, b, save=False)[0], ()


def shift_linear_backward(dout, saved):
    shifted, _ = channel_shift_forward(saved.x, saved.shifts, saved.axis, saved.mode)
    dshifted, dw, db = linear.linear_backward(dout, saved._replace(x=shifted))
    return channel_shift_backward(dshifted, saved)[0], dw, db


def _launch(name, x, shifts, axis, mode):
    device = device_of(x)
    y = device.empty(x.shape, x.dtype)
    if x.size:
        n, inner, m, rest, moves = _two_axes(x, shifts, axis)
        kernel = Kernel(name, "shift.cu", T=c_type(x.dtype), MODE=_MODES[mode])
        sizes = (
            numpy.int32(n),
            numpy.int64(inner),
            numpy.int32(m),
            numpy.int64(rest),
            numpy.int32(x.shape[-1]),
        )
        args = device.contiguous(x), y, device.to_device(moves), *sizes, numpy.int64(x.size)
        device.launch(kernel, (-(-x.size // _THREADS),), (_THREADS,), args)
    return y


def _two_axes(x, shifts, axis):
    """Sizes n, inner, m, rest of x as (lines, n, inner, m, rest, c), and the shifts along n and m."""
    axes = [a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
    moves = shifts.reshape(len(axes), -1).astype(numpy.int64)
    if len(axes) == 1:
        # the second axis is an empty one behind the first
        return (
            x.shape[axes[0]],
            1,
            1,
            math.prod(x.shape[axes[0] + 1 : -1]),
            numpy.stack([moves[0], 0 * moves[0]]),
        )
    first, second = sorted(axes)
    inner, rest = math.prod(x.shape[first + 1 : second]), math.prod(x.shape[second + 1 : -1])
    return x.shape[first], inner, x.shape[second], rest, moves[numpy.argsort(axes)]
