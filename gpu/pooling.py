"""Average pooling on the GPU: windows of 3 roll through registers, others take one pass per axis."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
_ROWS = 14


def avg_pool_forward(x, size=3, minus_identity=False, save=True):
    return _pool(x, size, minus_identity, divide_first=False), ()


def avg_pool_backward(dout, saved):
    return (_pool(dout, saved.size, saved.minus_identity, divide_first=True),)


def _pool(x, size, minus, divide_first):
    device = device_of(x)
    x = device.contiguous(x)
    y = device.empty(x.shape, x.dtype)
    if x.size:
        macros = {"T": c_type(x.dtype), "BEFORE": int(divide_first), "MINUS": int(minus)}
        if size == 3:
            _pool_three(device, x, y, macros)
        else:
            _pool_axes(device, x, y, size // 2, macros)
    return y


def _pool_three(device, x, y, macros):
    # a sequence is an image of one row
    b, h, w, c = x.shape if x.ndim == 4 else (x.shape[0], 1, *x.shape[1:])
    # measured: the weights of the backward leave fewer registers for channels
    items = min(4, 16 // x.dtype.itemsize) // (2 if macros["BEFORE"] else 1)
    columns = 7 if macros["BEFORE"] else 4
    kernel = Kernel("pool_three", "pooling.cu", **macros, ITEMS=items, COLUMNS=columns, ROWS=_ROWS)
    threads = b * -(-h // _ROWS) * -(-w // columns) * -(-c // items)
    args = (x, y, numpy.int64(threads), *map(numpy.int32, (h, w, c)))
    device.launch(kernel, (-(-threads // _THREADS),), (_THREADS,), args)


def _pool_axes(device, x, y, reach, macros):
    wide = numpy.float64 if x.dtype == numpy.float64 else numpy.float32
    source, last = x, x.ndim - 2
    for axis in range(1, x.ndim - 1):
        # sums between the axes stay in the compute dtype; x is subtracted at the end
        target = y if axis == last else device.empty(x.shape, wide)
        types = {"SOURCE": c_type(source.dtype), "TARGET": c_type(target.dtype)}
        minus = {} if axis == last else {"MINUS": 0}
        kernel = Kernel("pool_axis", "pooling.cu", **{**macros, **types, **minus})
        n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
        sizes = (numpy.int64(x.size), numpy.int32(n), numpy.int64(inner), numpy.int32(min(reach, n)))
        device.launch(kernel, (-(-x.size // _THREADS),), (_THREADS,), (source, x, target, *sizes))
        source = target
