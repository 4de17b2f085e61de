"""Strips of an image on the CPU.

The channels that have weights of their own are in the lanes: every product of a strip linear multiplies a
vector of weights with a vector of x. A tile of results, some positions by some groups of channels, stays in
registers while taps and positions of the strip are summed.
"""

import numpy

from mixers.cpu.aligned import contiguous, empty, flat, zeros
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, routine, run, tasks
from mixers.cpu.simd import REGISTERS, lanes, mul_add, tile
from mixers.cpu.simd import zeros as zero_vector
from mixers.cpu.tails import get, put

# positions of a tile; for sums of weights, positions of dy and of x
_ROWS = 5
_SUM_ROWS, _SUM_COLUMNS = (7, 3) if REGISTERS >= 32 else (3, 3)


def _mixed_tile(rows, groups, whole):
    """The tile of `rows` positions from n on and `groups` groups of channels, at one vector of weights.

    `whole` says that the vector is full: a masked access costs time and registers.
    """
    size = rows * groups

    @routine
    def multiply(x, w, bias, y, place, w_place, taps, positions, n, count):
        from_place, strip_step, step, group_step = place
        w_tap, w_in, w_out = w_place
        count = lanes(x) if whole else count
        total = tile(x, size)
        for r in range(rows):
            for g in range(groups):
                total[r * groups + g] = get(bias, w_out + (n + r) * group_step, count)
        for t in range(taps[0], taps[1]):
            source = from_place + (t - taps[2]) * strip_step
            for m in range(positions):
                weights = w_tap + t * positions * w_in + m * w_in + n * group_step
                for r in range(rows):
                    factor = get(w, weights + r * group_step, count)
                    for g in range(groups):
                        value = get(x, source + m * step + g * group_step, count)
                        total[r * groups + g] = mul_add(factor, value, total[r * groups + g])
        for r in range(rows):
            for g in range(groups):
                put(y, from_place + (n + r) * step + g * group_step, total[r * groups + g], count)

    return multiply


_four, _two, _one = (_mixed_tile(_ROWS, groups, True) for groups in (4, 2, 1))
_tail, _single = _mixed_tile(_ROWS, 1, False), _mixed_tile(1, 1, False)


@kernel
def _mix(x, w, bias, y, sizes, steps, counter):
    """One strip per task; w is (taps, positions in, positions out, shared), bias (positions, shared)."""
    strips, positions, groups, shared, all_taps = sizes
    item_step, strip_step, step = steps
    for task in tasks(counter):
        item, s = task // strips, task % strips
        reach = all_taps // 2
        # taps that fall on a strip
        taps = max(0, reach - s), min(all_taps, strips + reach - s), reach
        start = item * item_step + s * strip_step
        for j in range(0, shared, lanes(x)):
            count = min(lanes(x), shared - j)
            w_place = j, positions * shared, j
            g = 0
            while g < groups:
                place = start + g * shared + j, strip_step, step, shared
                if positions < _ROWS:
                    for n in range(positions):
                        _single(x, w, bias, y, place, w_place, taps, positions, n, count)
                    g += 1
                    continue
                whole, left = count == lanes(x), groups - g
                for first in range(0, positions, _ROWS):
                    # the last tile begins earlier, so that it is whole
                    n = min(first, positions - _ROWS)
                    if not whole:
                        _tail(x, w, bias, y, place, w_place, taps, positions, n, count)
                    elif left >= 4:
                        _four(x, w, bias, y, place, w_place, taps, positions, n, count)
                    elif left >= 2:
                        _two(x, w, bias, y, place, w_place, taps, positions, n, count)
                    else:
                        _one(x, w, bias, y, place, w_place, taps, positions, n, count)
                g += 4 if whole and left >= 4 else 2 if whole and left >= 2 else 1


def _weight_tile(rows, columns, whole):
    """dw of `rows` positions of dy and `columns` of x; sums of items are added up in `scratch`."""
    size = rows * columns

    @routine
    def add_up(x, dy, dw, scratch, places, sizes, steps, items, n, m, tap, count):
        strips, positions, groups, shared, taps = sizes
        item_step, strip_step, step = steps
        j, wanted_n, wanted_m = places
        count = lanes(x) if whole else count
        reach = taps // 2
        for item in range(items):
            total = tile(x, size)
            for q in range(size):
                total[q] = zero_vector(x)
            for s in range(max(0, reach - tap), min(strips, strips + reach - tap)):
                place = item * item_step + s * strip_step + j
                source = place + (tap - reach) * strip_step
                for g in range(groups):
                    for r in range(rows):
                        d = get(dy, place + (n + r) * step + g * shared, count)
                        for c in range(columns):
                            value = get(x, source + (m + c) * step + g * shared, count)
                            total[r * columns + c] = mul_add(d, value, total[r * columns + c])
            for q in range(size):
                value = total[q]
                if item > 0:
                    value = value + get(scratch, q * lanes(x), count)
                put(scratch, q * lanes(x), value, count)
        for r in range(rows):
            for c in range(columns):
                # what an earlier tile has stored is left alone
                if n + r >= wanted_n and m + c >= wanted_m:
                    at = ((tap * positions + n + r) * positions + m + c) * shared + j
                    put(dw, at, get(scratch, (r * columns + c) * lanes(x), count), count)

    return add_up


_large, _large_tail = (_weight_tile(_SUM_ROWS, _SUM_COLUMNS, whole) for whole in (True, False))
_small = _weight_tile(1, 1, False)


