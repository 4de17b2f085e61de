"""Shifts of channel groups in NumPy."""

import numpy


def channel_shift_forward(x, shifts, axis=1, mode="zero", save=True):
    """y[i, c] = x[i - s_c, c], the index treated as `mode` says; one axis after the other."""
    y = x
    for own, along in _axes(shifts, axis):
        x, y = y, numpy.empty_like(x)
        for s in numpy.unique(own):
            group = own == s
            y[..., group] = _moved(x[..., group], int(s), along, mode)
    return y, ()


def channel_shift_backward(dout, saved):
    """Each dy[i] goes back to the place it was read from; places read several times add up."""
    dx = dout
    for own, along in reversed(_axes(saved.shifts, saved.axis)):
        dout, dx = dx, numpy.zeros_like(dout)
        for s in numpy.unique(own):
            group = own == s
            dx[..., group] = _returned(dout[..., group], int(s), along, saved.mode)
    return (dx,)


def shift_linear_forward(x, w, b=None, shifts=None, axis=1, mode="zero", save=True):
    """y = shifted(x) w + b."""
    y = channel_shift_forward(x, shifts, axis, mode)[0] @ w
    return (y if b is None else y + b), ()


def shift_linear_backward(dout, saved):
    """dx = returned(dy w^T), dw = shifted(x)^T dy, db = sum dy."""
    shifted, _ = channel_shift_forward(saved.x, saved.shifts, saved.axis, saved.mode)
    rows, c_out = shifted.reshape(-1, shifted.shape[-1]), dout.shape[-1]
    dx = channel_shift_backward(dout @ saved.w.T, saved)[0]
    db = None if saved.b is None else dout.reshape(-1, c_out).sum(axis=0)
    return dx, rows.T @ dout.reshape(-1, c_out), db


def _axes(shifts, axis):
    """(shifts, axis) of each axis."""
    return list(zip(shifts, axis)) if isinstance(axis, tuple) else [(shifts, axis)]


def _sources(n, s, mode):
    """Where each position reads, and whether it reads at all."""
    index = numpy.arange(n) - s
    if mode == "wrap":
        return index % max(n, 1), numpy.ones(n, bool)
    inside = (index >= 0) & (index < n) if mode == "zero" else numpy.ones(n, bool)
    return numpy.clip(index, 0, max(n - 1, 0)), inside


def _moved(x, s, axis, mode):
    source, inside = _sources(x.shape[axis], s, mode)
    y = numpy.moveaxis(x.take(source, axis=axis), axis, 0)
    y[~inside] = 0.0
    return numpy.moveaxis(y, 0, axis)


def _returned(dy, s, axis, mode):
    source, inside = _sources(dy.shape[axis], s, mode)
    dy = numpy.moveaxis(dy, axis, 0)
    dx = numpy.zeros_like(dy)
    numpy.add.at(dx, source[inside], dy[inside])
    return numpy.moveaxis(dx, 0, axis)
