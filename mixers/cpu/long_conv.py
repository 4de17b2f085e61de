"""Long convolution on the CPU: directly for short filters, by Fourier transforms for long ones.

Transforms run with the channels in the lanes (see mixers.cpu.fft). Two batch items travel as the real and
the imaginary part of one sequence; the filter is real and the same for both, so its product keeps them apart.
The first pass reads x and the last one writes y; in between, one eighth after the other goes through all
further passes, the product with the filter and back, so that it stays in cache.
"""

import math
from typing import NamedTuple

import numpy

from mixers.cpu import fft
from mixers.cpu.aligned import ALIGNMENT, contiguous, empty, first_aligned, flat
from mixers.cpu.aligned import zeros as zero_array
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load, load_first, mul_add, store, store_first, tile, zeros
from mixers.cpu.tails import get, put

# average taps of a token up to which the direct form is faster; a single item fills half of a transform
_DIRECT_TAPS = 64
_DIRECT_TAPS_OF_ONE = 128

# neighbouring tokens (or taps) whose sums stay in registers, and tokens of a chunk
_TOKENS = 8
_CHUNK = 512

# partial gradients of the filter for each vector of channels, at most
_PARTS = 8

# bytes of the block of a transform that goes through all further passes at once
_BLOCK_BYTES = 1 << 18


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


def _is_short(taps, x):
    """Whether the direct form is faster: a token at distance t from the start meets only t + 1 past ones."""
    past, future = taps.first + taps.count, -taps.first
    average = taps.count - (past * past + future * future) / (2 * x.shape[1])
    return average <= (_DIRECT_TAPS if len(x) > 1 else _DIRECT_TAPS_OF_ONE)


def long_conv1d_forward(x, h, D=None, causal=True, save=True):
    """y[n] = sum_j h[j] x[n - j] + D x[n]."""
    if x.size == 0:
        return empty(x.shape, x.dtype), (None,)
    taps = _taps(x, h, causal)
    if _is_short(taps, x):
        return _direct(x, h, D, taps, False), (None,)
    return _by_spectrum(x, h, D, taps), (None,)


def long_conv1d_backward(dout, saved):
    """dx is the convolution backwards in time; dD is the gradient of the tap without a shift."""
    x, h, D = saved.x, saved.h, saved.D
    dh = zero_array(h.shape, h.dtype)
    if x.size == 0:
        return empty(x.shape, x.dtype), dh, None if D is None else zero_array(D.shape, D.dtype)
    taps = _taps(x, h, saved.causal)
    if _is_short(taps, x):
        dx = _direct(dout, h, D, taps, True)
        used = _direct_filter_gradient(x, dout, taps)
    else:
        dx, used = _gradients_by_spectrum(x, dout, h, D, taps)
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


