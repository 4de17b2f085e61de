"""Changes of the token grid on the GPU."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256


def avg_pool_2x2_forward(x, save=True):
    b, h, w, c = x.shape
    return _launch("pool_blocks", x, (b, h // 2, w // 2, c), h, w, c), ()


def avg_pool_2x2_backward(dout, saved):
    return (_launch("unpool_blocks", dout, saved.x.shape, *saved.x.shape[1:]),)


def nearest_upsample_forward(x, grid=None, save=True):
    b, h, w, c = x.shape
    return _launch("copy_cells", x, (b, *grid, c), h, w, *grid, c), ()


def nearest_upsample_backward(dout, saved):
    _, h, w, c = saved.x.shape
    return (_launch("sum_cells", dout, saved.x.shape, h, w, *saved.grid, c),)


def token_mean_forward(x, axes=None, save=True):
    wide = numpy.float64 if x.dtype == numpy.float64 else numpy.float32
    axes = _axes(x, axes)
    count = math.prod(x.shape[a] for a in axes)
    return (x.sum(axis=axes, dtype=wide) / count).astype(x.dtype), ()


def token_mean_backward(dout, saved):
    shape, axes = saved.x.shape, _axes(saved.x, saved.axes)
    count = math.prod(shape[a] for a in axes)
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return (device_of(dout).zeros(shape, dout.dtype) + (dout / count).astype(dout.dtype).reshape(kept),)


def _axes(x, axes):
    return tuple(range(1, x.ndim - 1)) if axes is None else tuple(a % x.ndim for a in axes)


def _launch(name, x, shape, *sizes):
    """Run a kernel of resample.cu with one thread per value of the result."""
    device = device_of(x)
    y = device.empty(shape, x.dtype)
    if y.size:
        kernel = Kernel(name, "resample.cu", T=c_type(x.dtype))
        args = (device.contiguous(x), y, *map(numpy.int32, sizes), numpy.int64(y.size))
        device.launch(kernel, (-(-y.size // _THREADS),), (_THREADS,), args)
    return y
