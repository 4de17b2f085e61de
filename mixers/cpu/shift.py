"""Shifts of channel groups.

x is seen as (lines, n, inner, m, rest, c): n and m are the shifted axes (m = 1 if there is one), the others all
axes before, between and behind them. The channels of one vector may have several shifts: the table of a vector's
distinct shifts says which place each lane is taken from.
"""

import functools
import math

import numpy

from mixers.cpu import matrix
from mixers.cpu.aligned import contiguous, empty, flat
from mixers.cpu.aligned import zeros as zero_array
from mixers.cpu.matrix import multiply_panel, no_bias, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load_first, select, store_first, zeros

_TASK_VALUES = 32768
# rows and steps of a product at a time, and values of products that a task puts back while they are in its cache
_ROWS, _DEPTH, _CACHED = 112, 512, 1 << 17


@helper
def _gather_row(x, y, position, to, bounds, starts, chosen, sizes):
    """y[to ..] = the sum, for each lane's shift, of the rectangle of places that `bounds` holds."""
    n, inner, m, rest, c = sizes
    first, last, first_m, last_m = bounds
    behind, position = position % rest, position // rest
    k, position = position % m, position // m
    between, position = position % inner, position // inner
    i, line = position % n, position // n
    for j in range(0, c, lanes(y)):
        count = min(c - j, lanes(y))
        vector = j // lanes(y)
        value = zeros(y)
        begin, end = starts[vector], starts[vector + 1]
        for s in range(begin, end):
            row, column = first[s * n + i], first_m[s * m + k]
            rows, columns = last[s * n + i] - row, last_m[s * m + k] - column
            place = ((((line * n + row) * inner + between) * m + column) * rest + behind) * c + j
            moved = zeros(y)
            if rows == 1 and columns == 1:
                moved = load_first(x, place, count)
            else:
                for q in range(rows * columns):
                    step = (q // columns * inner * m + q % columns) * rest * c
                    moved = moved + load_first(x, place + step, count)
            if end - begin == 1:
                value = moved
            else:
                value = select(load_first(chosen, s * lanes(y), lanes(y)) > zeros(y), moved, value)
        store_first(y, to + j, value, count)


@kernel
def _gather(x, y, bounds, starts, chosen, sizes, positions, size, counter):
    """y[i] = the place that is read, or the sum of all that read place i."""
    for task in tasks(counter):
        for position in range(task * size, min(positions, (task + 1) * size)):
            _gather_row(x, y, position, position * sizes[4], bounds, starts, chosen, sizes)


@routine
def _multiply(x, at, panels, bias, none, y, to, rows, depth, columns):
    """`rows` rows of y from `to` on = those of x from `at` on, times all panels, plus the bias."""
    width = panel_width(x)
    for j in range(0, columns, width):
        out, terms = (y, to + j, columns), (none[0], 0, 0, bias, j)
        for start in range(0, depth, _DEPTH):
            left, panel = (x, at + start, depth, 1), (panels, j * depth + start * width)
            steps, count = min(_DEPTH, depth - start), min(width, columns - j)
            multiply_panel(left, panel, terms, out, rows, steps, count, start > 0)
            terms = none


@kernel
def _shifted_rows(x, panels, bias, none, y, bounds, starts, chosen, sizes, positions, columns, counter):
    """Rows of the shifted x are brought together in scratch and multiplied there."""
    c = sizes[4]
    shifted = numpy.empty(_ROWS * c, x.dtype)
    for task in tasks(counter):
        first = task * _ROWS
        rows = min(_ROWS, positions - first)
        for r in range(rows):
            _gather_row(x, shifted, first + r, r * c, bounds, starts, chosen, sizes)
        _multiply(shifted, 0, panels, bias, none, y, first * columns, rows, c, columns)


@kernel
def _returned_rows(dy, panels, bias, none, dx, bounds, starts, chosen, sizes, unit, columns, counter):
    """A task multiplies some rows that a shift does not lead out of, and puts the products back where x was read."""
    c = sizes[4]
    products = numpy.empty(unit * c, dy.dtype)
    for task in tasks(counter):
        for first in range(0, unit, _ROWS):
            at, rows = (task * unit + first) * columns, min(_ROWS, unit - first)
            _multiply(dy, at, panels, bias, none, products, first * c, rows, columns, c)
        for r in range(unit):
            _gather_row(products, dx, r, (task * unit + r) * c, bounds, starts, chosen, sizes)


def channel_shift_forward(x, shifts, axis=1, mode="zero", save=True):
    """Each position reads one place, or none outside the grid."""
    return _shifted(x, shifts, axis, mode, _read), ()


def channel_shift_backward(dout, saved):
    """Each position sums the places that read it: runs of neighbours, as clipped indices are sorted."""
    return (_shifted(dout, saved.shifts, saved.axis, saved.mode, _readers),)


def shift_linear_forward(x, w, b=None, shifts=None, axis=1, mode="zero", save=True):
    """The shifted rows of a task exist until it has multiplied them."""
    y = empty((*x.shape[:-1], w.shape[1]), x.dtype)
    if x.size and w.size:
        panels = matrix.pack(w)
        bias = numpy.zeros(len(panels) * panels.shape[2], x.dtype)
        if b is not None:
            bias[: len(b)] = b
        tables, positions = _tables(x, shifts, axis, mode, _read), x.size // x.shape[-1]
        args = flat(x), panels.reshape(-1), bias, no_bias(x), y.reshape(-1), *tables, positions, w.shape[1]
        run(_shifted_rows, -(-positions // _ROWS), *args, work=x.size * w.shape[1] / 10)
    elif y.size:
        y[...] = 0 if b is None else b
    return y, ()


def shift_linear_backward(dout, saved):
    """The backward of the product with the shifted rows made again, then the adjoint shift."""
    x, w = saved.x, saved.w
    shifted, _ = channel_shift_forward(x, saved.shifts, saved.axis, saved.mode)
    tokens = math.prod(x.shape[:-1])
    rows, drows = shifted.reshape(tokens, w.shape[0]), contiguous(dout).reshape(tokens, w.shape[1])
    dw = matrix.linear_weights(rows, drows)
    db = None if saved.b is None else sum_rows(drows)
    return _returned(dout, saved), dw, db


def _returned(dout, saved):
    """The adjoint shift of dout w^T; no product leaves its task's cache if images are small enough."""
    x, w = saved.x, saved.w
    if not (x.size and w.size):
        return zero_array(x.shape, x.dtype)
    bounds, starts, chosen, sizes = _tables(x, saved.shifts, saved.axis, saved.mode, _readers)
    n, inner, m, rest, c = sizes
    unit = n * inner * m * rest
    if unit * c > _CACHED:
        product = matrix.linear(contiguous(dout).reshape(-1, w.shape[1]), w.T).reshape(x.shape)
        return channel_shift_backward(product, saved)[0]
    dx, panels = empty(x.shape, x.dtype), matrix.pack(w.T)
    bias, units = numpy.zeros(len(panels) * panels.shape[2], x.dtype), x.size // (c * unit)
    args = flat(dout), panels.reshape(-1), bias, no_bias(x), dx.reshape(-1), bounds, starts, chosen, sizes
    run(_returned_rows, units, *args, unit, w.shape[1], work=x.size * w.shape[1] / 10)
    return dx


def _shifted(x, shifts, axis, mode, lines):
    y = empty(x.shape, x.dtype)
    if x.size:
        c = x.shape[-1]
        positions, size = x.size // c, max(1, _TASK_VALUES // c)
        args = flat(x), y.reshape(-1), *_tables(x, shifts, axis, mode, lines), positions, size
        run(_gather, -(-positions // size), *args, work=4 * x.size)
    return y


def _tables(x, shifts, axis, mode, lines):
    """What a gather needs to know: bounds of what is read, distinct shifts of each vector, and the sizes."""
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    moves = shifts.astype(numpy.int64).tobytes()
    return _kept_tables(x.shape[1:], lanes(x), x.dtype, moves, axes, mode, lines)


@functools.lru_cache(maxsize=64)
def _kept_tables(shape, count, dtype, moves, axes, mode, lines):
    shifts = numpy.frombuffer(moves, numpy.int64).reshape(len(axes), -1)
    shape = (1, *shape)
    if len(axes) == 1:
        # the second axis is an empty one behind the first
        n, m, inner, rest = shape[axes[0]], 1, 1, math.prod(shape[axes[0] + 1 : -1])
        shifts = numpy.stack([shifts[0], 0 * shifts[0]])
    else:
        first, second = sorted(axes)
        n, m, shifts = shape[first], shape[second], shifts[numpy.argsort(axes)]
        inner, rest = math.prod(shape[first + 1 : second]), math.prod(shape[second + 1 : -1])
    starts, distinct, chosen = _distinct(shifts, count, dtype)
    bounds = *lines(n, mode, distinct[:, 0]), *lines(m, mode, distinct[:, 1])
    return bounds, starts, chosen, (n, inner, m, rest, shape[-1])


def _distinct(shifts, count, dtype):
    """For each vector of channels its distinct pairs of shifts, and for each which lanes have it (0 or 1)."""
    starts, distinct, chosen = [0], [], []
    for j in range(0, shifts.shape[1], count):
        own = shifts[:, j : j + count]
        for pair in numpy.unique(own, axis=1).T:
            distinct.append(pair)
            chosen.append(numpy.pad((own == pair[:, None]).all(axis=0), (0, count - own.shape[1])))
        starts.append(len(distinct))
    return numpy.array(starts), numpy.array(distinct), contiguous(numpy.concatenate(chosen), dtype)


def _read(n, mode, distinct):
    """Bounds of the one line that position i reads for shift s."""
    index = numpy.arange(n) - distinct[:, None]
    source = index % n if mode == "wrap" else numpy.clip(index, 0, n - 1)
    inside = (index >= 0) & (index < n) if mode == "zero" else True
    return source.reshape(-1), (source + inside).reshape(-1)


def _readers(n, mode, distinct):
    """Bounds of the lines that read position m for shift s: the adjoint of :func:`_read`."""
    m, s = numpy.arange(n), distinct[:, None]
    index = (m + s) % n if mode == "wrap" else m + s
    first, last = numpy.clip(index, 0, n), numpy.clip(index + 1, 0, n)
    if mode == "clamp":
        # the border lines are also read by all that lie beyond them
        first = numpy.where(m == 0, 0, first)
        last = numpy.where(m == n - 1, n, last)
    return first.reshape(-1), last.reshape(-1)
