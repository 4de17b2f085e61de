"""Average pooling on the CPU: channels in the lanes, one sweep along the columns per block of channels.

Forward and backward are one operator with weights: y = after * S(before * x) (- x), where S is the box sum and the
weights are ones on one side and reciprocal counts on the other. Counts of an image are products of those of
its axes, so a weight is a number per row and one per column. A sequence is an image of one row.
"""

import functools

import numpy

from mixers.cpu import aligned
from mixers.cpu.runner import get_num_threads, helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, mul_add, store, store_first, tile, zeros

# values of x that a task reads, at least about, and tasks per thread: neighbouring tasks read some rows twice
_TASK, _TASKS = 65536, 8

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
    # no sum is divided among tasks, so their size is free; pairs of rows stay together
    values = max(_TASK, x.size // (_TASKS * get_num_threads()))
    rows = 2 * -(-h // (2 * -(-h * w * c // values)))
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
def _load(x, offset, count):
    return load(x, offset) if count == lanes(x) else load_first(x, offset, count)


@helper
def _store(y, offset, value, count):
    if count == lanes(y):
        store(y, offset, value)
    else:
        store_first(y, offset, value, count)


@helper
def _column(x, offset, step, near, weights, weight, count):
    """Two rows of one column: the values, and their weighted sums with the rows above and below.

    `near` tells whether there is a row above, a second row and one below it.
    """
    above, second, below = near
    value = _load(x, offset, count)
    total = value * weights[1]
    if above:
        total = mul_add(_load(x, offset - step, count), weights[0], total)
    next_value, next_total = zeros(x), zeros(x)
    if second:
        next_value = _load(x, offset + step, count)
        next_total = mul_add(next_value, weights[2], value * weights[1])
        total = mul_add(next_value, weights[2], total)
        if below:
            next_total = mul_add(_load(x, offset + 2 * step, count), weights[3], next_total)
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
        _store(y, base + j * c, total, count)
        if near[1]:
            _store(y, base + j * c + step, next_total, count)
        sum_0, sum_1, next_sum_0, next_sum_1 = sum_1, sum_2, next_sum_1, next_sum_2
        value, next_value = value_2, next_value_2


@kernel
def _pool_three(x, y, shape, block, before_row, before_column, after_row, after_column, minus, counter):
    """Windows of 3: two rows at once, one block of channels after the other."""
    h, w, c = shape
    step = w * c
    for task in tasks(counter):
        image, top, left = _place(task, shape, block)
        columns = (left, min(w, left + block[1]))
        for i in range(top, min(h, top + block[0]), 2):
            near = (i > 0, i + 1 < h, i + 2 < h)
            up, down, below = max(0, i - 1), min(h - 1, i + 1), min(h - 1, i + 2)
            weights = (before_row[up], before_row[i], before_row[down], before_row[below])
            scales = (after_row[i], after_row[down])
            for start in range(0, c, lanes(x)):
                base = (image * h + i) * step + start
                # two calls, so that one is compiled for full vectors
                if c - start >= lanes(x):
                    _sweep(
                        x,
                        y,
                        base,
                        columns,
                        w,
                        step,
                        near,
                        weights,
                        scales,
                        before_column,
                        after_column,
                        minus,
                        lanes(x),
                    )
                else:
                    _sweep(
                        x,
                        y,
                        base,
                        columns,
                        w,
                        step,
                        near,
                        weights,
                        scales,
                        before_column,
                        after_column,
                        minus,
                        c - start,
                    )


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
                total[t] = mul_add(_load(x, offset, count), before[0][k], total[t])
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
                    value = value - _load(x, offset, count)
                _store(y, offset, value, count)


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
