"""Bands of frequencies on the GPU."""

import functools
import math

import numpy

from mixers import orders
from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256


def band_mean_forward(x, bands, save=True):
    return _sums(x, None, bands, x.dtype), ()


def band_mean_backward(dout, saved):
    return (_scaled(None, dout, saved.x),)


def band_scale_forward(x, gain, save=True):
    return _scaled(x, gain, x), ()


def band_scale_backward(dout, saved):
    gain = saved.gain
    return _scaled(dout, gain, dout), _sums(saved.x, dout, gain.shape[-1], gain.dtype)


def _sums(x, dy, bands, dtype):
    device, c = device_of(x), x.shape[-1]
    y = device.empty((x.shape[0], c, bands), dtype)
    if y.size:
        order, edges, _ = _bands(device, x.shape[1:-1], bands)
        arrays = device.contiguous(x), None if dy is None else device.contiguous(dy), order, edges, y
        kernel = Kernel("sum_bands", "bands.cu", T=c_type(x.dtype), SUM_T=c_type(dtype), GAIN_T=c_type(dtype))
        grid = (-(-c // 32) * bands * x.shape[0],)
        device.launch(kernel, grid, (32, 8), (*arrays, *map(numpy.int32, (len(order), c, bands))))
    return y


def _scaled(x, gain, like):
    device, c = device_of(like), like.shape[-1]
    y = device.empty(like.shape, like.dtype)
    if y.size:
        order, edges, table = _bands(device, like.shape[1:-1], gain.shape[-1])
        arrays = None if x is None else device.contiguous(x), device.contiguous(gain), table, edges, y
        sizes = *map(numpy.int32, (len(order), c, gain.shape[-1])), numpy.int64(y.size)
        types = {"T": c_type(like.dtype), "GAIN_T": c_type(gain.dtype), "SUM_T": c_type(gain.dtype)}
        kernel = Kernel("scale_bands", "bands.cu", **types)
        device.launch(kernel, (-(-y.size // _THREADS),), (_THREADS,), (*arrays, *sizes))
    return y


@functools.lru_cache(maxsize=64)
def _bands(device, grid, count):
    """Tokens band by band, where each band begins, and the band of each token."""
    n = math.prod(grid)
    order = numpy.arange(n) if len(grid) == 1 else orders.zigzag(*grid)
    edges = numpy.arange(count + 1) * n // count
    table = numpy.empty(n, numpy.int32)
    table[order] = numpy.repeat(numpy.arange(count), numpy.diff(edges))
    return tuple(device.to_device(a.astype(numpy.int32)) for a in (order, edges, table))
