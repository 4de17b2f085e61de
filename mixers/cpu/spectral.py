"""Cosine transforms on the CPU: dense products of half the size, both axes while an image is in cache.

The cosines are symmetric about the middle of the line, alternately even and odd, so an axis of n values
takes two products with tables of about n / 2 rows: one with the sums of mirrored values, one with the
differences. A task holds two vectors of channels of one image. Long axes go to scipy.fft.
"""

import functools
import math

import numpy
import scipy.fft

from mixers.cpu.aligned import ALIGNMENT, empty, first_aligned, flat
from mixers.cpu.runner import get_num_threads, helper, kernel, run, tasks
from mixers.cpu.simd import (
    REGISTERS,
    lanes,
    load,
    load_first,
    mul_add,
    scalar,
    store,
    store_first,
    tile,
    zeros,
)

# longest axis on which the dense products beat a fast transform, and tokens of the largest image that is
# transformed in scratch (2 MB)
_DENSE = 192
_IMAGE = 128 * 128

# rows of a table that are stored side by side, and whether twice as many outputs fit the registers
_ROWS = 4
_TWICE = REGISTERS >= 32

# values that a task reads, at least
_TASK = 16384


def dct_forward(x, axes=None, save=True):
    """F = D x along every axis."""
    return _transform(x, axes, inverse=False), ()


def dct_backward(dout, saved):
    """dx = D^T dF."""
    return (_transform(dout, saved.axes, inverse=True),)


def idct_forward(x, axes=None, save=True):
    """y = D^T x along every axis."""
    return _transform(x, axes, inverse=True), ()


def idct_backward(dout, saved):
    """dx = D dy."""
    return (_transform(dout, saved.axes, inverse=False),)


def _transform(x, axes, inverse):
    axes = range(1, x.ndim - 1) if axes is None else sorted(axis % x.ndim for axis in axes)
    if x.size == 0:
        return empty(x.shape, x.dtype)
    h, w = x.shape[1:3]
    if len(axes) == 2 and max(h, w) <= _DENSE and h * w <= _IMAGE:
        return _dense(x, x.shape, inverse)
    for axis in axes:
        n = x.shape[axis]
        if n <= _DENSE:
            # what comes before the axis counts as items, what follows as channels
            x = _dense(x, (math.prod(x.shape[:axis]), 1, n, math.prod(x.shape[axis + 1 :])), inverse)
        else:
            function = scipy.fft.idct if inverse else scipy.fft.dct
            x = function(x, type=2, norm="ortho", axis=axis, workers=get_num_threads())
    return x


