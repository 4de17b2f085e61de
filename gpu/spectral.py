"""Cosine transforms on the GPU: kernels with constant tables for short axes, cuBLAS and cuFFT beyond."""

import functools
import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of
from mixers.op import compute_dtype

# longest axis of which a thread holds a line in registers, and longest that is multiplied by a dense matrix
_REGISTERS = 64
_DENSE = 512

_THREADS = 256

# shared memory per block that lets two blocks share a multiprocessor of a recent GPU
_TWO_BLOCKS = 112 << 10


def dct_forward(x, axes=None, save=True):
    return _transform(x, axes, inverse=False), ()


def dct_backward(dout, saved):
    return (_transform(dout, saved.axes, inverse=True),)


def idct_forward(x, axes=None, save=True):
    return _transform(x, axes, inverse=True), ()


def idct_backward(dout, saved):
    return (_transform(dout, saved.axes, inverse=False),)


def _transform(x, axes, inverse):
    device = device_of(x)
    if x.size == 0:
        return device.empty(x.shape, x.dtype)
    axes = range(1, x.ndim - 1) if axes is None else sorted(axis % x.ndim for axis in axes)
    x = device.contiguous(x)
    if len(axes) == 2 and max(x.shape[1:3]) <= _REGISTERS:
        channels = _channels(device, *x.shape[1:3], x.dtype)
        if channels:
            return _images(device, x, channels, inverse)
    for axis in axes:
        # what comes before the axis counts as items, what follows as channels
        lines = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
        n = x.shape[axis]
        along = _lines if n <= _REGISTERS else _product if n <= _DENSE else _fast
        x = along(device, lines, inverse).reshape(x.shape)
    return x


def _lines(device, x, inverse):
    items, n, inner = x.shape
    y = device.empty(x.shape, x.dtype)
    tables = {"COLUMNS": _values(n, inverse), "INVERSE": int(inverse)}
    kernel = Kernel("transform_lines", "spectral.cu", T=c_type(x.dtype), W=n, **tables)
    sizes = numpy.int64(items * inner), numpy.int64(inner)
    device.launch(kernel, (-(-items * inner // _THREADS),), (_THREADS,), (x, y, *sizes))
    return y


def _channels(device, h, w, dtype):
    """Channels of an image that a block transforms: 32-byte accesses at least, or None if they do not fit."""
    least = 32 // dtype.itemsize
    fitting = [n for n in (32, 16, 8, 4) if n >= least and _shared(h, w, n, dtype) <= device.max_shared]
    spacious = [n for n in fitting if _shared(h, w, n, dtype) <= _TWO_BLOCKS]
    return max(spacious) if spacious else min(fitting, default=None)


def _pitch(w, channels, dtype):
    """Values from row to row of the tile: neighbouring rows fall on neighbouring banks."""
    banks = 128 // compute_dtype(dtype).itemsize
    return w * channels + (channels - w * channels) % banks


def _shared(h, w, channels, dtype):
    return h * _pitch(w, channels, dtype) * compute_dtype(dtype).itemsize


def _images(device, x, channels, inverse):
    b, h, w, c = x.shape
    y = device.empty(x.shape, x.dtype)
    blocks = -(-c // channels)
    macros = {
        "T": c_type(x.dtype),
        "H": h,
        "W": w,
        "CHANNELS": channels,
        "PITCH": _pitch(w, channels, x.dtype),
    }
    tables = {"ROWS": _values(h, inverse), "COLUMNS": _values(w, inverse), "INVERSE": int(inverse)}
    kernel = Kernel("transform_images", "spectral.cu", **macros, **tables)
    args = x, y, numpy.int32(blocks), numpy.int32(c)
    device.launch(kernel, (b * blocks,), (_THREADS,), args, shared=_shared(h, w, channels, x.dtype))
    return y


def _matrix(n):
    """D[k, m] = s_k sqrt(2 / n) cos(pi (2 m + 1) k / (2 n)); the integer is reduced by the period 4 n first."""
    k, m = numpy.arange(n)[:, None], numpy.arange(n)
    D = numpy.sqrt(2.0 / n) * numpy.cos(numpy.pi * ((2 * m + 1) * k % (4 * n)) / (2 * n))
    D[0] /= numpy.sqrt(2.0)
    return D


@functools.lru_cache(maxsize=64)
def _values(n, inverse):
    """The tables of the kernels as C literals: even rows of the left half of D, then odd ones."""
    D = _matrix(n)
    halves = D[0::2, : (n + 1) // 2], D[1::2, : n // 2]
    tables = [half.T if inverse else half for half in halves]
    return ", ".join(repr(float(value)) for table in tables for value in table.flat)


@functools.lru_cache(maxsize=16)
def _device_matrix(device, n, dtype):
    return device.to_device(_matrix(n).astype(dtype))


def _product(device, x, inverse):
    D = _device_matrix(device, x.shape[1], compute_dtype(x.dtype))
    return device.matmul(D.T if inverse else D, x).astype(x.dtype, copy=False)


@functools.lru_cache(maxsize=16)
def _device_phases(device, n, dtype):
    """sqrt(2 / n) exp(-i pi k / (2 n)) for k = 0 .. n / 2, the first times s_0: (n // 2 + 1, 1)."""
    k = numpy.arange(n // 2 + 1)[:, None]
    phases = numpy.sqrt(2.0 / n) * numpy.exp(-0.5j * numpy.pi * k / n)
    phases[0] /= numpy.sqrt(2.0)
    return device.to_device(phases.astype(numpy.result_type(dtype, numpy.complex64)))


def _fast(device, x, inverse):
    """By one real transform of the same length (Makhoul 1980): evens rising, then odds falling.

    With V its spectrum and z = phases V: F[k] = Re z[k], F[n - k] = -Im z[k]; backwards
    V = conj(phases) n / 2 (F[k] - i F[n - k]), F[n] = 0, with a factor 2 at k = 0 as s_0^2 = 1 / 2.
    """
    n, narrow, wide = x.shape[1], x.dtype, compute_dtype(x.dtype)
    rising, half = (n + 1) // 2, n // 2 + 1
    phases = _device_phases(device, n, wide)
    x, y = x.astype(wide, copy=False), device.empty(x.shape, wide)
    if inverse:
        mirrored = device.zeros((x.shape[0], half, x.shape[2]), wide)
        mirrored[:, 1:] = x[:, : n - half : -1]
        z = (x[:, :half] - 1j * mirrored) * (phases.conj() * (n / 2))
        z[:, 0] *= 2.0
        v = device.irfft(z, n, axis=1)
        y[:, 0::2], y[:, 1::2] = v[:, :rising], v[:, : rising - 1 : -1]
    else:
        v = device.empty(x.shape, wide)
        v[:, :rising], v[:, rising:] = x[:, 0::2], x[:, 1::2][:, ::-1]
        z = device.rfft(v, n, axis=1) * phases
        y[:, :half] = z.real
        y[:, half:] = -z.imag[:, n - half : 0 : -1]
    return y.astype(narrow, copy=False)
