"""Bands of frequencies on the GPU."""

import functools
import math

import numpy

from mixers import orders
from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
_NETWORKS = 128


def band_mean_forward(x, bands, save=True):
    return _sums(x, None, bands, x.dtype), ()


def band_mean_backward(dout, saved):
    return (_scaled(None, dout, saved.x),)


def band_scale_forward(x, gain, save=True):
    return _scaled(x, gain, x), ()


def band_scale_backward(dout, saved):
    gain = saved.gain
    return _scaled(dout, gain, dout), _sums(saved.x, dout, gain.shape[1], gain.dtype)


def _sums(x, dy, bands, dtype):
    device, c = device_of(x), x.shape[-1]
    y = device.empty((x.shape[0], bands, c), dtype)
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
        order, edges, table = _bands(device, like.shape[1:-1], gain.shape[1])
        arrays = None if x is None else device.contiguous(x), device.contiguous(gain), table, edges, y
        sizes = *map(numpy.int32, (len(order), c, gain.shape[1])), numpy.int64(y.size)
        types = {"T": c_type(like.dtype), "GAIN_T": c_type(gain.dtype), "SUM_T": c_type(gain.dtype)}
        kernel = Kernel("scale_bands", "bands.cu", **types)
        device.launch(kernel, (-(-y.size // _THREADS),), (_THREADS,), (*arrays, *sizes))
    return y


def band_weights_forward(z, scale, bias, w1, w2, b1=None, b2=None, eps=1e-5, save=True):
    device = device_of(z)
    y = device.empty(z.shape, z.dtype)
    weights = _folded(device, scale, bias, w1, w2, b1, b2)
    _launch("weigh_bands", device, (device.contiguous(z), *weights, y), z, w1, eps)
    return y, ()


def band_weights_backward(dout, saved):
    """The kernel writes factors of the weights' gradients; a row of ones in one of them gives those of the biases."""
    s = saved
    device, (b, k, c), v, wide = device_of(s.z), s.z.shape, s.w1.shape[1], s.w1.dtype
    dz = device.empty(s.z.shape, s.z.dtype)
    shapes = (b, k + 1, c), (b, v + 1, c), (b, k, c), (b, v, c)
    n, hidden, do, dhidden = (device.zeros(shape, wide) for shape in shapes)
    weights = _folded(device, s.scale, s.bias, s.w1, s.w2, s.b1, s.b2)
    arrays = device.contiguous(s.z), device.contiguous(dout), *weights, dz, n, hidden, do, dhidden
    _launch("pull_weights", device, arrays, s.z, s.w1, s.eps)
    first = device.matmul(n, dhidden.swapaxes(1, 2)).sum(axis=0)
    second = device.matmul(hidden, do.swapaxes(1, 2)).sum(axis=0)
    products, db1 = first[:k], first[k:]
    return (
        dz,
        (s.w1 * products).sum(axis=1),
        device.matmul(s.w1, db1.swapaxes(0, 1)).reshape(k),
        s.scale.reshape(k, 1) * products + device.matmul(s.bias.reshape(k, 1), db1),
        second[:v],
        None if s.b1 is None else db1.reshape(v),
        None if s.b2 is None else second[v:].reshape(k),
    )


def _folded(device, scale, bias, w1, w2, b1, b2):
    """The weights with scale and bias of the norm in those of the first layer."""
    k = len(scale)
    offset = device.matmul(bias.reshape(1, k), w1).reshape(-1)
    first = scale.reshape(k, 1) * w1, offset if b1 is None else offset + b1
    return (
        *map(device.contiguous, first),
        device.contiguous(w2),
        None if b2 is None else device.contiguous(b2),
    )


def _launch(name, device, arrays, z, w1, eps):
    """A thread per item and channel."""
    channels = z.shape[0] * z.shape[2]
    if channels:
        types = {"T": c_type(z.dtype), "GAIN_T": c_type(w1.dtype), "SUM_T": c_type(w1.dtype)}
        kernel = Kernel(name, "bands.cu", **types, BANDS=z.shape[1])
        sizes = numpy.int32(z.shape[2]), numpy.int32(w1.shape[1]), numpy.float64(eps), numpy.int64(channels)
        device.launch(kernel, (-(-channels // _NETWORKS),), (_NETWORKS,), (*arrays, *sizes))


@functools.lru_cache(maxsize=64)
def _bands(device, grid, count):
    """Tokens band by band, where each band begins, and the band of each token."""
    n = math.prod(grid)
    order = numpy.arange(n) if len(grid) == 1 else orders.zigzag(*grid)
    edges = numpy.arange(count + 1) * n // count
    table = numpy.empty(n, numpy.int32)
    table[order] = numpy.repeat(numpy.arange(count), numpy.diff(edges))
    return tuple(device.to_device(a.astype(numpy.int32)) for a in (order, edges, table))
