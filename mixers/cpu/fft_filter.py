"""Filters by Fourier transform: long convolutions along a sequence, and products in the spectrum of a grid.

A task takes two batch items and one vector of channels from the first load to the last store: transforms, the
product with the filter and the way back all happen in its scratch memory. Spectra are kept as arrays
(blocks of channels, positions in storage order, 2 lanes), see :mod:`mixers.cpu.fft`; their values and their
layout depend on this processor.
"""

import numpy

from mixers.cpu import aligned, fft
from mixers.cpu.aligned import scratch
from mixers.cpu.fft import butterfly_from, butterfly_to, forward, inverse
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import full, lanes, load, load_first, mul_add, store, store_first, tile, zeros

# points of a block of a long transform that stays in a processor's own cache through all its passes
_BLOCK = 4096

# tasks wanted at least; each keeps sums of its own
_TASKS = 32

# the first pass of a long transform reads the signals and the last inverse pass writes them
_RADIX = 8
_RADIX_VALUES = 16


def padded_length(length, taps, shift=0):
    """The length of transforms for :func:`convolve` of a sequence with so many taps."""
    needed = max(length + taps - 1 - shift, length + shift, taps)
    return _RADIX * fft.good_length(-(-needed // _RADIX))


@helper
def _pair(task, blocks, b, size, c, x):
    """Of the pair of batch items and the block of channels of a task.

    Returns the offsets of both items in x and the channels that they have there (0 of a missing item).
    """
    item, channel = 2 * (task // blocks), task % blocks * lanes(x)
    count = min(lanes(x), c - channel)
    first = item * size + channel
    return first, first + size, count, count if item + 1 < b else 0


@helper
def _get(x, offset, count, whole):
    return load(x, offset) if whole else load_first(x, offset, count)


@helper
def _enter_rows(x, pair, row, length, shift, Z, n, plan, whole, paired):
    first, second, count = pair[:3]
    part, step = n // _RADIX, 2 * lanes(Z)
    t = tile(Z, _RADIX_VALUES)
    for j in range(part):
        for k in range(_RADIX):
            at = j + k * part - shift
            t[2 * k] = zeros(Z)
            t[2 * k + 1] = zeros(Z)
            if 0 <= at < length:
                t[2 * k] = _get(x, first + at * row, count, whole)
                if paired:
                    t[2 * k + 1] = _get(x, second + at * row, count, whole)
        butterfly_from(t, Z, j * step, part * step, plan[1], 2 * (_RADIX - 1) * j, _RADIX)


@routine
def _enter(x, pair, row, length, shift, Z, n, plan):
    """The first pass over n points that hold the signals from point `shift` on, and zeros elsewhere."""
    # the same three times, for the compiler to specialise
    whole = pair[2] == lanes(x)
    if whole and pair[3]:
        _enter_rows(x, pair, row, length, shift, Z, n, plan, True, True)
    elif whole:
        _enter_rows(x, pair, row, length, shift, Z, n, plan, True, False)
    else:
        _enter_rows(x, pair, row, length, shift, Z, n, plan, False, pair[3] > 0)


@helper
def _put(y, offset, value, count, whole, add, factor, skips):
    if skips:
        value = mul_add(factor, _get(add, offset, count, whole), value)
    if whole:
        store(y, offset, value)
    else:
        store_first(y, offset, value, count)


@helper
def _leave_rows(Z, n, plan, y, pair, row, length, shift, add, factor, whole, skips):
    first, second, count, second_count = pair
    part, step, scale = n // _RADIX, 2 * lanes(Z), full(Z, 1 / n)
    t = tile(Z, _RADIX_VALUES)
    for j in range(part):
        butterfly_to(t, Z, j * step, part * step, plan[1], 2 * (_RADIX - 1) * j, _RADIX)
        for k in range(_RADIX):
            at = j + k * part - shift
            if 0 <= at < length:
                _put(y, first + at * row, t[2 * k] * scale, count, whole, add, factor, skips)
                if whole or second_count > 0:
                    _put(y, second + at * row, t[2 * k + 1] * scale, count, whole, add, factor, skips)


@routine
def _leave(Z, n, plan, y, pair, row, length, shift, add, skip, channel):
    """The last inverse pass, to the signals y; `add` times `skip` comes on top, unless skip is empty."""
    whole, skips = pair[2] == pair[3] == lanes(y), skip.size > 0
    factor = load_first(skip, channel, pair[2]) if skips else zeros(Z)
    if whole and not skips:
        _leave_rows(Z, n, plan, y, pair, row, length, shift, add, factor, True, False)
    elif whole:
        _leave_rows(Z, n, plan, y, pair, row, length, shift, add, factor, True, True)
    else:
        _leave_rows(Z, n, plan, y, pair, row, length, shift, add, factor, False, skips)


@helper
def _blocks(n, plan):
    """The level at which blocks of a long transform fit _BLOCK, and their size."""
    level, size = 1, n // _RADIX
    while size > _BLOCK and level < len(plan[0]):
        size //= plan[0][level]
        level += 1
    return level, size


@routine
def _multiply(Z, z, H, h, count, conjugate):
    """Multiply points by those of a spectrum or by their conjugates."""
    n, sign = lanes(Z), -1 if conjugate else 1
    for i in range(0, 2 * n * count, 2 * n):
        a, b = load(Z, z + i), load(Z, z + i + n)
        c, d = load(H, h + i), load(H, h + i + n) * sign
        store(Z, z + i, a * c - b * d)
        store(Z, z + i + n, a * d + b * c)


@routine
def _correlate(Z, G, z, A, at, count, add):
    """A = conj(Z) G, or A += that, for points from z on; those of A begin at `at`."""
    n = lanes(Z)
    for i in range(0, 2 * n * count, 2 * n):
        a, b = load(Z, z + i), load(Z, z + i + n)
        c, d = load(G, z + i), load(G, z + i + n)
        real, imaginary = a * c + b * d, a * d - b * c
        if add:
            real, imaginary = real + load(A, at + i), imaginary + load(A, at + i + n)
        store(A, at + i, real)
        store(A, at + i + n, imaginary)


@helper
def _upper_forward(Z, n, plan, level):
    step, part = 2 * lanes(Z), n // _RADIX
    for q in range(_RADIX):
        forward(Z, q * part * step, step, part, plan, 1, level)


@helper
def _upper_inverse(Z, n, plan, level):
    step, part = 2 * lanes(Z), n // _RADIX
    for q in range(_RADIX):
        inverse(Z, q * part * step, step, part, plan, 1, level)


@kernel
def _spectrum(h, H, taps, c, n, plan, counter):
    step = 2 * lanes(h)
    level, size = _blocks(n, plan)
    for task in tasks(counter):
        Z = H[task * n * step : (task + 1) * n * step]
        channel = task * lanes(h)
        _enter(h, (channel, channel, min(lanes(h), c - channel), 0), c, taps, 0, Z, n, plan)
        _upper_forward(Z, n, plan, level)
        for z in range(0, n * step, size * step):
            forward(Z, z, step, size, plan, level, len(plan[0]))


@kernel
def _convolve(x, H, y, skip, shift, b, length, c, n, plan, counter):
    step, blocks = 2 * lanes(x), -(-c // lanes(x))
    level, size = _blocks(n, plan)
    Z = scratch(n * step, x)
    for task in tasks(counter):
        block = task % blocks
        pair = _pair(task, blocks, b, length * c, c, x)
        _enter(x, pair, c, length, 0, Z, n, plan)
        _upper_forward(Z, n, plan, level)
        for z in range(0, n * step, size * step):
            forward(Z, z, step, size, plan, level, len(plan[0]))
            _multiply(Z, z, H, block * n * step + z, size, False)
            inverse(Z, z, step, size, plan, level, len(plan[0]))
        _upper_inverse(Z, n, plan, level)
        _leave(Z, n, plan, y, pair, c, length, shift, x, skip, block * lanes(x))


@kernel
def _convolve_backward(x, dy, H, dx, dh, skip, shift, b, length, c, taps, n, slices, plan, counter):
    step, blocks = 2 * lanes(x), -(-c // lanes(x))
    level, size = _blocks(n, plan)
    Z, G, A = scratch(n * step, x), scratch(n * step, x), scratch(n * step, x)
    share = -(-((b + 1) // 2) // slices)
    for task in tasks(counter):
        part, block = task // blocks, task % blocks
        begin, end = part * share, min((part + 1) * share, (b + 1) // 2)
        for item in range(begin, end):
            pair = _pair(item * blocks + block, blocks, b, length * c, c, x)
            _enter(x, pair, c, length, 0, Z, n, plan)
            _enter(dy, pair, c, length, shift, G, n, plan)
            _upper_forward(Z, n, plan, level)
            _upper_forward(G, n, plan, level)
            for z in range(0, n * step, size * step):
                forward(Z, z, step, size, plan, level, len(plan[0]))
                forward(G, z, step, size, plan, level, len(plan[0]))
                _correlate(Z, G, z, A, z, size, item > begin)
                _multiply(G, z, H, block * n * step + z, size, True)
                inverse(G, z, step, size, plan, level, len(plan[0]))
            _upper_inverse(G, n, plan, level)
            _leave(G, n, plan, dx, pair, c, length, 0, dy, skip, block * lanes(x))
        for z in range(0, n * step, size * step):
            inverse(A, z, step, size, plan, level, len(plan[0]))
        _upper_inverse(A, n, plan, level)
        channel = block * lanes(x)
        first = part * taps * c + channel
        pair = first, first, min(lanes(x), c - channel), 0
        _leave(A, n, plan, dh, pair, c, taps, 0, dh, skip[:0], 0)


def _channel_blocks(c, dtype):
    return -(-c // lanes(numpy.empty(0, dtype)))


def spectrum(h, n):
    """The spectrum of the taps h (k, c) for transforms of length n, from :func:`padded_length`."""
    k, c = h.shape
    blocks = _channel_blocks(c, h.dtype)
    H = aligned.empty((blocks, n, 2 * lanes(h)), h.dtype)
    work = 20 * H.size
    run(_spectrum, blocks, aligned.flat(h), H.reshape(-1), k, c, n, tuple(fft.plan(n, h.dtype)), work=work)
    return H


def convolve(x, H, skip=None, shift=0):
    """y[t] = sum over j of h[j] x[t + shift - j], plus skip x[t].

    Parameters
    ----------
    x : array (b, l, c)
    H : array
        ``spectrum(h, n)`` with n from ``padded_length(l, len(h), shift)``.
    skip : array (c,), optional
    shift : int
        0 for a causal filter, the place of the tap in the middle for one that is centred.

    Returns
    -------
    array (b, l, c)
    """
    (b, length, c), n = x.shape, H.shape[1]
    y = aligned.empty(x.shape, x.dtype)
    count = (b + 1) // 2 * len(H)
    skip = numpy.empty(0, x.dtype) if skip is None else aligned.flat(skip)
    args = aligned.flat(x), aligned.flat(H), y.reshape(-1), skip, shift, b, length, c, n
    run(_convolve, count, *args, tuple(fft.plan(n, x.dtype)), work=40 * count * H[0].size)
    return y


def convolve_backward(x, dy, H, taps, skip=None, shift=0):
    """The gradients (dx, dh) of :func:`convolve`; h has `taps` rows. The gradient of skip is sum dy x.

    dx[m] = sum over t of h[t + shift - m] dy[t] + skip dy[m];  dh[j] = sum over batch and t of
    dy[t] x[t + shift - j].
    """
    (b, length, c), n = x.shape, H.shape[1]
    dx = aligned.empty(x.shape, x.dtype)
    pairs = (b + 1) // 2
    slices = min(pairs, -(-_TASKS // len(H)))
    # no slice may be empty
    slices = -(-pairs // -(-pairs // slices))
    dh = aligned.empty((slices, taps * c), x.dtype)
    skip = numpy.empty(0, x.dtype) if skip is None else aligned.flat(skip)
    arrays = aligned.flat(x), aligned.flat(dy), aligned.flat(H), dx.reshape(-1), dh.reshape(-1), skip
    sizes = shift, b, length, c, taps, n, slices
    work = 80 * pairs * H.size
    run(_convolve_backward, slices * len(H), *arrays, *sizes, tuple(fft.plan(n, x.dtype)), work=work)
    return dx, sum_rows(dh).reshape(taps, c)


# Grids: a task's scratch holds rows of points with some space between rows, as columns at a power of two
# apart would compete for the same places in the cache.


@helper
def _row_step(w, x):
    return 2 * lanes(x) * w + lanes(x)


@helper
def _enter_lines(x, pair, c, image, shape, Z, plans, whole, paired):
    n, step, row_step = lanes(Z), 2 * lanes(Z), _row_step(shape[1], Z)
    first, second, count, second_count = pair
    for i in range(shape[0]):
        begin = 0
        if i < image[0]:
            begin = image[1]
            for j in range(image[1]):
                at, place = (i * image[1] + j) * c, i * row_step + j * step
                store(Z, place, _get(x, first + at, count, whole))
                store(Z, place + n, _get(x, second + at, second_count, whole) if paired else zeros(Z))
        for place in range(i * row_step + begin * step, i * row_step + shape[1] * step, n):
            store(Z, place, zeros(Z))
        if i < image[0]:
            forward(Z, i * row_step, step, shape[1], plans[1], 0, len(plans[1][0]))


@routine
def _enter_grid(x, pair, c, image, shape, Z, plans):
    """The spectrum of two images, zero-padded to a grid of the given shape, in storage order along both axes."""
    # the same twice, for the compiler to specialise
    if pair[2] == lanes(Z) and pair[3] == lanes(Z):
        _enter_lines(x, pair, c, image, shape, Z, plans, True, True)
    else:
        _enter_lines(x, pair, c, image, shape, Z, plans, False, pair[3] > 0)
    row_step = _row_step(shape[1], Z)
    for j in range(shape[1]):
        forward(Z, j * 2 * lanes(Z), row_step, shape[0], plans[0], 0, len(plans[0][0]))


@helper
def _leave_lines(Z, plans, y, pair, c, image, shape, whole):
    n, step, row_step = lanes(Z), 2 * lanes(Z), _row_step(shape[1], Z)
    first, second, count, second_count = pair
    scale = full(Z, 1 / (shape[0] * shape[1]))
    for i in range(image[0]):
        inverse(Z, i * row_step, step, shape[1], plans[1], 0, len(plans[1][0]))
        for j in range(image[1]):
            at, place = (i * image[1] + j) * c, i * row_step + j * step
            value, other = load(Z, place) * scale, load(Z, place + n) * scale
            if whole:
                store(y, first + at, value)
                store(y, second + at, other)
            else:
                store_first(y, first + at, value, count)
                store_first(y, second + at, other, second_count)


@routine
def _leave_grid(Z, plans, y, pair, c, image, shape):
    """The part of a grid that two images cover, from its spectrum."""
    row_step = _row_step(shape[1], Z)
    for j in range(shape[1]):
        inverse(Z, j * 2 * lanes(Z), row_step, shape[0], plans[0], 0, len(plans[0][0]))
    if pair[2] == lanes(Z) and pair[3] == lanes(Z):
        _leave_lines(Z, plans, y, pair, c, image, shape, True)
    else:
        _leave_lines(Z, plans, y, pair, c, image, shape, False)


@kernel
def _filter_grid(x, H, y, conjugate, b, image, shape, c, plans, counter):
    (h, w), step, blocks = shape, 2 * lanes(x), -(-c // lanes(x))
    Z = scratch(h * _row_step(w, x), x)
    for task in tasks(counter):
        pair, block = _pair(task, blocks, b, image[0] * image[1] * c, c, x), task % blocks
        _enter_grid(x, pair, c, image, shape, Z, plans)
        for i in range(h):
            _multiply(Z, i * _row_step(w, x), H, (block * h + i) * w * step, w, conjugate)
        _leave_grid(Z, plans, y, pair, c, image, shape)


@kernel
def _filter_grid_backward(x, dy, H, dx, dH, b, image, shape, c, slices, plans, counter):
    (h, w), step, blocks = shape, 2 * lanes(x), -(-c // lanes(x))
    row_step = _row_step(w, x)
    Z, G = scratch(h * row_step, x), scratch(h * row_step, x)
    share = -(-((b + 1) // 2) // slices)
    for task in tasks(counter):
        part, block = task // blocks, task % blocks
        begin, end = part * share, min((part + 1) * share, (b + 1) // 2)
        for item in range(begin, end):
            pair = _pair(item * blocks + block, blocks, b, image[0] * image[1] * c, c, x)
            _enter_grid(x, pair, c, image, shape, Z, plans)
            _enter_grid(dy, pair, c, image, shape, G, plans)
            for i in range(h):
                place = (block * h + i) * w * step
                at = part * blocks * h * w * step + place
                _correlate(Z, G, i * row_step, dH, at, w, item > begin)
                _multiply(G, i * row_step, H, place, w, True)
            _leave_grid(G, plans, dx, pair, c, image, shape)


@kernel
def _kernel_spectrum(kernel, H, shape, c, plans, counter):
    """One vector of channels per task."""
    (h, w), step = shape, 2 * lanes(kernel)
    Z = scratch(h * _row_step(w, kernel), kernel)
    for task in tasks(counter):
        channel = task * lanes(kernel)
        count = min(lanes(kernel), c - channel)
        _enter_grid(kernel, (channel, channel, count, 0), c, shape, shape, Z, plans)
        for i in range(h):
            for j in range(0, w * step, lanes(Z)):
                store(H, (task * h + i) * w * step + j, load(Z, i * _row_step(w, Z) + j))


@kernel
def _kernel_gradient(dH, dkernel, slices, shape, c, plans, counter):
    """The sums over slices of the batch and their way back, one vector of channels per task."""
    (h, w), step = shape, 2 * lanes(dH)
    size = len(dH) // slices
    Z = scratch(h * _row_step(w, dH), dH)
    for task in tasks(counter):
        channel = task * lanes(dH)
        count = min(lanes(dH), c - channel)
        for i in range(h):
            for j in range(0, w * step, lanes(Z)):
                total = zeros(dH)
                for start in range(0, slices * size, size):
                    total = total + load(dH, start + (task * h + i) * w * step + j)
                store(Z, i * _row_step(w, Z) + j, total)
        _leave_grid(Z, plans, dkernel, (channel, channel, count, 0), c, shape, shape)


def kernel_spectrum(kernel):
    """The spectrum of a real kernel (h, w, c) on a grid, for :func:`filter_grid`."""
    h, w, c = kernel.shape
    blocks = _channel_blocks(c, kernel.dtype)
    H = aligned.empty((blocks, h, w, 2 * lanes(kernel)), kernel.dtype)
    args = aligned.flat(kernel), H.reshape(-1), (h, w), c, _grid_plans((h, w), kernel.dtype)
    run(_kernel_spectrum, blocks, *args, work=20 * H.size)
    return H


def kernel_gradient(dH, shape):
    """The gradient of a kernel (h, w, c) from :func:`filter_grid_sums`."""
    h, w, c = shape
    dkernel = aligned.empty(shape, dH.dtype)
    args = dH.reshape(-1), dkernel.reshape(-1), len(dH), (h, w), c, _grid_plans((h, w), dH.dtype)
    run(_kernel_gradient, _channel_blocks(c, dH.dtype), *args, work=20 * dH.size)
    return dkernel


def _grid_plans(shape, dtype):
    return tuple(tuple(fft.plan(n, dtype)) for n in shape)


def filter_grid(x, H, conjugate=False):
    """The real part of the inverse transform of S times the transform of x.

    S must have the symmetry of a real filter: S[-k] = conj S[k].

    Parameters
    ----------
    x : array (b, h, w, c)
        Images as large as the grid of S, or smaller: they are padded with zeros.
    H : array
        As of :func:`kernel_spectrum`; no prime factor of the grid's sides above fft.LARGEST_FACTOR.
    conjugate : bool
        Multiply by conj S instead: the adjoint.

    Returns
    -------
    array (b, h, w, c)
    """
    b, *image, c = x.shape
    shape = H.shape[1:3]
    y = aligned.empty(x.shape, x.dtype)
    count = (b + 1) // 2 * len(H)
    args = aligned.flat(x), aligned.flat(H), y.reshape(-1), conjugate, b, tuple(image), shape, c
    run(_filter_grid, count, *args, _grid_plans(shape, x.dtype), work=40 * count * H[0].size)
    return y


def filter_grid_sums(x, dy, H):
    """The gradient dx of :func:`filter_grid`, and sums of conj X dY for slices of the batch, X and dY the transforms.

    The sums (slices, size of H) lack the symmetry of a real filter's spectrum: only that part of them counts.
    """
    b, *image, c = x.shape
    shape = H.shape[1:3]
    dx = aligned.empty(x.shape, x.dtype)
    pairs = (b + 1) // 2
    slices = min(pairs, -(-_TASKS // len(H)))
    slices = -(-pairs // -(-pairs // slices))
    dH = aligned.empty((slices, H.size), x.dtype)
    arrays = aligned.flat(x), aligned.flat(dy), aligned.flat(H), dx.reshape(-1), dH.reshape(-1)
    args = *arrays, b, tuple(image), shape, c, slices, _grid_plans(shape, x.dtype)
    run(_filter_grid_backward, slices * len(H), *args, work=80 * pairs * H.size)
    return dx, dH
