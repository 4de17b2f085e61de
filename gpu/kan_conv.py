"""Kolmogorov-Arnold layers on the windows of an image on the GPU: the tiled products of kan_layer over windows.

The windows are read where they are. In the gradient of x the rows are pixels, and dy is read at the windows that hold
them, so that no sum needs atomic additions.
"""

from mixers.gpu.device import device_of
from mixers.gpu.kan_layer import Contraction


def kan_conv2d_forward(
    x, w, basis="bspline", order=3, low=-1.0, high=1.0, width=None, stride=1, padding=0, save=True
):
    sizes = _sizes(x, w, stride, padding)
    (b, _, _, c), (k, _, _, g, o), (down, across) = x.shape, w.shape, sizes[3:5]
    flat = w.reshape(k * k * c, g, o)
    options = None, None, basis, order, low, high, width
    call = Contraction(x, flat, *options, m=b * down * across, windows=sizes)
    y = device_of(x).zeros((b, down, across, o), x.dtype)
    call.forward(x, flat, y)
    return y, ()


def kan_conv2d_backward(dout, saved):
    x, w = saved.x, saved.w
    sizes = _sizes(x, w, saved.stride, saved.padding)
    k, _, c, g, o = w.shape
    options = None, None, saved.basis, saved.order, saved.low, saved.high, saved.width
    turned = device_of(w).contiguous(w.reshape(k * k, c, g, o).transpose(1, 2, 0, 3)).reshape(c, g, k * k * o)
    of_pixels = Contraction(x, turned, *options, m=x.size // max(c, 1), windows=sizes)
    dx, _ = of_pixels.pull(x, dout, turned)
    flat = w.reshape(k * k * c, g, o)
    of_windows = Contraction(x, flat, *options, m=dout.size // max(o, 1), windows=sizes)
    return dx, of_windows.weights(x, dout).reshape(w.shape)


def _sizes(x, w, stride, padding):
    _, h, across, c = x.shape
    size = w.shape[0]
    windows = ((n + 2 * padding - size) // stride + 1 for n in (h, across))
    return h, across, c, *windows, size, stride, padding
