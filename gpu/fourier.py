"""Fourier transforms on the GPU: matrix products for short axes, cuFFT for long ones."""

import functools

import numpy

from mixers.gpu.device import device_of
from mixers.op import compute_dtype

# longest axes on which products of two matrices beat the passes of a transform
_DENSE = 256


def fourier_real_forward(x, save=True):
    device, wide = device_of(x), compute_dtype(x.dtype)
    if x.size == 0:
        return device.empty(x.shape, x.dtype), ()
    _, l, c = x.shape
    values = x.astype(wide, copy=False)
    if max(l, c) > _DENSE:
        y = _by_transforms(device, values)
    else:
        (cos_l, sin_l), (cos_c, sin_c) = _matrices(device, l, wide), _matrices(device, c, wide)
        y = device.matmul(cos_l, device.matmul(values, cos_c))
        y -= device.matmul(sin_l, device.matmul(values, sin_c))
    return y.astype(x.dtype, copy=False), ()


def fourier_real_backward(dout, saved):
    return (fourier_real_forward(dout)[0],)


def rfft_forward(x, rows=None, columns=None, save=True):
    X = _transform(x, rows, columns)
    return (X.real.copy(), X.imag.copy()), ()


def rfft_backward(dout, saved):
    """irfft(D / n)."""
    x = saved.x
    wide = compute_dtype(x.dtype)
    D = sum(factor * d.astype(wide, copy=False) for factor, d in zip((1, 1j), dout) if d is not None)
    return (_back(D / _uses(x, x.shape[-2], D.shape[-2]), x.shape[1:-1], saved.rows, x.dtype),)


def irfft_forward(re, im, grid, rows=None, save=True):
    wide = compute_dtype(re.dtype)
    return _back(re.astype(wide, copy=False) + 1j * im, grid, rows, re.dtype), ()


def irfft_backward(dout, saved):
    """n rfft(dx)."""
    columns = saved.re.shape[-2]
    D = _transform(dout, saved.rows, columns) * _uses(dout, dout.shape[-2], columns)
    return D.real.astype(saved.re.dtype), D.imag.copy()


@functools.lru_cache(maxsize=16)
def _matrices(device, n, dtype):
    """Cosines and sines of 2 pi j k / n; the product is reduced by the period first."""
    k = numpy.arange(n)
    angles = 2 * numpy.pi * (numpy.outer(k, k) % n) / n
    return tuple(device.to_device(f(angles).astype(dtype)) for f in (numpy.cos, numpy.sin))


def _by_transforms(device, x):
    """Half of the channels are transformed; y[n, c - k] = y[l - n, k] are the others."""
    y, c = device.empty(x.shape, x.dtype), x.shape[2]
    half = c // 2 + 1
    X = device.fft(device.rfft(x, c, axis=2), x.shape[1], axis=1).real
    y[..., :half] = X
    mirrored = X[..., (c - 1) // 2 : 0 : -1]
    y[:, :1, half:] = mirrored[:, :1]
    y[:, 1:, half:] = mirrored[:, :0:-1]
    return y


def _transform(x, rows, columns):
    """The frequencies asked for."""
    device, wide = device_of(x), compute_dtype(x.dtype)
    grid = x.shape[1:-1]
    columns = grid[-1] // 2 + 1 if columns is None else columns
    if x.size == 0 or columns == 0:
        first = () if len(grid) == 1 else (grid[0] if rows is None else rows[1] - rows[0],)
        return device.zeros(
            (x.shape[0], *first, columns, x.shape[-1]), numpy.result_type(wide, numpy.complex64)
        )
    X = device.rfft(x.astype(wide, copy=False), grid[-1], axis=-2, norm="ortho")[..., :columns, :]
    if len(grid) == 2:
        X = device.fft(X, grid[0], axis=1, norm="ortho")
    return X if rows is None else X[:, slice(*rows)]


def _back(X, grid, rows, dtype):
    """The real signal of some frequencies, the others zero."""
    device = device_of(X)
    if X.size == 0:
        return device.zeros((X.shape[0], *grid, X.shape[-1]), dtype)
    if rows is not None:
        every = device.zeros((X.shape[0], grid[0], *X.shape[2:]), X.dtype)
        every[:, slice(*rows)] = X
        X = every
    if X.ndim == 4:
        X = device.ifft(X, grid[0], axis=1, norm="ortho")
    return device.irfft(X, grid[-1], axis=-2, norm="ortho").astype(dtype, copy=False)


def _uses(like, w, columns):
    """How many frequencies of the whole spectrum each of the first columns stands for."""
    k = numpy.arange(columns)[:, None]
    uses = numpy.where((k == 0) | (2 * k == w), 1, 2)
    return device_of(like).to_device(uses.astype(compute_dtype(like.dtype)))
