"""Average pooling on the CPU: channels in the lanes, one sweep along the columns per block of channels.

Forward and backward are one operator with weights: y = after * S(before * x) (- x), where S is the box sum and the
weights are ones on one side and reciprocal counts on the other. Counts of an image are products of those of
its axes, so a weight is a number per row and one per column. A sequence is an image of one row.
"""

import functools

import numpy

from mixers.cpu import aligned
from mixers.cpu.runner import get_num_threads, helper, kernel, run, tasks
from mixers.cpu.simd import REGISTERS, lanes, load, mul_add, scalar, store, tile, zeros
from mixers.cpu.tails import get, put

# values of x that a task reads, at least about, and tasks per thread: neighbouring tasks read some rows twice
_TASK, _TASKS = 65536, 8

# whether the registers hold the sums of four rows
_FOUR = REGISTERS >= 32

# columns whose sums are in registers together
_TILE = 4


def avg_pool_forward(x, size=3, minus_identity=False, save=True):
    """y = S(x) / n (- x)."""
    return _pool(x, size, minus_identity, divide_first=False), ()


def avg_pool_backward(dout, saved):
    """dx = S(dy / n) (- dy)."""
    return (_pool(dout, saved.size, saved.minus_identity, divide_first=True),)


def _pool(x, size, minus, divide_first):
    y = aligned.empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    b, h, w, c = x.shape if x.ndim == 4 else (x.shape[0], 1, *x.shape[1:])
    ones, reciprocals = _weights((h, w), size, x.dtype)
    before, after = (reciprocals, ones) if divide_first else (ones, reciprocals)
    # no sum is divided among tasks, so their size is free; rows that are swept together stay together
    values = max(_TASK, x.size // (_TASKS * get_num_threads()))
    rows = 4 * -(-h // (4 * -(-h * w * c // values)))
    columns = -(-w // -(-w * c // values))
    count = b * -(-h // rows) * -(-w // columns)
    args = (aligned.contiguous(x), y, (h, w, c), (rows, columns), *before, *after, minus)
    if size == 3:
        run(_pool_three, count, *args, work=2 * x.size)
    else:
        run(_pool_any, count, *args, size // 2, work=min(size, h + w) * x.size)
    return y


@functools.lru_cache(maxsize=64)
def _weights(grid, size, dtype):
    """Along each axis, ones and 1 / (number of positions inside the window)."""
    ones, reciprocals = [], []
    for n in grid:
        i = numpy.arange(n)
        counts = numpy.minimum(i + size // 2, n - 1) - numpy.maximum(i - size // 2, 0) + 1
        ones.append(numpy.ones(n, dtype))
        reciprocals.append((1.0 / counts).astype(dtype))
    return ones, reciprocals


@helper
def _place(task, shape, block):
    """Image, first row and first column of a task."""
    down, across = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    image, rest = task // (down * across), task % (down * across)
    return image, rest // across * block[0], rest % across * block[1]


@helper
def _column(x, offset, step, near, weights, weight, count):
    """Two rows of one column: the values, and their weighted sums with the rows above and below.

    `near` tells whether there is a row above, a second row and one below it.
    """
    above, second, below = near
    value = get(x, offset, count)
    total = value * weights[1]
    if above:
        total = mul_add(get(x, offset - step, count), weights[0], total)
    next_value, next_total = zeros(x), zeros(x)
    if second:
        next_value = get(x, offset + step, count)
        next_total = mul_add(next_value, weights[2], value * weights[1])
        total = mul_add(next_value, weights[2], total)
        if below:
            next_total = mul_add(get(x, offset + 2 * step, count), weights[3], next_total)
    return value, next_value, total * weight, next_total * weight


@helper
def _sweep(x, y, base, columns, w, step, near, weights, scales, before_column, after_column, minus, count):
    """Walk along two rows with the sums of three columns in registers."""
    left, right = columns
    c = step // w
    sum_0, next_sum_0 = zeros(x), zeros(x)
    if left > 0:
        _, _, sum_0, next_sum_0 = _column(
            x, base + (left - 1) * c, step, near, weights, before_column[left - 1], count
        )
    value, next_value, sum_1, next_sum_1 = _column(
        x, base + left * c, step, near, weights, before_column[left], count
    )
    for j in range(left, right):
        value_2, next_value_2, sum_2, next_sum_2 = zeros(x), zeros(x), zeros(x), zeros(x)
        if j + 1 < w:
            value_2, next_value_2, sum_2, next_sum_2 = _column(
                x, base + (j + 1) * c, step, near, weights, before_column[j + 1], count
            )
        total = (sum_0 + sum_1 + sum_2) * (scales[0] * after_column[j])
        next_total = (next_sum_0 + next_sum_1 + next_sum_2) * (scales[1] * after_column[j])
        if minus:
            total, next_total = total - value, next_total - next_value
        put(y, base + j * c, total, count)
        if near[1]:
            put(y, base + j * c + step, next_total, count)
        sum_0, sum_1, next_sum_0, next_sum_1 = sum_1, sum_2, next_sum_1, next_sum_2
        value, next_value = value_2, next_value_2


@helper
def _column_of_four(x, offset, step, near, weights, weight):
    """Four rows of one column, as :func:`_column`; `near` tells whether there is a row above and one below."""
    v0, v1 = load(x, offset), load(x, offset + step)
    v2, v3 = load(x, offset + 2 * step), load(x, offset + 3 * step)
    p1, p2 = v1 * weights[2], v2 * weights[3]
    upper, lower = mul_add(v0, weights[1], p1), mul_add(v3, weights[4], p2)
    first, last = upper, lower
    if near[0]:
        first = mul_add(load(x, offset - step), weights[0], upper)
    if near[1]:
        last = mul_add(load(x, offset + 4 * step), weights[5], lower)
    return (v0, v1, v2, v3), (first * weight, (upper + p2) * weight, (p1 + lower) * weight, last * weight)


@helper
def _sweep_of_four(x, y, base, columns, w, step, near, weights, scales, before_column, after_column, minus):
    """As :func:`_sweep` along four rows and full vectors: fewer rows are read twice."""
    left, right = columns
    c, zero = step // w, zeros(x)
    a0, b0, c0, d0 = zero, zero, zero, zero
    if left > 0:
        place = base + (left - 1) * c
        _, (a0, b0, c0, d0) = _column_of_four(x, place, step, near, weights, scalar(before_column, left - 1))
    (v0, v1, v2, v3), (a1, b1, c1, d1) = _column_of_four(
        x, base + left * c, step, near, weights, scalar(before_column, left)
    )
    for j in range(left, right):
        u0, u1, u2, u3 = zero, zero, zero, zero
        a2, b2, c2, d2 = zero, zero, zero, zero
        if j + 1 < w:
            (u0, u1, u2, u3), (a2, b2, c2, d2) = _column_of_four(
                x, base + (j + 1) * c, step, near, weights, scalar(before_column, j + 1)
            )
        scale, place = scalar(after_column, j), base + j * c
        y0, y1 = (a0 + a1 + a2) * (scales[0] * scale), (b0 + b1 + b2) * (scales[1] * scale)
        y2, y3 = (c0 + c1 + c2) * (scales[2] * scale), (d0 + d1 + d2) * (scales[3] * scale)
        if minus:
            y0, y1, y2, y3 = y0 - v0, y1 - v1, y2 - v2, y3 - v3
        store(y, place, y0)
        store(y, place + step, y1)
        store(y, place + 2 * step, y2)
        store(y, place + 3 * step, y3)
        a0, b0, c0, d0 = a1, b1, c1, d1
        a1, b1, c1, d1 = a2, b2, c2, d2
        v0, v1, v2, v3 = u0, u1, u2, u3


@helper
def _four_rows(x, y, start, shape, i, columns, before, after, minus):
    """The rows i to i + 3, whose first values are from `start` on, in all full vectors of channels."""
    h, w, c = shape
    rows, near = before[0], (i > 0, i + 4 < h)
    outer = rows[max(0, i - 1)], rows[min(h - 1, i + 4)]
    weights = outer[0], rows[i], rows[i + 1], rows[i + 2], rows[i + 3], outer[1]
    scales = after[0][i], after[0][i + 1], after[0][i + 2], after[0][i + 3]
    for j in range(0, c - lanes(x) + 1, lanes(x)):
        _sweep_of_four(x, y, start + j, columns, w, w * c, near, weights, scales, before[1], after[1], minus)


@helper
def _two_rows(x, y, start, shape, i, first, columns, before, after, minus):
    """The rows i and, if there is one, i + 1, in the channels from `first` on."""
    h, w, c = shape
    rows, near = before[0], (i > 0, i + 1 < h, i + 2 < h)
    second, below = min(h - 1, i + 1), min(h - 1, i + 2)
    weights = rows[max(0, i - 1)], rows[i], rows[second], rows[below]
    scales = after[0][i], after[0][second]
    sizes, terms = (columns, w, w * c), (near, weights, scales, before[1], after[1], minus)
    for j in range(first, c, lanes(x)):
        # two calls, so that one is compiled for full vectors
        if c - j >= lanes(x):
            _sweep(x, y, start + j, *sizes, *terms, lanes(x))
        else:
            _sweep(x, y, start + j, *sizes, *terms, c - j)


@kernel
def _pool_three(x, y, shape, block, before_row, before_column, after_row, after_column, minus, counter):
    """Windows of 3: two or four rows at once, one block of channels after the other."""
    h, w, c = shape
    before, after = (before_row, before_column), (after_row, after_column)
    for task in tasks(counter):
        image, top, left = _place(task, shape, block)
        columns, bottom = (left, min(w, left + block[1])), min(h, top + block[0])
        for i in range(top, bottom, 4):
            first = 0
            if _FOUR and i + 4 <= bottom:
                _four_rows(x, y, (image * h + i) * w * c, shape, i, columns, before, after, minus)
                first = c // lanes(x) * lanes(x)
            for k in range(i, min(i + 4, bottom), 2):
                _two_rows(x, y, (image * h + k) * w * c, shape, k, first, columns, before, after, minus)


@helper
def _row(x, y, sums, base, i, columns, shape, reach, before, after, minus, count):
    """One row of windows: the sums over rows go to scratch, then they are summed along the columns."""
    left, right = columns
    h, w, c = shape
    across = min(reach, w - 1)
    first, last = max(0, left - across), min(w, right + across)
    above, below = max(0, i - reach), min(h, i + reach + 1)
    total = tile(x, _TILE)
    for j in range(first, last, _TILE):
        for t in range(_TILE):
            total[t] = zeros(x)
        for k in range(above, below):
            for t in range(_TILE):
                offset = base + (k * w + min(j + t, last - 1)) * c
                total[t] = mul_add(get(x, offset, count), before[0][k], total[t])
        for t in range(_TILE):
            column = min(j + t, last - 1)
            store(sums, (column - left + across) * lanes(x), total[t] * before[1][column])
    for j in range(left, right, _TILE):
        for t in range(_TILE):
            total[t] = zeros(x)
        for k in range(j - left, j - left + 2 * across + 1):
            for t in range(_TILE):
                total[t] = total[t] + load(sums, (k + t) * lanes(x))
        for t in range(_TILE):
            if j + t < right:
                value = total[t] * (after[0][i] * after[1][j + t])
                offset = base + (i * w + j + t) * c
                if minus:
                    value = value - get(x, offset, count)
                put(y, offset, value, count)


@kernel
def _pool_any(x, y, shape, block, before_row, before_column, after_row, after_column, minus, reach, counter):
    """Any window, one row after the other.

    The sums are not slid along (add the next, subtract the last): that would carry rounding, NaN and Inf on.
    """
    h, w, c = shape
    before, after = (before_row, before_column), (after_row, after_column)
    # the last tile may read beyond its windows
    sums = numpy.empty((min(w, block[1]) + 2 * min(reach, w - 1) + _TILE) * lanes(x), x.dtype)
    for task in tasks(counter):
        image, top, left = _place(task, shape, block)
        columns = (left, min(w, left + block[1]))
        # for the columns outside the grid
        sums[:] = 0
        for i in range(top, min(h, top + block[0])):
            for start in range(0, c, lanes(x)):
                base = image * h * w * c + start
                if c - start >= lanes(x):
                    _row(x, y, sums, base, i, columns, shape, reach, before, after, minus, lanes(x))
                else:
                    _row(x, y, sums, base, i, columns, shape, reach, before, after, minus, c - start)
