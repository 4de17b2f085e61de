"""Spectral filters on the GPU: one kernel for small grids, cuFFT for large ones."""

import functools

import numpy

from mixers.gpu.device import Kernel, c_type, device_of
from mixers.op import compute_dtype

_THREADS = 256

# longest axis of which a thread holds a line in registers
_LONGEST = 64

# blocks wanted at least when each sums over several items
_BLOCKS = 256


def spectral_filter_forward(x, w_re, w_im, save=True):
    if x.size == 0:
        return device_of(x).empty(x.shape, x.dtype), ()
    return filter_images(x, w_re, w_im, x.shape[1:3]), ()


def spectral_filter_backward(dout, saved):
    """The transforms are not scaled, hence the division."""
    x, w_re, w_im = saved.x, saved.w_re, saved.w_im
    device = device_of(x)
    if x.size == 0:
        return (
            device.empty(x.shape, x.dtype),
            device.zeros(w_re.shape, w_re.dtype),
            device.zeros(w_im.shape, w_im.dtype),
        )
    h, w = x.shape[1:3]
    dx, ds_re, ds_im = filter_images_backward(x, dout, w_re, w_im, (h, w))
    uses = numpy.full((w // 2 + 1, 1), 2 / (h * w))
    uses[0] = 1 / (h * w)
    if w % 2 == 0:
        uses[-1] = 1 / (h * w)
    uses = device.to_device(uses.astype(w_re.dtype))
    return dx, ds_re * uses, ds_im * uses


def filter_images(x, s_re, s_im, grid, conjugate=False):
    """Multiply the half spectrum of images, zero-padded to a grid, by S or its conjugate; the result is cropped.

    Parameters
    ----------
    x : array (b, h, w, c)
    s_re, s_im : array (H, W // 2 + 1, c)
        In the compute dtype; factors of the unscaled transform.
    grid : (int, int)
        H, W, at least h, w.
    """
    device = device_of(x)
    channels = _channels(device, x, grid, tiles=1)
    if channels is None:
        X = _transform(device, x, grid)
        S = s_re - 1j * s_im if conjugate else s_re + 1j * s_im
        return _back(device, X * S, x, grid)
    y = device.empty(x.shape, x.dtype)
    b, *_, c = x.shape
    blocks = -(-c // channels)
    args = *map(device.contiguous, (x, s_re, s_im)), _circles(device, grid, s_re.dtype), y
    args = *args, numpy.int32(blocks), numpy.int32(c), numpy.int32(conjugate)
    kernel, shared = _kernel("filter_images", x, grid, channels, tiles=1)
    device.launch(kernel, (b * blocks,), (_THREADS,), args, shared=shared)
    return y


def filter_images_backward(x, dy, s_re, s_im, grid):
    """The adjoint: dx, and real and imaginary part of the sum over the batch of conj(X) G, unscaled."""
    device = device_of(x)
    channels = _channels(device, x, grid, tiles=2)
    if channels is None:
        G = _transform(device, dy, grid)
        dS = (_transform(device, x, grid).conj() * G).sum(axis=0)
        return _back(device, G * (s_re - 1j * s_im), x, grid), dS.real.copy(), dS.imag.copy()
    dx = device.empty(x.shape, x.dtype)
    b, *_, c = x.shape
    blocks = -(-c // channels)
    share = -(-b // min(b, -(-_BLOCKS // blocks)))
    slices = -(-b // share)
    ds = device.empty((slices, 2, *s_re.shape), compute_dtype(x.dtype))
    args = *map(device.contiguous, (x, dy, s_re, s_im)), _circles(device, grid, s_re.dtype), dx, ds
    args = *args, *map(numpy.int32, (blocks, c, b, share))
    kernel, shared = _kernel("filter_images_backward", x, grid, channels, tiles=2)
    device.launch(kernel, (slices * blocks,), (_THREADS,), args, shared=shared)
    total = ds.sum(axis=0)
    return dx, total[0], total[1]


def _channels(device, x, grid, tiles):
    """Channels of a block: as many as leave room for two blocks per multiprocessor; None for a large grid."""
    if max(grid) > _LONGEST:
        return None
    fits = lambda n, limit: _shared(x.dtype, grid, n, tiles) <= limit
    # at least 32 bytes of neighbouring channels, if possible
    least = 32 // x.dtype.itemsize
    choices = [n for n in (32, 16, 8, 4, 2, 1) if n < 2 * x.shape[3] and fits(n, device.max_shared)]
    spacious = [n for n in choices if n >= least and fits(n, device.max_shared // 2)]
    wide = [n for n in choices if n >= least]
    return max(spacious, default=min(wide, default=max(choices, default=None)))


def _shared(dtype, grid, channels, tiles):
    h, w = grid
    points = tiles * h * (w // 2 + 1) * channels + h + w
    return points * 2 * compute_dtype(dtype).itemsize


@functools.lru_cache(maxsize=16)
def _circles(device, grid, dtype):
    """Cosine and sine of the multiples of the n-th part of a circle, n = h and w."""
    angles = numpy.concatenate([2 * numpy.pi * numpy.arange(n) / n for n in grid])
    return device.to_device(numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1).astype(dtype))


def _kernel(name, x, grid, channels, tiles):
    macros = {"H": grid[0], "W": grid[1], "IMAGE_H": x.shape[1], "IMAGE_W": x.shape[2], "CHANNELS": channels}
    return Kernel(name, "filter.cu", T=c_type(x.dtype), **macros), _shared(x.dtype, grid, channels, tiles)


def _transform(device, x, grid):
    X = device.rfft(x.astype(compute_dtype(x.dtype), copy=False), grid[1], axis=2)
    return device.fft(X, grid[0], axis=1)


def _back(device, X, like, grid):
    h, w = like.shape[1:3]
    y = device.irfft(device.ifft(X, grid[0], axis=1), grid[1], axis=2)
    return y[:, :h, :w].astype(like.dtype)