def _plan(x, taps):
    """Length of the transforms, passes before the blocks that stay in cache, and the tables of all passes."""
    # what wraps around must not reach a token; the first pass has radix 8
    reach = max(taps.first + taps.count, 1 - taps.first)
    n = 8 * fft.good_length(-(-(x.shape[1] + reach - 1) // 8))
    passes = fft.plan(n, x.dtype)
    rest, levels = n // 8, 1
    while rest * 2 * lanes(x) * x.itemsize > _BLOCK_BYTES and levels < len(passes.radices):
        rest //= int(passes.radices[levels])
        levels += 1
    return n, levels, tuple(passes)


def _work(x, n):
    """Elementary operations of the transforms of x, for :func:`run`."""
    return 2 * n * x.shape[0] * x.shape[2] * math.log2(n) / lanes(x)


def _by_spectrum(x, h, D, taps):
    b, l, c = x.shape
    y = empty(x.shape, x.dtype)
    plan = _plan(x, taps)
    blocks = -(-c // lanes(x))
    parts = min(-(-b // 2), -(-_PARTS // blocks))
    skip = zero_array(c, x.dtype) if D is None else contiguous(D)
    args = flat(x), flat(h[taps.used]), skip, y.reshape(-1), (b, l, c), taps[:2], parts, *plan
    run(_convolve_pairs, blocks * parts, *args, work=_work(x, plan[0]))
    return y


def _gradients_by_spectrum(x, dout, h, D, taps):
    b, l, c = x.shape
    plan = _plan(x, taps)
    blocks = -(-c // lanes(x))
    parts = min(-(-b // 2), -(-_PARTS // blocks))
    dx, partial = empty(x.shape, x.dtype), empty((parts, taps.count, c), x.dtype)
    skip = zero_array(c, x.dtype) if D is None else contiguous(D)
    arrays = flat(x), flat(dout), flat(h[taps.used]), skip, dx.reshape(-1), partial.reshape(-1)
    run(_pull_pairs, blocks * parts, *arrays, (b, l, c), taps[:2], parts, *plan, work=2 * _work(x, plan[0]))
    return dx, sum_rows(partial.reshape(parts, -1)).reshape(taps.count, c)


@helper
def _window(x, start, length, step, valid, first, count, work, at):
    """Copy the vectors of tokens first .. first + count - 1 side by side, zeros outside the sequence."""
    for i in range(count):
        inside = 0 <= first + i < length
        value = get(x, start + (first + i) * step, valid) if inside else zeros(x)
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
                    put(y, start + (n + i) * step, value, valid)


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


@routine
def _enter(x, start, other, rows, step, offset, valid, Z, z, n, passes):
    """The first pass, out of two sequences of x, or of one if `other` is negative; zeros fill up n points.

    Row t becomes point t + offset, counted around the circle of n points.
    """
    width, part = 2 * lanes(Z), n // 8
    for j in range(part):
        t = tile(Z, 16)
        for k in range(8):
            row = j + k * part - offset
            if row >= n:
                row -= n
            real = imaginary = zeros(Z)
            if row < rows:
                real = get(x, start + row * step, valid)
                if other >= 0:
                    imaginary = get(x, other + row * step, valid)
            t[2 * k] = real
            t[2 * k + 1] = imaginary
        fft.butterfly_from(t, Z, z + j * width, part * width, passes[1], 14 * j, 8)


@routine
def _leave(Z, z, n, passes, y, start, other, rows, step, offset, valid, x, skip, channel):
    """The last inverse pass, into two sequences of y; with a channel >= 0 skip x is added."""
    width, part = 2 * lanes(Z), n // 8
    scale = Z.dtype.type(1.0 / n)
    weight = load_first(skip, max(channel, 0), valid)
    for j in range(part):
        t = tile(Z, 16)
        fft.butterfly_to(t, Z, z + j * width, part * width, passes[1], 14 * j, 8)
        for k in range(8):
            row = j + k * part - offset
            if row >= n:
                row -= n
            if row < rows:
                real, imaginary = scale * t[2 * k], scale * t[2 * k + 1]
                at, also = start + row * step, other + row * step
                if channel >= 0:
                    real = mul_add(weight, get(x, at, valid), real)
                put(y, at, real, valid)
                if other >= 0:
                    if channel >= 0:
                        imaginary = mul_add(weight, get(x, also, valid), imaginary)
                    put(y, also, imaginary, valid)


@routine
def _transform(Z, z, n, block, levels, passes):
    """All forward passes but the first."""
    part, point, last = n // 8, 2 * lanes(Z), len(passes[0])
    for at in range(0, n, part):
        fft.forward(Z, z + at * point, point, part, passes, 1, levels)
        for place in range(at, at + part, block):
            fft.forward(Z, z + place * point, point, block, passes, levels, last)


@routine
def _transform_back(Z, z, n, block, levels, passes):
    """All inverse passes but the last."""
    part, point, last = n // 8, 2 * lanes(Z), len(passes[0])
    for at in range(0, n, part):
        for place in range(at, at + part, block):
            fft.inverse(Z, z + place * point, point, block, passes, levels, last)
        fft.inverse(Z, z + at * point, point, part, passes, 1, levels)


@helper
def _block(n, levels, passes):
    """Points of a block that stays in cache."""
    for level in range(levels):
        n //= passes[0][level]
    return n


@kernel
def _convolve_pairs(x, h, skip, y, shape, taps, parts, n, levels, passes, counter):
    """One vector of channels of some pairs of batch items per task."""
    b, length, c = shape
    first, count = taps
    last, pairs, point = len(passes[0]), (b + 1) // 2, 2 * lanes(x)
    eighth, block = n // 8, _block(n, levels, passes)
    work = numpy.empty(2 * n * point + ALIGNMENT, x.dtype)
    spectrum = first_aligned(work)
    z = spectrum + n * point
    for task in tasks(counter):
        channel, part = task // parts * lanes(x), task % parts
        valid = min(lanes(x), c - channel)
        _enter(h, channel, -1, count, c, first, valid, work, spectrum, n, passes)
        _transform(work, spectrum, n, block, levels, passes)
        for pair in range(part * pairs // parts, (part + 1) * pairs // parts):
            start = 2 * pair * length * c + channel
            other = start + length * c if 2 * pair + 1 < b else -1
            _enter(x, start, other, length, c, 0, valid, work, z, n, passes)
            for at in range(0, n, eighth):
                fft.forward(work, z + at * point, point, eighth, passes, 1, levels)
                for i in range(at, at + eighth, block):
                    place = z + i * point
                    fft.forward(work, place, point, block, passes, levels, last)
                    _multiply(work, place, spectrum + i * point, block)
                    fft.inverse(work, place, point, block, passes, levels, last)
                fft.inverse(work, z + at * point, point, eighth, passes, 1, levels)
            _leave(work, z, n, passes, y, start, other, length, c, 0, valid, x, skip, channel)


@kernel
def _pull_pairs(x, dy, h, skip, dx, partial, shape, taps, parts, n, levels, passes, counter):
    """dx and a partial sum of dh, of one vector of channels of some pairs of batch items per task."""
    b, length, c = shape
    first, count = taps
    last, pairs, point = len(passes[0]), (b + 1) // 2, 2 * lanes(x)
    eighth, block = n // 8, _block(n, levels, passes)
    work = numpy.empty(4 * n * point + ALIGNMENT, x.dtype)
    spectrum = first_aligned(work)
    z, g, sums = spectrum + n * point, spectrum + 2 * n * point, spectrum + 3 * n * point
    for task in tasks(counter):
        channel, part = task // parts * lanes(x), task % parts
        valid = min(lanes(x), c - channel)
        _enter(h, channel, -1, count, c, first, valid, work, spectrum, n, passes)
        _transform(work, spectrum, n, block, levels, passes)
        for i in range(0, n * point, lanes(x)):
            store(work, sums + i, zeros(x))
        for pair in range(part * pairs // parts, (part + 1) * pairs // parts):
            start = 2 * pair * length * c + channel
            other = start + length * c if 2 * pair + 1 < b else -1
            _enter(x, start, other, length, c, 0, valid, work, z, n, passes)
            _enter(dy, start, other, length, c, 0, valid, work, g, n, passes)
            for at in range(0, n, eighth):
                fft.forward(work, z + at * point, point, eighth, passes, 1, levels)
                fft.forward(work, g + at * point, point, eighth, passes, 1, levels)
                for i in range(at, at + eighth, block):
                    shift = i * point
                    fft.forward(work, z + shift, point, block, passes, levels, last)
                    fft.forward(work, g + shift, point, block, passes, levels, last)
                    _multiply_gradients(work, z + shift, g + shift, sums + shift, spectrum + shift, block)
                    fft.inverse(work, g + shift, point, block, passes, levels, last)
                fft.inverse(work, g + at * point, point, eighth, passes, 1, levels)
            _leave(work, g, n, passes, dx, start, other, length, c, 0, valid, dy, skip, channel)
        _transform_back(work, sums, n, block, levels, passes)
        place = part * count * c + channel
        _leave(work, sums, n, passes, partial, place, -1, count, c, first, valid, x, skip, -1)


@helper
def _multiply(Z, z, h, points):
    """Z <- Z H, at the places z and h of an array."""
    width = lanes(Z)
    for i in range(0, 2 * points * width, 2 * width):
        a, b = load(Z, z + i), load(Z, z + i + width)
        c, d = load(Z, h + i), load(Z, h + i + width)
        store(Z, z + i, a * c - b * d)
        store(Z, z + i + width, mul_add(a, d, b * c))


@helper
def _multiply_gradients(Z, x, g, sums, h, points):
    """sums <- sums + G conj(X), then G <- G conj(H), at places of an array."""
    width = lanes(Z)
    for i in range(0, 2 * points * width, 2 * width):
        a, b = load(Z, x + i), load(Z, x + i + width)
        c, d = load(Z, g + i), load(Z, g + i + width)
        real, imaginary = load(Z, sums + i), load(Z, sums + i + width)
        store(Z, sums + i, mul_add(b, d, mul_add(a, c, real)))
        store(Z, sums + i + width, mul_add(-b, c, mul_add(a, d, imaginary)))
        a, b = load(Z, h + i), load(Z, h + i + width)
        store(Z, g + i, mul_add(b, d, a * c))
        store(Z, g + i + width, mul_add(-b, c, a * d))
