"""Spectral filters on the CPU: transforms with the channels in the lanes, or scipy.fft for awkward grids."""

import numpy
import scipy.fft

from mixers.cpu import fft, fft_filter
from mixers.cpu.aligned import empty
from mixers.cpu.runner import get_num_threads

# points of the largest grid that a task transforms in its scratch
_POINTS = 256 * 256

_ORTHO = {"axes": (1, 2), "norm": "ortho"}


def spectral_filter_forward(x, w_re, w_im, save=True):
    if x.size == 0:
        return empty(x.shape, x.dtype), ()
    if _in_scratch(x):
        return fft_filter.filter_grid(x, _spectrum(x, w_re, w_im)), ()
    return _inverse(_transform(x) * _complex(w_re, w_im), x), ()


def spectral_filter_backward(dout, saved):
    x, w_re, w_im = saved.x, saved.w_re, saved.w_im
    if x.size == 0:
        return empty(x.shape, x.dtype), numpy.zeros_like(w_re), numpy.zeros_like(w_im)
    half = w_re.shape[1]
    if _in_scratch(x):
        dx, dS = fft_filter.filter_grid_backward(x, dout, _spectrum(x, w_re, w_im))
        dS = dS[:, :half]
    else:
        G = _transform(dout)
        dx = _inverse(_complex(w_re, w_im).conj() * G, x)
        dS = (_transform(x).conj() * G).sum(axis=0)
    uses = numpy.full((half, 1), 2, x.dtype)
    uses[0] = 1
    if x.shape[2] % 2 == 0:
        uses[-1] = 1
    return dx, uses * dS.real, uses * dS.imag


def _in_scratch(x):
    h, w = x.shape[1:3]
    return h * w <= _POINTS and max([1, *fft.factors(h), *fft.factors(w)]) <= fft.LARGEST_FACTOR


def _complex(re, im):
    S = numpy.empty(re.shape, numpy.result_type(re, numpy.complex64))
    S.real, S.imag = re, im
    return S


def _spectrum(x, w_re, w_im):
    """The weights of all frequencies, with the symmetry of a real filter."""
    h, w = x.shape[1:3]
    half = w // 2 + 1
    S = numpy.empty((h, w, w_re.shape[2]), numpy.result_type(w_re, numpy.complex64))
    S[:, :half] = _complex(w_re, w_im)
    mirrored = -numpy.arange(h)
    for k in {0, half - 1} if w % 2 == 0 else {0}:
        S[:, k] = (S[:, k] + S[mirrored, k].conj()) / 2
    S[:, half:] = S[mirrored][:, (w - 1) // 2 : 0 : -1].conj()
    return fft_filter.grid_spectrum(S, x.dtype)


def _transform(x):
    return scipy.fft.rfft2(x, workers=get_num_threads(), **_ORTHO)


def _inverse(X, like):
    return scipy.fft.irfft2(X, s=like.shape[1:3], workers=get_num_threads(), **_ORTHO)
