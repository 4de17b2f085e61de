"""Convolutions that mix the channels of a group on the GPU."""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
_SLICES = 64


def grouped_conv1d_forward(x, w, b=None, groups=1, save=True):
    y, _ = grouped_conv2d_forward(x[:, None], w[None], b, groups)
    return y[:, 0], ()


def grouped_conv1d_backward(dout, saved):
    row = saved._replace(x=saved.x[:, None], w=saved.w[None])
    dx, dw, db = grouped_conv2d_backward(dout[:, None], row)
    return dx[:, 0], dw[0], db


def grouped_conv2d_forward(x, w, b=None, groups=1, save=True):
    return _convolved(x, w, b, groups), ()


def grouped_conv2d_backward(dout, saved):
    """dx is a convolution of dy with the flipped kernel, its channels exchanged."""
    x, w, groups = saved.x, saved.w, saved.groups
    kh, kw, inputs, c_out = w.shape
    outputs = c_out // groups
    by_group = w[::-1, ::-1].reshape(kh, kw, inputs, groups, outputs)
    exchanged = by_group.transpose(0, 1, 4, 3, 2).reshape(kh, kw, outputs, groups * inputs)
    dx = _convolved(dout, exchanged, None, groups)
    db = None if saved.b is None else dout.sum(axis=(0, 1, 2), dtype=w.dtype)
    return dx, _weights(x, dout, w, groups), db


def _convolved(x, w, b, groups):
    device = device_of(x)
    y = device.empty((*x.shape[:3], w.shape[3]), x.dtype)
    if y.size:
        kernel = Kernel("grouped_convolve", "grouped_conv.cu", T=c_type(x.dtype))
        bias = None if b is None else device.contiguous(b)
        arrays = device.contiguous(x), device.contiguous(w), bias, y
        args = (*arrays, *_sizes(x, w, groups), numpy.int64(y.size))
        device.launch(kernel, (-(-y.size // _THREADS),), (_THREADS,), args)
    return y


def _weights(x, dy, w, groups):
    device = device_of(x)
    rows = x.shape[0] * x.shape[1]
    share = max(1, -(-rows // _SLICES))
    slices = max(1, -(-rows // share))
    partial = device.empty((slices, *w.shape), w.dtype)
    kernel = Kernel("grouped_weights", "grouped_conv.cu", T=c_type(x.dtype))
    arrays = device.contiguous(x), device.contiguous(dy), partial
    args = (*arrays, *_sizes(x, w, groups), numpy.int64(rows), numpy.int64(share))
    device.launch(kernel, (-(-w.size // _THREADS), slices), (_THREADS,), args)
    return partial.sum(axis=0)


def _sizes(x, w, groups):
    return map(numpy.int32, (*x.shape[1:], w.shape[3], *w.shape[:2], groups))