@kernel
def _weight_sums(x, dy, dw, items, sizes, steps, counter):
    """dw (taps, positions of dy, positions of x, shared): some positions of dy per task."""
    positions, shared = sizes[1], sizes[3]
    rows, columns = (_SUM_ROWS, _SUM_COLUMNS) if positions >= _SUM_ROWS else (1, 1)
    blocks, across = -(-positions // rows), -(-shared // lanes(x))
    scratch = numpy.empty(_SUM_ROWS * _SUM_COLUMNS * lanes(x), x.dtype)
    for task in tasks(counter):
        tap, block, j = task // (blocks * across), task // across % blocks, task % across * lanes(x)
        count = min(lanes(x), shared - j)
        n = min(block * rows, positions - rows)
        for wanted in range(0, positions, columns):
            m, places = min(wanted, positions - columns), (j, block * rows, wanted)
            if rows > 1 and count == lanes(x):
                _large(x, dy, dw, scratch, places, sizes, steps, items, n, m, tap, count)
            elif rows > 1:
                _large_tail(x, dy, dw, scratch, places, sizes, steps, items, n, m, tap, count)
            else:
                _small(x, dy, dw, scratch, places, sizes, steps, items, n, m, tap, count)


def strip_linear_forward(x, w, b=None, axis=None, save=True):
    """Strips are independent."""
    return _mixed(x, w.transpose(1, 3, 2, 0), b, axis), ()


def strip_linear_backward(dout, saved):
    """dx mixes dy with the taps reversed and the matrices transposed."""
    x, w, axis = saved.x, saved.w, saved.axis
    dx = _mixed(dout, w[:, ::-1].transpose(1, 2, 3, 0), None, axis)
    shared, taps, n, _ = w.shape
    dw = zeros((taps, n, n, shared), x.dtype)
    if x.size:
        sizes, steps = _layout(x, shared, taps, axis)
        rows = _SUM_ROWS if n >= _SUM_ROWS else 1
        count = taps * -(-n // rows) * -(-shared // lanes(x))
        args = flat(x), flat(dout), dw.reshape(-1), x.shape[0], sizes, steps
        run(_weight_sums, count, *args, work=x.size * taps * n / 8)
    db = None
    if saved.b is not None:
        b, h, width, c = x.shape
        cells = sum_rows(contiguous(dout).reshape(b, h * width * c)).reshape(h, width, c // shared, shared)
        db = contiguous(cells.sum(axis=(0, 2) if axis == "w" else (1, 2)).T)
    return dx, contiguous(dw.transpose(3, 0, 1, 2)), db


def _mixed(x, w, b, axis):
    """The kernel on any x, with w as (taps, positions in, positions out, shared)."""
    y = empty(x.shape, x.dtype)
    if x.size:
        taps, n, _, shared = w.shape
        bias = zeros((n, shared), x.dtype) if b is None else contiguous(b.T)
        sizes, steps = _layout(x, shared, taps, axis)
        args = flat(x), flat(w), bias.reshape(-1), y.reshape(-1), sizes, steps
        run(_mix, x.shape[0] * sizes[0], *args, work=x.size * taps * n / 8)
    return y


def _layout(x, shared, taps, axis):
    """(strips, positions, groups, shared, taps), and the steps of items, strips and positions."""
    _, h, w, c = x.shape
    if axis == "w":
        return (h, w, c // shared, shared, taps), (h * w * c, w * c, c)
    return (w, h, c // shared, shared, taps), (h * w * c, c, w * c)


@kernel
def _add_diagonals(x, table, y, h, w, c, reach, counter):
    """One row of tokens per task: adds the table's row of each distance."""
    for task in tasks(counter):
        for k in range(w):
            distance = min(max(k - task % h, -reach), reach) + reach
            at = (task * w + k) * c
            for j in range(0, c, lanes(x)):
                count = min(lanes(x), c - j)
                value = get(x, at + j, count) + get(table, distance * c + j, count)
                put(y, at + j, value, count)


@kernel
def _sum_diagonals(dy, dtable, h, w, c, reach, counter):
    """One row of the table per task: the sum over its tokens, row by row."""
    for task in tasks(counter):
        distance = task - reach
        for j in range(0, c, lanes(dy)):
            count = min(lanes(dy), c - j)
            total = zero_vector(dy)
            for i in range(h):
                # the ends of the table also hold what is farther
                first = 0 if distance == -reach else i + distance
                last = w if distance == reach else i + distance + 1
                part = zero_vector(dy)
                for k in range(max(first, 0), min(last, w)):
                    part = part + get(dy, (i * w + k) * c + j, count)
                total = total + part
            put(dtable, task * c + j, total, count)


def relative_bias_forward(x, table, save=True):
    """Rows are independent."""
    b, h, w, c = x.shape
    y = empty(x.shape, x.dtype)
    args = flat(x), flat(table), y.reshape(-1), h, w, c, len(table) // 2
    run(_add_diagonals, b * h, *args, work=2 * x.size)
    return y, ()


def relative_bias_backward(dout, saved):
    """dtable from the sum of dy over the batch."""
    b, h, w, c = dout.shape
    dx = empty(dout.shape, dout.dtype)
    dx[...] = dout
    dtable = empty(saved.table.shape, dout.dtype)
    sums = sum_rows(dx.reshape(b, h * w * c))
    run(_sum_diagonals, len(dtable), sums, dtable.reshape(-1), h, w, c, len(dtable) // 2, work=h * w * c)
    return dx, dtable
