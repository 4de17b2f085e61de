"""Strips of an image on the GPU.

For a strip linear the tokens that a tap reads are brought together by strided copies, one matrix per shared
channel; cuBLAS multiplies all of them at once.
"""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256


def strip_linear_forward(x, w, b=None, axis=None, save=True):
    device, wide = device_of(x), _wide(x)
    if not x.size:
        return device.zeros(x.shape, x.dtype), ()
    y = device.matmul(_matrices(device, w).astype(x.dtype), _columns(device, x, w, axis), dtype=wide)
    if b is not None:
        y = y + b.reshape(*b.shape, 1)
    return _image(device, y.astype(x.dtype), x.shape, w, axis), ()


def strip_linear_backward(dout, saved):
    x, w, axis = saved.x, saved.w, saved.axis
    device, wide = device_of(x), _wide(x)
    if not x.size:
        db = None if saved.b is None else device.zeros(saved.b.shape, wide)
        return device.zeros(x.shape, x.dtype), device.zeros(w.shape, wide), db
    shared, taps, n, _ = w.shape
    columns, cells = _columns(device, x, w, axis), _cells(dout, w, axis)
    dy = device.contiguous(cells).reshape(shared, n, -1)
    dw = device.matmul(dy, columns.swapaxes(1, 2), dtype=wide)
    dcolumns = device.matmul(_matrices(device, w).astype(x.dtype).swapaxes(1, 2), dy, dtype=wide)
    dcolumns = dcolumns.reshape(shared, taps, *cells.shape[1:])
    dx = device.zeros(cells.shape, wide)
    for t, read, written in _moves(taps, cells.shape[3]):
        dx[:, :, :, read] += dcolumns[:, t, :, :, written]
    return (
        _image(device, dx.astype(x.dtype), x.shape, w, axis),
        device.contiguous(dw.reshape(shared, n, taps, n).swapaxes(1, 2)),
        None if saved.b is None else dy.sum(axis=2, dtype=wide),
    )


def relative_bias_forward(x, table, save=True):
    device = device_of(x)
    y = device.empty(x.shape, x.dtype)
    arrays = device.contiguous(x), device.contiguous(table), y
    _launch(device, "add_diagonals", x, arrays, x.shape[1:], len(table) // 2, y.size)
    return y, ()


def relative_bias_backward(dout, saved):
    device, wide, table = device_of(dout), _wide(dout), saved.table
    dtable = device.zeros(table.shape, wide)
    if dout.size:
        sums = device.contiguous(dout.sum(axis=0, dtype=wide))
        _launch(device, "sum_diagonals", sums, (sums, dtable), dout.shape[1:], len(table) // 2, dtable.size)
    return dout.copy(), dtable


def _launch(device, name, x, arrays, shape, reach, size):
    if size:
        kernel = Kernel(name, "strip.cu", T=c_type(x.dtype))
        sizes = *map(numpy.int32, (*shape, reach)), numpy.int64(size)
        device.launch(kernel, (-(-size // _THREADS),), (_THREADS,), (*arrays, *sizes))


def _cells(x, w, axis):
    """A view (shared, positions, b, strips, groups)."""
    b, height, width, c = x.shape
    cells = x.reshape(b, height, width, c // w.shape[0], w.shape[0])
    return cells.transpose((4, 2, 0, 1, 3) if axis == "w" else (4, 1, 0, 2, 3))


def _image(device, y, shape, w, axis):
    """The inverse of _cells."""
    b, height, width, c = shape
    strips, n = (height, width) if axis == "w" else (width, height)
    cells = y.reshape(w.shape[0], n, b, strips, c // w.shape[0])
    return device.contiguous(cells.transpose((2, 3, 1, 4, 0) if axis == "w" else (2, 1, 3, 4, 0))).reshape(
        shape
    )


def _columns(device, x, w, axis):
    """(shared, taps positions, b strips groups): what each tap reads, zero beyond the grid."""
    cells, taps = _cells(x, w, axis), w.shape[1]
    columns = device.zeros((len(cells), taps, *cells.shape[1:]), x.dtype)
    for t, read, written in _moves(taps, cells.shape[3]):
        columns[:, t, :, :, written] = cells[:, :, :, read]
    return columns.reshape(len(cells), taps * cells.shape[1], -1)


def _moves(taps, strips):
    """For each tap that falls on the grid: the tap, the strips it reads, and for which strips."""
    for t in range(taps):
        step = t - taps // 2
        first, last = max(0, -step), min(strips, strips - step)
        if first < last:
            yield t, slice(first + step, last + step), slice(first, last)


def _matrices(device, w):
    """(shared, positions out, taps positions in)."""
    return device.contiguous(w.swapaxes(1, 2)).reshape(w.shape[0], w.shape[2], -1)


def _wide(array):
    return numpy.float64 if array.dtype == numpy.float64 else numpy.float32
