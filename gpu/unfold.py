"""Windows of an image on the GPU."""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
_WINDOWS = numpy.dtype([(n, "i4") for n in "h w c down across size stride padding".split()])


def unfold2d_forward(x, size, stride=1, padding=0, save=True):
    b, h, w, c = x.shape
    down, across = ((n + 2 * padding - size) // stride + 1 for n in (h, w))
    y = device_of(x).empty((b, down, across, size * size * c), x.dtype)
    _launch("unfold", x, y, (h, w, c, down, across, size, stride, padding))
    return y, ()


def unfold2d_backward(dout, saved):
    _, h, w, c = saved.x.shape
    dx = device_of(dout).empty(saved.x.shape, dout.dtype)
    sizes = (h, w, c, *dout.shape[1:3], saved.size, saved.stride, saved.padding)
    _launch("fold", dout, dx, sizes)
    return (dx,)


def _launch(name, source, target, sizes):
    if target.size:
        device = device_of(target)
        kernel = Kernel(name, "unfold.cu", T=c_type(target.dtype))
        args = device.contiguous(source), target, numpy.array(sizes, _WINDOWS)[()], numpy.int64(target.size)
        device.launch(kernel, (-(-target.size // _THREADS),), (_THREADS,), args)
