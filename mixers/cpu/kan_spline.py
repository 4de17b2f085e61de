"""B-splines on the CPU by the order + 1 functions that are not zero at a value.

With many functions most of the expansion is zeros. Here every value has the index of its first function and
order + 1 numbers, and the products go over those alone: rows of coefficients are picked by the index. Where rows
are summed into coefficients they are sorted by the index, so that the sums of one interval stay in registers.
"""

import functools

import numpy

from mixers.cpu import aligned, matrix
from mixers.cpu.aligned import scratch
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import (
    any_lane,
    lanes,
    load,
    load_first,
    mul_add,
    scalar,
    select,
    store,
    store_first,
    sum_lanes,
    tile,
    zeros,
)
from mixers.cpu.turn import turn

# vectors of outputs that are summed side by side; accumulators of a sum over rows
_MOST, _ACCUMULATORS = 8, 24
# rows of a task, of a block of the sums over rows; inputs expanded at a time
_FEW_ROWS, _MANY_ROWS, _BLOCK, _GROUP = 28, 112, 256, 16
# degree up to which the functions of a value stay in registers
_HIGHEST = 7
# bytes of coefficients that should stay in the first-level cache; tasks that are enough
_NEAR, _TASKS = 24576, 16


def suits(g, order):
    """Whether this form is the faster one: from five intervals on, about the same for any number of outputs."""
    return 1 <= order <= _HIGHEST and g >= order + 5


