"""Attention with softmax on the GPU: the weights of all windows in memory, a warp per query or key."""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_WARPS = 4


def shifted_window_attention_forward(q, k, v, table, window, shift=0, scale=None, save=True):
    y = device_of(q).empty(q.shape, q.dtype)
    if q.size:
        _Windows(q, k, table, window, shift, scale).attend(v, y)
    return y, ()


def shifted_window_attention_backward(dout, saved):
    """ds once more in memory, from which dq, dk and the gradient of the table are gathered."""
    q, k, v, table = saved.q, saved.k, saved.v, saved.table
    device = device_of(q)
    dq, dk, dv = (device.empty(q.shape, q.dtype) for _ in range(3))
    if not q.size:
        return dq, dk, dv, device.zeros(table.shape, table.dtype)
    windows = _Windows(q, k, table, saved.window, saved.shift, saved.scale)
    weights = windows.attend(v, None)
    dy, v = device.contiguous(dout), device.contiguous(v)
    ds = device.empty(weights.shape, weights.dtype)
    windows.launch("pull_queries", windows.k, v, dy, windows.rows, weights, ds, dq)
    windows.launch("pull_keys", windows.q, dy, windows.rows, weights, ds, dk, dv)
    dtable = device.empty(table.shape, table.dtype)
    sums = device.contiguous(ds.sum(axis=(0, 1)))
    sizes = numpy.int64(dtable.size), numpy.int32(q.shape[3]), numpy.int32(saved.window)
    kernel = Kernel("gather_table", "attention.cu", T=c_type(q.dtype))
    device.launch(kernel, (-(-dtable.size // 128),), (128,), (sums, dtable, *sizes))
    return dq, dk, dv, dtable


class _Windows:
    """The windows of a grid, what is added to their scores, and the launches over all of their tokens."""

    def __init__(self, q, k, table, window, shift, scale):
        self.device, self.dtype, self.wide = device_of(q), q.dtype, table.dtype
        b, h, w, n, d = q.shape
        self.q, self.k = self.device.contiguous(q), self.device.contiguous(k)
        m2 = window * window
        rows, labels = _cut(h, w, window, shift)
        self.rows, self.labels = self.device.to_device(rows), self.device.to_device(labels)
        relative = self.device.to_device(_relative(window))
        self.bias = self.device.contiguous(table[relative].transpose(2, 0, 1))
        self.pairs = b, h * w // m2, n, m2, m2
        scale = d**-0.5 if scale is None else scale
        sizes = map(numpy.int32, (h * w, h * w // m2, n, d, m2))
        self.sizes = (numpy.int64(b * h * w * n), *sizes, self.wide.type(scale))

    def launch(self, name, *arrays):
        kernel = Kernel(name, "attention.cu", T=c_type(self.dtype))
        blocks = -(-int(self.sizes[0]) // _WARPS)
        self.device.launch(kernel, (blocks,), (32 * _WARPS,), (*arrays, *self.sizes))

    def attend(self, v, y):
        """The weights, and the outputs into y unless it is None."""
        weights = self.device.empty(self.pairs, self.wide)
        v = self.device.contiguous(v)
        self.launch("attend", self.q, self.k, v, self.bias, self.rows, self.labels, weights, y)
        return weights


def _relative(m):
    """Row of the table for each query and key of a window, (m^2, m^2)."""
    i, j = numpy.divmod(numpy.arange(m * m), m)
    return (i[:, None] - i + m - 1) * (2 * m - 1) + j[:, None] - j + m - 1


def _cut(h, w, m, shift):
    """The tokens of each window, and the regions they come from, (windows m^2,)."""
    region = lambda size: (numpy.arange(size) >= size - m).astype(int) + (numpy.arange(size) >= size - shift)
    labels = 3 * region(h)[:, None] + region(w) if shift else numpy.zeros((h, w), int)
    tokens = numpy.roll(numpy.arange(h * w).reshape(h, w), (-shift, -shift), axis=(0, 1))
    cut = lambda a: a.reshape(h // m, m, w // m, m).swapaxes(1, 2).reshape(-1).astype(numpy.int32)
    return cut(tokens), cut(labels)
