"""Spectral filters on the CPU: transforms with the channels in the lanes, or scipy.fft for awkward grids."""

import functools

import numpy
import scipy.fft

from mixers.cpu import fft, fft_filter
from mixers.cpu.aligned import empty, flat
from mixers.cpu.runner import get_num_threads, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, scalar, store, store_first, zeros

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
    if _in_scratch(x):
        H = _spectrum(x, w_re, w_im)
        dx, dH = fft_filter.filter_grid_sums(x, dout, H)
        return dx, *_weight_gradients(dH, H.shape, w_re)
    G = _transform(dout)
    dx = _inverse(_complex(w_re, w_im).conj() * G, x)
    dW = _uses(x.shape[2])[:, None] * (_transform(x).conj() * G).sum(axis=0)
    return dx, dW.real.astype(x.dtype), dW.imag.astype(x.dtype)


def _in_scratch(x):
    h, w = x.shape[1:3]
    return h * w <= _POINTS and max([1, *fft.factors(h), *fft.factors(w)]) <= fft.LARGEST_FACTOR


def _complex(re, im):
    S = numpy.empty(re.shape, numpy.result_type(re, numpy.complex64))
    S.real, S.imag = re, im
    return S


@functools.lru_cache(maxsize=64)
def _places(n):
    """The frequency at every place of a transform of length n, and the place of every frequency."""
    order = fft.storage_order(n)
    return order, numpy.argsort(order)


def _uses(w):
    """How many frequencies of the whole spectrum each one of the half spectrum stands for."""
    k = numpy.arange(w // 2 + 1)
    return numpy.where((k == 0) | (2 * k == w), 1, 2)


def _spectrum(x, w_re, w_im):
    """The weights of all frequencies, with the symmetry of a real filter, as fft_filter takes them."""
    _, h, w, c = x.shape
    blocks = -(-c // lanes(x))
    H = empty((blocks, h, w, 2 * lanes(x)), x.dtype)
    args = flat(w_re), flat(w_im), H.reshape(-1), (h, w, c), _places(h)[0], _places(w)[0]
    run(_complete, blocks * h, *args, work=4 * H.size)
    return H


@kernel
def _complete(w_re, w_im, H, shape, rows, columns, counter):
    """One row of the spectrum of one vector of channels per task."""
    h, w, c = shape
    n, half = lanes(H), w // 2 + 1
    for task in tasks(counter):
        block, row = task // h, rows[task % h]
        mirrored, channel = (h - row) % h, block * lanes(H)
        count = min(n, c - channel)
        for j in range(w):
            k, at = columns[j], (task * w + j) * 2 * n
            if k >= half:
                place = (mirrored * half + w - k) * c + channel
                store(H, at, load_first(w_re, place, count))
                store(H, at + n, -load_first(w_im, place, count))
                continue
            place = (row * half + k) * c + channel
            re, im = load_first(w_re, place, count), load_first(w_im, place, count)
            if k == 0 or 2 * k == w:
                # both this frequency and its conjugate are here: their mean counts
                place = (mirrored * half + k) * c + channel
                re = (re + load_first(w_re, place, count)) * 0.5
                im = (im - load_first(w_im, place, count)) * 0.5
            store(H, at, re)
            store(H, at + n, im)


def _weight_gradients(dH, shape, like):
    """Of the half spectrum, from the sums over slices of the batch."""
    blocks, h, w, _ = shape
    c = like.shape[2]
    dw_re, dw_im = empty(like.shape, like.dtype), empty(like.shape, like.dtype)
    factors = (_uses(w) / (h * w)).astype(like.dtype)
    arrays = dH.reshape(-1), dw_re.reshape(-1), dw_im.reshape(-1), factors
    run(_halve, blocks * h, *arrays, len(dH), (h, w, c), _places(h)[1], _places(w)[1], work=4 * dH.size)
    return dw_re, dw_im


@kernel
def _halve(dH, dw_re, dw_im, factors, slices, shape, rows, columns, counter):
    """One row of the half spectrum of one vector of channels per task; the symmetric part of the sums."""
    h, w, c = shape
    n, half, size = lanes(dH), w // 2 + 1, len(dH) // slices
    for task in tasks(counter):
        block, row = task // h, task % h
        channel = block * lanes(dH)
        count = min(n, c - channel)
        here, there = (block * h + rows[row]) * w, (block * h + rows[(h - row) % h]) * w
        for k in range(half):
            at, other = (here + columns[k]) * 2 * n, (there + columns[(w - k) % w]) * 2 * n
            re, im = zeros(dH), zeros(dH)
            for start in range(0, slices * size, size):
                re = re + (load(dH, start + at) + load(dH, start + other))
                im = im + (load(dH, start + at + n) - load(dH, start + other + n))
            place, factor = (row * half + k) * c + channel, scalar(factors, k) * 0.5
            store_first(dw_re, place, re * factor, count)
            store_first(dw_im, place, im * factor, count)


def _transform(x):
    return scipy.fft.rfft2(x, workers=get_num_threads(), **_ORTHO)


def _inverse(X, like):
    return scipy.fft.irfft2(X, s=like.shape[1:3], workers=get_num_threads(), **_ORTHO)
