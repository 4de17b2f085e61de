"""Long convolution on the CPU: directly for short filters."""

from typing import NamedTuple

import numpy

from mixers.cpu.aligned import ALIGNMENT, contiguous, empty, first_aligned, flat
from mixers.cpu.aligned import zeros as zero_array
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, mul_add, store, store_first, tile, zeros

# neighbouring tokens (or taps) whose sums stay in registers, and tokens of a chunk
_TOKENS = 8
_CHUNK = 512

# partial gradients of the filter for each vector of channels, at most
_PARTS = 8


class Taps(NamedTuple):
    """The taps that meet tokens: shifts first .. first + count - 1, in the rows `used` of h."""

    first: int
    count: int
    used: slice


def _taps(x, h, causal):
    reach = min(len(h) if causal else len(h) // 2 + 1, x.shape[1])
    first = 0 if causal else 1 - reach
    start = 0 if causal else len(h) // 2 + first
    return Taps(first, reach - first, slice(start, start + reach - first))


def long_conv1d_forward(x, h, D=None, causal=True, save=True):
    """y[n] = sum_j h[j] x[n - j] + D x[n]."""
    if x.size == 0:
        return empty(x.shape, x.dtype), (None,)
    return _direct(x, h, D, _taps(x, h, causal), False), (None,)


def long_conv1d_backward(dout, saved):
    """dx is the convolution backwards in time; dD is the gradient of the tap without a shift."""
    x, h, D = saved.x, saved.h, saved.D
    dh = zero_array(h.shape, h.dtype)
    if x.size == 0:
        return empty(x.shape, x.dtype), dh, None if D is None else zero_array(D.shape, D.dtype)
    taps = _taps(x, h, saved.causal)
    dx = _direct(dout, h, D, taps, True)
    used = _direct_filter_gradient(x, dout, taps)
    dh[taps.used] = used
    return dx, dh, None if D is None else used[-taps.first].copy()


def _direct(x, h, D, taps, backwards):
    b, l, c = x.shape
    y = empty(x.shape, x.dtype)
    blocks, chunks = -(-c // lanes(x)), -(-l // _CHUNK)
    skip = zero_array(c, x.dtype) if D is None else contiguous(D)
    arrays = flat(x), flat(h[taps.used]), skip, y.reshape(-1)
    work = 2 * x.size * taps.count / lanes(x)
    run(_convolve, b * chunks * blocks, *arrays, (l, c), taps[:2], D is not None, backwards, work=work)
    return y


def _direct_filter_gradient(x, dout, taps):
    b, l, c = x.shape
    blocks, units = -(-c // lanes(x)), b * -(-l // _CHUNK)
    parts = min(units, _PARTS)
    partial = empty((parts, taps.count, c), x.dtype)
    work = 2 * x.size * taps.count / lanes(x)
    arrays = flat(x), flat(dout), partial.reshape(-1)
    run(_filter_gradients, blocks * parts, *arrays, (l, c), taps[:2], units, parts, work=work)
    return sum_rows(partial.reshape(parts, -1)).reshape(taps.count, c)


@helper
def _window(x, start, length, step, valid, first, count, work, at):
    """Copy the vectors of tokens first .. first + count - 1 side by side, zeros outside the sequence."""
    for i in range(count):
        inside = 0 <= first + i < length
        value = load_first(x, start + (first + i) * step, valid) if inside else zeros(x)
        store(work, at + i * lanes(x), value)


@kernel
def _convolve(x, h, skip, y, shape, taps, skips, backwards, counter):
    """A chunk of tokens of one vector of channels per task; backwards in time it is the adjoint."""
    length, c = shape
    first, count = taps
    width = lanes(x)
    blocks, chunks = -(-c // width), -(-length // _CHUNK)
    rows = min(length, _CHUNK)
    work = numpy.empty((rows + 2 * count + 2 * _TOKENS) * width + ALIGNMENT, x.dtype)
    weights = first_aligned(work)
    tokens = weights + count * width
    for task in tasks(counter):
        channel = task % blocks * width
        begin = task // blocks % chunks * _CHUNK
        end = min(begin + _CHUNK, length)
        valid = min(width, c - channel)
        start, step = task // blocks // chunks * length * c + channel, c
        if backwards:
            start, step = start + (length - 1) * c, -c
        _window(h, channel, count, c, valid, 0, count, work, weights)
        # the token that the last tap brings to the first place comes first
        oldest = begin - (first + count - 1)
        _window(x, start, length, step, valid, oldest, end - begin + count + _TOKENS, work, tokens)
        for n in range(begin, end, _TOKENS):
            total = tile(x, 8)
            for i in range(8):
                total[i] = zeros(x)
            for j in range(max(first, n - length + 1), min(first + count, n + _TOKENS)):
                weight = load(work, weights + (j - first) * width)
                for i in range(8):
                    value = load(work, tokens + (n - j - oldest + i) * width)
                    total[i] = mul_add(value, weight, total[i])
            for i in range(8):
                if n + i < end:
                    value = total[i]
                    if skips:
                        token = load(work, tokens + (n + i - oldest) * width)
                        value = mul_add(token, load_first(skip, channel, valid), value)
                    store_first(y, start + (n + i) * step, value, valid)


@kernel
def _filter_gradients(x, dy, partial, shape, taps, units, parts, counter):
    """partial[j] = sum of dy[n] x[n - j] over some chunks of tokens, of one vector of channels per task."""
    length, c = shape
    first, count = taps
    width = lanes(x)
    blocks, chunks = -(-c // width), -(-length // _CHUNK)
    rows = min(length, _CHUNK)
    work = numpy.empty((2 * rows + 2 * count + 3 * _TOKENS) * width + ALIGNMENT, x.dtype)
    sums = first_aligned(work)
    cotangents = sums + (count + _TOKENS) * width
    tokens = cotangents + rows * width
    for task in tasks(counter):
        channel, part = task % blocks * width, task // blocks
        valid = min(width, c - channel)
        for j in range(count + _TOKENS):
            store(work, sums + j * width, zeros(x))
        for unit in range(part * units // parts, (part + 1) * units // parts):
            begin = unit % chunks * _CHUNK
            end = min(begin + _CHUNK, length)
            start = unit // chunks * length * c + channel
            _window(dy, start, length, c, valid, begin, end - begin, work, cotangents)
            oldest = begin - (first + count - 1) - _TOKENS
            _window(x, start, length, c, valid, oldest, end - begin + count + _TOKENS, work, tokens)
            for j in range(0, count, _TOKENS):
                total = tile(x, 8)
                for i in range(8):
                    total[i] = load(work, sums + (j + i) * width)
                # tokens n whose partner n - first - j - i lies inside for some i
                last = length + first + j + _TOKENS - 1
                for n in range(max(begin, first + j), min(end, last)):
                    cotangent = load(work, cotangents + (n - begin) * width)
                    for i in range(8):
                        value = load(work, tokens + (n - first - j - i - oldest) * width)
                        total[i] = mul_add(value, cotangent, total[i])
                for i in range(8):
                    store(work, sums + (j + i) * width, total[i])
        for j in range(count):
            store_first(partial, (part * count + j) * c + channel, load(work, sums + j * width), valid)
