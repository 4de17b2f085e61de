"""Bands of frequencies on the CPU. A task of the sums holds one sum per band for some vectors of channels."""

import functools

import numpy

from mixers import orders
from mixers.cpu.aligned import empty, flat, scratch
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load, load_first, mul_add, store, store_first, zeros

# values that a task moves, and vectors of channels that one of the sums takes
_TASK_VALUES = 16384
_VECTORS = 4


def band_mean_forward(x, bands, save=True):
    b, c = x.shape[0], x.shape[-1]
    y = empty((b, c, bands), x.dtype)
    if y.size:
        table, sizes = _bands(x.shape[1:-1], bands)
        none = empty(0, x.dtype)
        args = flat(x), none, none, none, y.reshape(-1), table, sizes.astype(x.dtype), bands, c
        run(_sum_bands, b * _blocks(x), *args, False, work=x.size)
    return y, ()


def band_mean_backward(dout, saved):
    """dy / n, n the size of the band."""
    x = saved.x
    table, sizes = _bands(x.shape[1:-1], saved.bands)
    shares = (dout / sizes.astype(dout.dtype)).transpose(0, 2, 1)
    return (shares[:, table].reshape(x.shape),)


def band_scale_forward(x, gain, save=True):
    b, c, bands = gain.shape
    y = empty(x.shape, x.dtype)
    if x.size:
        table, _ = _bands(x.shape[1:-1], bands)
        size = max(1, _TASK_VALUES // c)
        args = flat(x), flat(gain.transpose(0, 2, 1)), y.reshape(-1), table, bands, c, size
        run(_scale_bands, b * -(-len(table) // size), *args, work=2 * x.size)
    return y, ()


def band_scale_backward(dout, saved):
    """dx = gain dy, and the sums of x dy, in one pass."""
    x, gain = saved.x, saved.gain
    b, c, bands = gain.shape
    dx, dgain = empty(x.shape, x.dtype), empty(gain.shape, gain.dtype)
    if x.size:
        table, _ = _bands(x.shape[1:-1], bands)
        factors = flat(gain.transpose(0, 2, 1))
        args = flat(x), flat(dout), factors, dx.reshape(-1), dgain.reshape(-1), table
        run(_sum_bands, b * _blocks(x), *args, numpy.ones(bands, x.dtype), bands, c, True, work=3 * x.size)
    return dx, dgain


@functools.lru_cache(maxsize=64)
def _bands(grid, count):
    """The band of every token in raster order, and the sizes of the bands."""
    n = int(numpy.prod(grid))
    order = numpy.arange(n) if len(grid) == 1 else orders.zigzag(*grid)
    edges = numpy.arange(count + 1) * n // count
    sizes = numpy.diff(edges)
    table = numpy.empty(n, numpy.int64)
    table[order] = numpy.repeat(numpy.arange(count), sizes)
    return table, sizes


def _blocks(x):
    return -(-x.shape[-1] // (_VECTORS * lanes(x)))


@helper
def _get(x, offset, count, whole):
    return load(x, offset) if whole else load_first(x, offset, count)


@helper
def _put(y, offset, value, count, whole):
    if whole:
        store(y, offset, value)
    else:
        store_first(y, offset, value, count)


@helper
def _scale_tokens(x, factors, y, table, first, last, item, bands, c, j, count, whole):
    n = len(table)
    for t in range(first, last):
        place = (item * n + t) * c + j
        value = _get(x, place, count, whole) * _get(factors, (item * bands + table[t]) * c + j, count, whole)
        _put(y, place, value, count, whole)


@kernel
def _scale_bands(x, factors, y, table, bands, c, size, counter):
    """y = x times the factor of its band, some tokens of an item per task; factors are (b, bands, c)."""
    n = len(table)
    parts = -(-n // size)
    whole = c // lanes(x) * lanes(x)
    for task in tasks(counter):
        item, first = task // parts, task % parts * size
        last = min(n, first + size)
        for t in range(first, last):
            place, factor = (item * n + t) * c, (item * bands + table[t]) * c
            for j in range(0, whole, lanes(x)):
                store(y, place + j, load(x, place + j) * load(factors, factor + j))
        if whole < c:
            _scale_tokens(x, factors, y, table, first, last, item, bands, c, whole, c - whole, False)


@helper
def _add_tokens(x, dy, factors, dx, table, first, last, place, factor, c, A, v, count, whole, products):
    """Add some tokens of one vector of channels to the sums; with products, times dy, and set dx."""
    for t in range(first, last):
        band, at = table[t], place + t * c
        value, sums = _get(x, at, count, whole), (band * _VECTORS + v) * lanes(x)
        if products:
            d = _get(dy, at, count, whole)
            _put(dx, at, d * _get(factors, factor + band * c, count, whole), count, whole)
            store(A, sums, mul_add(value, d, load(A, sums)))
        else:
            store(A, sums, load(A, sums) + value)


@routine
def _collect(A, T, values, clear):
    """T = A or T += A, then A = 0."""
    for i in range(0, values, lanes(A)):
        store(T, i, load(A, i) if clear else load(T, i) + load(A, i))
        store(A, i, zeros(A))


@kernel
def _sum_bands(x, dy, factors, dx, y, table, sizes, bands, c, products, counter):
    """The sums of x (times dy) over the bands, divided by sizes: y (b, c, bands).

    Sums over a few tokens first keep the rounding errors small.
    """
    width, n = _VECTORS * lanes(x), len(table)
    blocks, values = -(-c // width), bands * width
    A, T = scratch(values, x), scratch(values, x)
    for i in range(0, values, lanes(x)):
        store(A, i, zeros(A))
    for task in tasks(counter):
        item, start = task // blocks, task % blocks * width
        for first in range(0, n, 16 * bands):
            last = min(n, first + 16 * bands)
            for v in range(_VECTORS):
                j = start + v * lanes(x)
                place, factor, count = item * n * c + j, item * bands * c + j, min(lanes(x), c - j)
                sizes_ = place, factor, c, A, v
                if count == lanes(x) and products:
                    _add_tokens(x, dy, factors, dx, table, first, last, *sizes_, count, True, True)
                elif count == lanes(x):
                    _add_tokens(x, dy, factors, dx, table, first, last, *sizes_, count, True, False)
                elif count > 0:
                    _add_tokens(x, dy, factors, dx, table, first, last, *sizes_, count, False, products)
            _collect(A, T, values, first == 0)
        for channel in range(start, min(c, start + width)):
            for band in range(bands):
                y[(item * c + channel) * bands + band] = T[band * width + channel - start] / sizes[band]
