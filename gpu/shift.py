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
        axis = axis % x.ndim
        kernel = Kernel(name, "shift.cu", T=c_type(x.dtype), MODE=_MODES[mode])
        inner = math.prod(x.shape[axis + 1 : -1])
        sizes = (
            numpy.int32(x.shape[axis]),
            numpy.int64(inner),
            numpy.int32(x.shape[-1]),
            numpy.int64(x.size),
        )
        table = device.to_device(shifts.astype(numpy.int64))
        grid = (-(-x.size // _THREADS),)
        device.launch(kernel, grid, (_THREADS,), (device.contiguous(x), y, table, *sizes))
    return y
