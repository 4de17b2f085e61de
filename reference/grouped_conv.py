"""Grouped convolutions in NumPy."""

import numpy


def grouped_conv1d_forward(x, w, b=None, groups=1, save=True):
    """A 2-D convolution of one row."""
    y, _ = grouped_conv2d_forward(x[:, None], w[None], b, groups)
    return y[:, 0], ()


def grouped_conv1d_backward(dout, saved):
    """The backward of a 2-D convolution of one row."""
    row = saved._replace(x=saved.x[:, None], w=saved.w[None])
    dx, dw, db = grouped_conv2d_backward(dout[:, None], row)
    return dx[:, 0], dw[0], db


def grouped_conv2d_forward(x, w, b=None, groups=1, save=True):
    """y = sum over taps of the shifted input times the matrix of the tap, group by group."""
    b_, h, wide, c_out = *x.shape[:3], w.shape[-1]
    y = numpy.zeros((b_, h, wide, groups, c_out // groups), x.dtype)
    for i, j, window in _windows(x, w.shape, groups):
        y += numpy.einsum("bhwgm,mgo->bhwgo", window, _by_group(w[i, j], groups))
    y = y.reshape(b_, h, wide, c_out)
    return (y if b is None else y + b), ()


def grouped_conv2d_backward(dout, saved):
    """Per tap dw = window^T dy; dx adds dy times the tap's matrix where the tap read."""
    x, w, groups = saved.x, saved.w, saved.groups
    kh, kw = w.shape[:2]
    dy = dout.reshape(*dout.shape[:3], groups, dout.shape[-1] // groups)
    dw = numpy.zeros_like(w)
    padded = numpy.zeros((x.shape[0], x.shape[1] + kh - 1, x.shape[2] + kw - 1, x.shape[3]), x.dtype)
    for i, j, window in _windows(x, w.shape, groups):
        dw[i, j] = numpy.einsum("bhwgm,bhwgo->mgo", window, dy).reshape(w.shape[2:])
        back = numpy.einsum("bhwgo,mgo->bhwgm", dy, _by_group(w[i, j], groups))
        padded[:, i : i + x.shape[1], j : j + x.shape[2]] += back.reshape(x.shape)
    dx = padded[:, kh // 2 : kh // 2 + x.shape[1], kw // 2 : kw // 2 + x.shape[2]].copy()
    return dx, dw, None if saved.b is None else dout.sum(axis=(0, 1, 2))


def _windows(x, kernel, groups):
    """For each tap (i, j) the part of the zero-padded image it reads, (b, h, w, groups, channels of a group)."""
    kh, kw = kernel[:2]
    b, h, w, c = x.shape
    padded = numpy.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    for i in range(kh):
        for j in range(kw):
            yield i, j, padded[:, i : i + h, j : j + w].reshape(b, h, w, groups, c // groups)


def _by_group(tap, groups):
    """(channels of a group, groups, outputs of a group)."""
    return tap.reshape(tap.shape[0], groups, tap.shape[1] // groups)