def forward(x, w, knots, order):
    """y (m, o) of x (m, i) and w (i, g, o), with knots (i, .) or (1, .)."""
    (m, i), (_, g, o) = x.shape, w.shape
    y = aligned.empty((m, o), x.dtype)
    table, step = _table(knots, order, x.dtype)
    vectors = _vectors(o, x)
    panels = matrix.pack(w.reshape(i * g, o), vectors)
    rows = min(_MANY_ROWS, max(_FEW_ROWS, -(-m // _TASKS)))
    sizes = m, i, g, o, step
    args = aligned.flat(x), table, panels.reshape(-1), y.reshape(-1), sizes, rows
    run(_kernels(order, vectors)[0], -(-m // rows), *args, work=x.size * o * (order + 1) / 10)
    return y


def backward(x, dy, w, knots, order):
    """dx (m, i) and dw (i, g, o)."""
    (m, i), (_, g, o) = x.shape, w.shape
    table, step = _table(knots, order, x.dtype)
    vectors = _vectors(o, x)
    panels = matrix.pack(w.reshape(i * g, o), vectors)
    rows = min(_MANY_ROWS, max(_FEW_ROWS, -(-m // _TASKS)))
    sizes = m, i, g, o, step
    x, dy, dx = aligned.flat(x), aligned.flat(dy), aligned.empty((m, i), x.dtype)
    args = x, dy, table, panels.reshape(-1), dx.reshape(-1), sizes, rows
    work = m * i * o * (order + 1) / 10
    run(_kernels(order, vectors)[1], -(-m // rows), *args, work=work)
    groups, blocks = -(-i // _GROUP), -(-m // _BLOCK)
    share = -(-blocks // min(blocks, -(-_TASKS // groups)))
    slices = -(-blocks // share)
    parts = aligned.zeros((slices, i * g * o), x.dtype)
    run(
        _kernels(order, vectors)[2], slices * groups, x, dy, table, parts.reshape(-1), sizes, share, work=work
    )
    return dx, sum_rows(parts).reshape(i, g, o)


def _vectors(o, x):
    """Vectors of a panel of outputs."""
    return min(_MOST, 1 << (-(-o // lanes(x)) - 1).bit_length())


def _table(knots, order, dtype):
    """Knots with `order` more on both sides, which no function depends on; and their step."""
    t = numpy.asarray(knots, numpy.float64)
    more = numpy.arange(1, order + 1)
    left = t[:, :1] - (t[:, 1:2] - t[:, :1]) * more[::-1]
    right = t[:, -1:] + (t[:, -1:] - t[:, -2:-1]) * more
    rows = numpy.concatenate([left, t, right], axis=1).astype(dtype)
    return rows.reshape(-1), rows.shape[1] if len(rows) > 1 else 0


@functools.cache
def _local(order):
    """The functions that are not zero, or their slopes."""
    count, around = order + 1, 2 * order

    @helper
    def local(slopes, x, table, t, g, values, at, step, places, place):
        """values[at + q step] = function places[place] + q, q <= order; the place is -1 beyond the knots."""
        t_last = t + order + g + order
        inside = (x >= scalar(table, t + order)) & (x < scalar(table, t_last))
        # knots from m - order + 1 on, of the interval m
        near, m = tile(values, around), zeros(values)
        for q in range(around):
            near[q] = zeros(values) + scalar(table, t + 1 + q)
        for f in range(1, g + order):
            beyond = x >= scalar(table, t + order + f)
            m = select(beyond, m + 1.0, m)
            for q in range(around):
                near[q] = select(beyond, scalar(table, t + f + 1 + q), near[q])
        b = tile(values, count)
        b[0] = zeros(values) + 1.0
        for q in range(1, order + 1):
            if q < order or not slopes:
                carry = zeros(values)
                for r in range(q):
                    low, high = near[order - q + r], near[order + r]
                    part = b[r] / (high - low)
                    b[r] = mul_add(high - x, part, carry)
                    carry = (x - low) * part
                b[q] = carry
        if slopes:
            before = zeros(values)
            for r in range(order):
                part = b[r] / (near[order + r] - near[r]) * order
                b[r] = before - part
                before = part
            b[order] = before
        first = m - order
        # at the ends some of the functions do not exist: the others move up
        for _ in range(order):
            if any_lane(first < 0.0):
                missing = first < 0.0
                for q in range(order):
                    b[q] = select(missing, b[q + 1], b[q])
                b[order] = select(missing, 0.0, b[order])
                first = select(missing, first + 1.0, first)
            if any_lane(first > g - count):
                missing = first > g - count
                for q in range(order, 0, -1):
                    b[q] = select(missing, b[q - 1], b[q])
                b[0] = select(missing, 0.0, b[0])
                first = select(missing, first - 1.0, first)
        # zero, or NaN of what is no finite number
        outside = x - x
        first = select(inside, first, select(outside == 0.0, zeros(values) - 1.0, 0.0))
        for q in range(count):
            store(values, at + q * step, select(inside, b[q], outside))
        store(places, place, first)

    return local


@routine
def _fill(source, panel, rows, columns, width):
    """panel[r width + c] = source[r, c], zero beyond; `source` is (array, offset, step from row to row)."""
    X, x, x_row = source
    n = lanes(panel)
    for r in range(rows):
        for c in range(0, width, n):
            store(panel, r * width + c, load_first(X, x + r * x_row + c, min(n, max(columns - c, 0))))


@functools.cache
def _kernels(order, vectors):
    """Kernels of one degree: forward, gradient of x, gradient of w."""
    local, count = _local(order), order + 1
    side = max(1, min(_ACCUMULATORS // count, vectors))
    sums = count * side

    @helper
    def expand(slopes, x, start, step, rows, begin, n, turned, stride, table, t_row, g, values, places):
        """For n inputs from `begin` on: values[(j count + q) stride + r] and places[j stride + r]."""
        turn((x, start + begin, step), (turned, 0), rows, n, stride)
        for j in range(n):
            t = (begin + j) * t_row
            for r in range(0, stride, lanes(x)):
                at = j * count * stride + r
                local(
                    *(slopes, load(turned, j * stride + r), table, t, g),
                    *(values, at, stride, places, j * stride + r),
                )

    @helper
    def add_row(r, begin, n, values, places, stride, panels, w, g, y, place, columns, add):
        """y[place:] += sum over n inputs of the functions of row r times coefficients, a panel of outputs."""
        size = lanes(y)
        total = tile(y, vectors)
        for v in range(vectors):
            total[v] = zeros(y)
        for j in range(begin, begin + n):
            first = int(scalar(places, j * stride + r))
            if first >= 0:
                at = w + ((j - begin) * g + first) * vectors * size
                for q in range(count):
                    factor = scalar(values, (j * count + q) * stride + r)
                    for v in range(vectors):
                        value = load(panels, at + (q * vectors + v) * size)
                        total[v] = mul_add(factor, value, total[v])
        if columns == vectors * size:
            for v in range(vectors):
                value = total[v]
                if add:
                    value = value + load(y, place + v * size)
                store(y, place + v * size, value)
        else:
            for v in range(vectors):
                inside = min(size, max(columns - v * size, 0))
                value = total[v]
                if add:
                    value = value + load_first(y, place + v * size, inside)
                store_first(y, place + v * size, value, inside)

    @kernel
    def forward(x, table, panels, y, sizes, most, counter):
        m, i, g, o, t_row = sizes
        n = lanes(x)
        width = vectors * n
        stride = -(-most // n) * n
        near = max(1, _NEAR // (g * width * x.itemsize))
        turned = scratch(_GROUP * stride, x)
        values = scratch(_GROUP * count * stride, x)
        places = scratch(_GROUP * stride, x)
        for task in tasks(counter):
            first = task * most
            rows = min(most, m - first)
            for begin in range(0, i, _GROUP):
                size = min(_GROUP, i - begin)
                expand(
                    *(False, x, first * i, i, rows, begin, size, turned, stride),
                    *(table, t_row, g, values, places),
                )
                for c in range(0, o, width):
                    for j in range(0, size, near):
                        w = (c // width * i + begin + j) * g * width
                        for r in range(rows):
                            add_row(
                                *(r, j, min(near, size - j), values, places, stride, panels, w, g),
                                *(y, (first + r) * o + c, min(width, o - c), begin + j > 0),
                            )

    @helper
    def dot(r, j, values, places, stride, panels, w, g, dy, out, at):
        """out[at:] += the lanes of dy[r] times the slopes' sum of coefficients, a panel of outputs."""
        size = lanes(dy)
        first = int(scalar(places, j * stride + r))
        if first >= 0:
            total = tile(dy, 2)
            total[0] = load(out, at)
            total[1] = zeros(dy)
            w += first * vectors * size
            for v in range(vectors):
                part = scalar(values, j * count * stride + r) * load(panels, w + v * size)
                for q in range(1, count):
                    factor = scalar(values, (j * count + q) * stride + r)
                    part = mul_add(factor, load(panels, w + (q * vectors + v) * size), part)
                total[v % 2] = mul_add(part, load(dy, (r * vectors + v) * size), total[v % 2])
            store(out, at, total[0] + total[1])

    @kernel
    def backward(x, dy, table, panels, dx, sizes, most, counter):
        m, i, g, o, t_row = sizes
        n = lanes(x)
        width = vectors * n
        stride = -(-most // n) * n
        near = max(1, _NEAR // (g * width * x.itemsize))
        turned = scratch(_GROUP * stride, x)
        values = scratch(_GROUP * count * stride, x)
        places = scratch(_GROUP * stride, x)
        panel = scratch(most * width, x)
        out = scratch(most * _GROUP * n, x)
        for task in tasks(counter):
            first = task * most
            rows = min(most, m - first)
            for begin in range(0, i, _GROUP):
                size = min(_GROUP, i - begin)
                expand(
                    *(True, x, first * i, i, rows, begin, size, turned, stride),
                    *(table, t_row, g, values, places),
                )
                for at in range(0, rows * _GROUP * n, n):
                    store(out, at, zeros(x))
                for c in range(0, o, width):
                    _fill((dy, first * o + c, o), panel, rows, min(width, o - c), width)
                    for near_begin in range(0, size, near):
                        for r in range(rows):
                            for j in range(near_begin, min(near_begin + near, size)):
                                w = (c // width * i + begin + j) * g * width
                                at = (r * _GROUP + j) * n
                                dot(r, j, values, places, stride, panels, w, g, panel, out, at)
                for r in range(rows):
                    for j in range(size):
                        dx[(first + r) * i + begin + j] = sum_lanes(load(out, (r * _GROUP + j) * n))

    @helper
    def sort(rows, n, values, places, stride, g, starts, order_of):
        """Rows by their first function: from starts[j (g + 2) + f] on in order_of[j stride:]."""
        for j in range(n):
            for f in range(g + 2):
                starts[j * (g + 2) + f] = 0
            for r in range(rows):
                f = int(scalar(places, j * stride + r))
                if f >= 0:
                    starts[j * (g + 2) + f + 2] += 1
            for f in range(g):
                starts[j * (g + 2) + f + 2] += starts[j * (g + 2) + f + 1]
            for r in range(rows):
                f = int(scalar(places, j * stride + r))
                if f >= 0:
                    position = starts[j * (g + 2) + f + 1]
                    starts[j * (g + 2) + f + 1] = position + 1
                    order_of[j * stride + position] = r

    @helper
    def add_interval(begin, end, j, rows, values, panel, out, place, o, columns):
        """out[place + q o] += sum over sorted rows of their function q times dy."""
        n = lanes(out)
        total = tile(out, sums)
        for s in range(sums):
            total[s] = zeros(out)
        for position in range(begin, end):
            r = rows[j * _BLOCK + position]
            d = r * side * n
            for q in range(count):
                factor = scalar(values, (j * count + q) * _BLOCK + r)
                for v in range(side):
                    value = load(panel, d + v * n)
                    total[q * side + v] = mul_add(factor, value, total[q * side + v])
        if columns == side * n:
            for q in range(count):
                for v in range(side):
                    to = place + q * o + v * n
                    store(out, to, load(out, to) + total[q * side + v])
        else:
            for q in range(count):
                for v in range(side):
                    to, inside = place + q * o + v * n, min(n, max(columns - v * n, 0))
                    store_first(out, to, load_first(out, to, inside) + total[q * side + v], inside)

    @kernel
    def weights(x, dy, table, parts, sizes, share, counter):
        m, i, g, o, t_row = sizes
        n = lanes(x)
        width = side * n
        turned = scratch(_GROUP * _BLOCK, x)
        values = scratch(_GROUP * count * _BLOCK, x)
        places = scratch(_GROUP * _BLOCK, x)
        panel = scratch(_BLOCK * width, x)
        starts = numpy.empty(_GROUP * (g + 2), numpy.int64)
        rows = numpy.empty(_GROUP * _BLOCK, numpy.int64)
        groups, blocks = -(-i // _GROUP), -(-m // _BLOCK)
        for task in tasks(counter):
            part, begin = task // groups, task % groups * _GROUP
            size = min(_GROUP, i - begin)
            for block in range(part * share, min((part + 1) * share, blocks)):
                first = block * _BLOCK
                number = min(_BLOCK, m - first)
                expand(
                    *(False, x, first * i, i, number, begin, size, turned, _BLOCK),
                    *(table, t_row, g, values, places),
                )
                sort(number, size, values, places, _BLOCK, g, starts, rows)
                for c in range(0, o, width):
                    columns = min(width, o - c)
                    _fill((dy, first * o + c, o), panel, number, columns, width)
                    for j in range(size):
                        for f in range(g):
                            low, high = starts[j * (g + 2) + f], starts[j * (g + 2) + f + 1]
                            if high > low:
                                place = ((part * i + begin + j) * g + f) * o + c
                                add_interval(
                                    *(low, high, j, rows, values, panel, parts, place, o, columns),
                                )

    return forward, backward, weights
