"""Fourier transforms on the CPU, by scipy.fft."""

import numpy
import scipy.fft

from mixers.cpu.aligned import empty, zeros
from mixers.cpu.runner import get_num_threads


def fourier_real_forward(x, save=True):
    """Half of the channels are transformed; y[n, c - k] = y[l - n, k] are the others."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, ()
    half = x.shape[2] // 2 + 1
    X = scipy.fft.rfft(x, axis=2, workers=get_num_threads())
    X = scipy.fft.fft(X, axis=1, overwrite_x=True, workers=get_num_threads()).real
    y[..., :half] = X
    mirrored = X[..., (x.shape[2] - 1) // 2 : 0 : -1]
    y[:, :1, half:] = mirrored[:, :1]
    y[:, 1:, half:] = mirrored[:, :0:-1]
    return y, ()


def fourier_real_backward(dout, saved):
    return (fourier_real_forward(dout)[0],)


def rfft_forward(x, rows=None, columns=None, save=True):
    X = _transform(x, rows, columns)
    return (_copy(X.real), _copy(X.imag)), ()


def rfft_backward(dout, saved):
    """irfft(D / n)."""
    x, (dre, dim) = saved.x, dout
    given = dre if dim is None else dim
    D = zeros(given.shape, numpy.result_type(x, numpy.complex64))
    uses = _uses(x, given.shape[-2])
    if dre is not None:
        numpy.divide(dre, uses, out=D.real)
    if dim is not None:
        numpy.divide(dim, uses, out=D.imag)
    return (_back(D, x.shape[1:-1], saved.rows),)


def irfft_forward(re, im, grid, rows=None, save=True):
    X = empty(re.shape, numpy.result_type(re, numpy.complex64))
    X.real, X.imag = re, im
    return _back(X, grid, rows), ()


def irfft_backward(dout, saved):
    """n rfft(dx)."""
    columns = saved.re.shape[-2]
    D, uses = _transform(dout, saved.rows, columns), _uses(dout, columns)
    return D.real * uses, D.imag * uses


def _transform(x, rows, columns):
    """The frequencies asked for."""
    if x.size == 0:
        shape = [x.shape[-2] // 2 + 1 if columns is None else columns, x.shape[-1]]
        if x.ndim == 4:
            shape.insert(0, x.shape[1] if rows is None else rows[1] - rows[0])
        return zeros((x.shape[0], *shape), numpy.result_type(x, numpy.complex64))
    X = scipy.fft.rfft(x, axis=-2, norm="ortho", workers=get_num_threads())[..., :columns, :]
    if x.ndim == 3 or not X.size:
        return X if rows is None else X[:, slice(*rows)]
    X = scipy.fft.fft(X, axis=1, norm="ortho", workers=get_num_threads())
    return X if rows is None else X[:, slice(*rows)]


def _back(X, grid, rows):
    """The real signal of some frequencies, the others zero."""
    if X.size == 0:
        return zeros((X.shape[0], *grid, X.shape[-1]), X.real.dtype)
    if rows is not None:
        every = zeros((X.shape[0], grid[0], *X.shape[2:]), X.dtype)
        every[:, slice(*rows)] = X
        X = every
    if X.ndim == 4:
        X = scipy.fft.ifft(X, axis=1, norm="ortho", workers=get_num_threads())
    return scipy.fft.irfft(X, n=grid[-1], axis=-2, norm="ortho", workers=get_num_threads())


def _copy(part):
    copy = empty(part.shape, part.dtype)
    copy[...] = part
    return copy


def _uses(x, columns):
    """How many frequencies of the whole spectrum each of the first columns stands for."""
    k, w = numpy.arange(columns)[:, None], x.shape[-2]
    return numpy.where((k == 0) | (2 * k == w), 1, 2).astype(x.dtype)