def _dense(x, shape, inverse):
    """Transform axes 1 and 2 of x, seen as an array of the given shape (b, h, w, c)."""
    b, h, w, c = shape
    y = empty(x.shape, x.dtype)
    blocks = -(-c // (2 * lanes(x)))
    units = -(-_TASK // (h * w * 2 * lanes(x)))
    run(
        _transform_images,
        -(-b * blocks // units),
        flat(x),
        y.reshape(-1),
        b * blocks,
        units,
        h,
        w,
        c,
        _tables(h, inverse, x.dtype),
        _tables(w, inverse, x.dtype),
        inverse,
        work=x.size * (2 + (h + w) // 16),
    )
    return y


@functools.lru_cache(maxsize=64)
def _tables(n, inverse, dtype):
    """Tables of the sums and of the differences, packed for :func:`_product`, one after the other."""
    k, m = numpy.arange(n)[:, None], numpy.arange(n)
    # the cosine has period 4 n; reducing the integer first keeps the argument exact
    D = numpy.sqrt(2.0 / n) * numpy.cos(numpy.pi * ((2 * m + 1) * k % (4 * n)) / (2 * n))
    D[0] /= numpy.sqrt(2.0)
    halves = D[0::2, : (n + 1) // 2], D[1::2, : n // 2]
    packed = [_pack(half.T if inverse else half) for half in halves]
    return numpy.concatenate(packed).astype(dtype)


def _pack(table):
    """(rows, depth) -> flat (rows / 4, depth, 4), padded with rows of zeros."""
    rows, depth = table.shape
    padded = numpy.zeros((-(-rows // _ROWS) * _ROWS, depth))
    padded[:rows] = table
    return padded.reshape(len(padded) // _ROWS, _ROWS, depth).transpose(0, 2, 1).reshape(-1)


@kernel
def _transform_images(x, y, count, units, h, w, c, rows_table, columns_table, inverse, counter):
    """Rows of an image into scratch, its columns in place, then out."""
    width = 2 * lanes(x)
    blocks = -(-c // width)
    # one cache line more than a row keeps columns from falling on the same lines
    pitch = w * width + lanes(x)
    work = numpy.empty(h * pitch + 2 * (max(h, w) + 2 * _ROWS) * width + ALIGNMENT, x.dtype)
    image = first_aligned(work)
    halves = image + h * pitch
    for task in tasks(counter):
        for unit in range(task * units, min(count, (task + 1) * units)):
            start = (unit // blocks) * h * w * c + unit % blocks * width
            valid = min(width, c - unit % blocks * width)
            for i in range(h + w if h > 1 else 1):
                if i < h:
                    n, table, to, step = w, columns_table, image + i * pitch, width
                    _part(x, start + i * w * c, c, valid, n, work, halves, inverse)
                else:
                    n, table, to, step = h, rows_table, image + (i - h) * width, pitch
                    _part(work, to, step, width, n, work, halves, inverse)
                _join(work, halves, to, step, n, table, inverse)
            for i in range(h):
                for j in range(w):
                    value, other = _load(work, image + i * pitch + j * width, width)
                    _store(y, start + (i * w + j) * c, value, other, valid)


@helper
def _part(x, at, step, valid, n, work, halves, inverse):
    """Put both halves of a line of n pairs of vectors, `step` apart in x, one after the other.

    Sums of mirrored values (with the middle one of an odd number), then differences; for the inverse the
    even coefficients, then the odd ones.
    """
    width, even, odd = 2 * lanes(x), (n + 1) // 2, n // 2
    second = halves + even * width
    for i in range(odd):
        a, a_2 = _load(x, at + (2 * i if inverse else i) * step, valid)
        b, b_2 = _load(x, at + (2 * i + 1 if inverse else n - 1 - i) * step, valid)
        if inverse:
            _store(work, halves + i * width, a, a_2, width)
            _store(work, second + i * width, b, b_2, width)
        else:
            _store(work, halves + i * width, a + b, a_2 + b_2, width)
            _store(work, second + i * width, a - b, a_2 - b_2, width)
    if even > odd:
        a, a_2 = _load(x, at + (n - 1 if inverse else odd) * step, valid)
        _store(work, halves + odd * width, a, a_2, width)


@helper
def _join(work, halves, to, step, n, table, inverse):
    """Multiply both halves by their tables and put the line together, its values `step` apart."""
    width, even, odd = 2 * lanes(work), (n + 1) // 2, n // 2
    products = halves + n * width
    for half in range(2):
        rows = odd if half else even
        first, source = half * -(-even // _ROWS) * _ROWS * even, halves + half * even * width
        out, out_step = to + half * step, 2 * step
        if inverse:
            out, out_step = products + half * even * width, width
        _product(table, first, rows, work, source, out, out_step)
    if inverse:
        for i in range(odd):
            a, a_2 = _load(work, products + i * width, width)
            b, b_2 = _load(work, products + (even + i) * width, width)
            _store(work, to + i * step, a + b, a_2 + b_2, width)
            _store(work, to + (n - 1 - i) * step, a - b, a_2 - b_2, width)
        if even > odd:
            a, a_2 = _load(work, products + odd * width, width)
            _store(work, to + odd * step, a, a_2, width)


@helper
def _product(table, at, rows, work, source, out, step):
    """Multiply a packed square table by as many pairs of vectors that lie side by side."""
    row = 0
    while _TWICE and row + _ROWS < rows:
        _eight_rows(table, at + row * rows, rows, work, source, out + row * step, step, rows - row)
        row += 2 * _ROWS
    while row < rows:
        _four_rows(table, at + row * rows, rows, work, source, out + row * step, step, rows - row)
        row += _ROWS


@helper
def _four_rows(table, at, depth, work, source, out, step, rows):
    sums = tile(work, 8)
    for i in range(8):
        sums[i] = zeros(work)
    for k in range(depth):
        a, a_2 = _load(work, source + 2 * k * lanes(work), 2 * lanes(work))
        for i in range(4):
            weight = scalar(table, at + 4 * k + i)
            sums[2 * i] = mul_add(a, weight, sums[2 * i])
            sums[2 * i + 1] = mul_add(a_2, weight, sums[2 * i + 1])
    for i in range(4):
        if i < rows:
            _store(work, out + i * step, sums[2 * i], sums[2 * i + 1], 2 * lanes(work))


@helper
def _eight_rows(table, at, depth, work, source, out, step, rows):
    sums = tile(work, 16)
    for i in range(16):
        sums[i] = zeros(work)
    for k in range(depth):
        a, a_2 = _load(work, source + 2 * k * lanes(work), 2 * lanes(work))
        for half in range(2):
            for i in range(4):
                weight = scalar(table, at + 4 * (half * depth + k) + i)
                sums[8 * half + 2 * i] = mul_add(a, weight, sums[8 * half + 2 * i])
                sums[8 * half + 2 * i + 1] = mul_add(a_2, weight, sums[8 * half + 2 * i + 1])
    for i in range(8):
        if i < rows:
            _store(work, out + i * step, sums[2 * i], sums[2 * i + 1], 2 * lanes(work))


@helper
def _load(x, offset, valid):
    """A pair of vectors, of which the first `valid` lanes lie in memory."""
    width = lanes(x)
    if valid == 2 * width:
        return load(x, offset), load(x, offset + width)
    return load_first(x, offset, min(valid, width)), load_first(x, offset + width, max(valid - width, 0))


@helper
def _store(y, offset, value, other, valid):
    width = lanes(y)
    if valid == 2 * width:
        store(y, offset, value)
        store(y, offset + width, other)
    else:
        store_first(y, offset, value, min(valid, width))
        store_first(y, offset + width, other, max(valid - width, 0))
