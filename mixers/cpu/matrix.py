"""Matrix products without BLAS, for whole arrays and as pieces of kernels.

BLAS would bring threads of its own, which keep spinning on the processors our kernels need. One inner loop
serves all products here: a tile of the result stays in registers, a few rows by a few vectors of columns,
while the common index k runs. The left factor is read where it is, by strides. The right factor is laid out
in panels, each the columns of one tile::

    panel[k * panel_width(x) + j]      zero where j is beyond the last column

Long sums are cut into parts, which keeps rounding errors and caches in check.
"""

import functools

import numpy

from mixers.cpu import activations, aligned
from mixers.cpu.activations import activate
from mixers.cpu.aligned import scratch
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import (
    REGISTERS,
    lanes,
    load,
    load_first,
    mul_add,
    scalar,
    square_tile,
    store,
    store_first,
    tile,
    transpose,
)

# 14 x 2 accumulators reach the peak with 32 registers, 6 x 2 with 16
_VECTORS = 2
_ROWS, _FEW_ROWS = (14, 4) if REGISTERS == 32 else (6, 2)


@helper
def panel_width(x):
    """Columns of a panel, for arrays of the dtype of x."""
    return _VECTORS * lanes(x)


@routine
def _put(total, rows, out, columns, add):
    """Write or add a tile to some columns of the result."""
    Y, y, y_row = out
    for i in range(rows):
        for v in range(_VECTORS):
            place, count = y + i * y_row + v * lanes(Y), max(columns - v * lanes(Y), 0)
            value = total[i * _VECTORS + v]
            if add:
                value = value + load_first(Y, place, count)
            store_first(Y, place, value, count)


def _tile_product(rows):
    """The inner loop for a fixed number of rows, from row i on; arguments as of multiply_panel."""
    count = rows * _VECTORS

    @helper
    def multiply(i, left, panel, bias, out, depth, columns, add):
        A, a, a_row, a_column = left
        X, x = panel
        of_rows, b, b_step, of_columns, c = bias
        Y, y, y_row = out
        a, b, y = a + i * a_row, b + i * b_step, y + i * y_row
        n = lanes(X)
        total = tile(X, count)
        for r in range(rows):
            for v in range(_VECTORS):
                total[r * _VECTORS + v] = load(of_columns, c + v * n) + scalar(of_rows, b + r * b_step)
        for k in range(depth):
            for r in range(rows):
                factor = scalar(A, a + r * a_row + k * a_column)
                for v in range(_VECTORS):
                    value = load(X, x + (k * _VECTORS + v) * n)
                    total[r * _VECTORS + v] = mul_add(factor, value, total[r * _VECTORS + v])
        if columns == _VECTORS * n and not add:
            for r in range(rows):
                for v in range(_VECTORS):
                    store(Y, y + r * y_row + v * n, total[r * _VECTORS + v])
        else:
            # by way of memory: an escaping tile would not stay in registers
            copy = tile(X, count)
            for q in range(count):
                copy[q] = total[q]
            _put(copy, rows, (Y, y, y_row), columns, add)

    return multiply


_many_rows, _few_rows, _one_row = _tile_product(_ROWS), _tile_product(_FEW_ROWS), _tile_product(1)


def no_bias(x):
    """The `bias` of :func:`multiply_panel` that adds nothing, for arrays of the dtype of x."""
    zeros = numpy.zeros(_VECTORS * lanes(x), x.dtype)
    return zeros, 0, 0, zeros, 0


@routine
def multiply_panel(left, panel, bias, out, rows, depth, columns, add):
    """out[i, j] = sum over k < depth of left[i, k] panel[k, j], plus a bias.

    Parameters
    ----------
    left : (array, offset, step from row to row, step from column to column)
    panel : (array, offset)
    bias : (array, offset, step from row to row, array, offset)
        Terms of the rows, and of the columns (as many as panel_width). Without a bias: :func:`no_bias`.
    out : (array, offset, step from row to row)
    rows, depth, columns : int
        i < rows, j < columns <= panel_width.
    add : bool
        Whether to add to what `out` holds.
    """
    many = rows - rows % _ROWS
    few = rows - (rows - many) % _FEW_ROWS
    for i in range(0, many, _ROWS):
        _many_rows(i, left, panel, bias, out, depth, columns, add)
    for i in range(many, few, _FEW_ROWS):
        _few_rows(i, left, panel, bias, out, depth, columns, add)
    for i in range(few, rows):
        _one_row(i, left, panel, bias, out, depth, columns, add)


@routine
def fill_panel(source, panel, depth, columns):
    """panel[k, j] = source[k, j] for k < depth and j < columns.

    `source` is (array, offset, step from row to row) with consecutive columns, `panel` (array, offset). The
    columns beyond become zero.
    """
    (X, x, x_row), (P, p) = source, panel
    n = lanes(P)
    for k in range(depth):
        for v in range(_VECTORS):
            count = min(n, max(columns - v * n, 0))
            store(P, p + (k * _VECTORS + v) * n, load_first(X, x + k * x_row + v * n, count))


@routine
def fill_panel_transposed(source, panel, depth, columns):
    """panel[k, j] = source[j, k] for k < depth and j < columns; otherwise as :func:`fill_panel`."""
    (X, x, x_row), (P, p) = source, panel
    n = lanes(P)
    square = square_tile(P)
    for first in range(0, _VECTORS * n, n):
        for k in range(0, depth, n):
            inside = min(n, depth - k)
            for j in range(n):
                count = inside if first + j < columns else 0
                square[j] = load_first(X, x + (first + j) * x_row + k, count)
            transpose(square)
            for i in range(inside):
                store(P, p + (k + i) * _VECTORS * n + first, square[i])


@helper
def activate_block(kind, Y, y, y_row, rows, columns):
    """Apply an activation (:mod:`mixers.cpu.activations`) to a block of Y; `kind` must be a constant."""
    for i in range(rows):
        for j in range(0, columns, lanes(Y)):
            place, count = y + i * y_row + j, min(columns - j, lanes(Y))
            store_first(Y, place, activate(kind, load_first(Y, place, count)), count)


def pack(w, vectors=_VECTORS):
    """All panels of a matrix w (depth, columns), one after the other; of so many vectors each."""
    depth, columns = w.shape
    width = vectors * lanes(w)
    panels = aligned.empty((-(-columns // width), depth, width), w.dtype)
    whole = columns - columns % width
    panels[: whole // width] = w[:, :whole].reshape(depth, whole // width, width).swapaxes(0, 1)
    if whole < columns:
        panels[-1, :, : columns - whole] = w[:, whole:]
        panels[-1, :, columns - whole :] = 0
    return panels


# rows of the left factor per task, steps of a long sum at a time, and tasks wanted at least
_TASK_ROWS = 8 * _ROWS
_DEPTH = 512
_TASKS = 64


@functools.cache
def _linear_kernel(kind):
    @kernel
    def linear_rows(x, panels, bias, none, y, m, n, k, group, counter):
        width = panel_width(x)
        groups = -(-n // (group * width))
        for task in tasks(counter):
            first = task // groups * _TASK_ROWS
            rows = min(_TASK_ROWS, m - first)
            begin = task % groups * group * width
            end = min(begin + group * width, n)
            for j in range(begin, end, width):
                out, columns = (y, first * n + j, n), min(width, n - j)
                terms = none[0], 0, 0, bias, j
                for start in range(0, max(k, 1), _DEPTH):
                    left, panel = (x, first * k + start, k, 1), (panels, j * k + start * width)
                    multiply_panel(left, panel, terms, out, rows, min(_DEPTH, k - start), columns, start > 0)
                    terms = none
            if kind >= 0:
                activate_block(kind, y, first * n + begin, n, rows, end - begin)

    return linear_rows


def linear(x, w, bias=None, activation=None):
    """activation(x w + bias), the bias added to each row.

    Parameters
    ----------
    x : array (m, k)
    w : array (k, n)
    bias : array (n,), optional
    activation : str, optional
        See :func:`mixers.cpu.activations.number`.

    Returns
    -------
    array (m, n)
    """
    (m, k), n = x.shape, w.shape[1]
    y = aligned.empty((m, n), x.dtype)
    if y.size:
        panels = pack(w)
        terms = numpy.zeros(len(panels) * panels.shape[2], x.dtype)
        if bias is not None:
            terms[:n] = bias
        blocks = -(-m // _TASK_ROWS)
        group = -(-len(panels) // -(-_TASKS // blocks))
        count = blocks * -(-len(panels) // group)
        args = aligned.flat(x), panels.reshape(-1), terms, no_bias(x), y.reshape(-1), m, n, k, group
        run(_linear_kernel(activations.number(activation)), count, *args, work=m * n * k / 10)
    return y


@kernel
def _linear_weights(x, dy, none, partial, r, k, n, slices, counter):
    width = panel_width(x)
    panel = scratch(_DEPTH * width, x), 0
    across, down = -(-n // width), -(-k // _TASK_ROWS)
    share = -(-r // slices)
    for task in tasks(counter):
        j = task % across * width
        first = task // across % down * _TASK_ROWS
        part = task // (across * down)
        columns, rows = min(width, n - j), min(_TASK_ROWS, k - first)
        out = partial, (part * k + first) * n + j, n
        begin, end = part * share, min((part + 1) * share, r)
        for start in range(begin, end, _DEPTH):
            depth, add = min(_DEPTH, end - start), start > begin
            fill_panel((dy, start * n + j, n), panel, depth, columns)
            multiply_panel((x, start * k + first, 1, k), panel, none, out, rows, depth, columns, add)


def linear_weights(x, dy):
    """x^T dy, summed over many rows: the gradient of the weights of :func:`linear`.

    Parameters
    ----------
    x : array (r, k)
    dy : array (r, n)

    Returns
    -------
    array (k, n)
    """
    (r, k), n = x.shape, dy.shape[1]
    if not r * k * n:
        return aligned.zeros((k, n), x.dtype)
    blocks = -(-n // (_VECTORS * lanes(x))) * -(-k // _TASK_ROWS)
    slices = _slices(r, min(-(-_TASKS // blocks), -(-r // _DEPTH)))
    partial = aligned.empty((slices, k * n), x.dtype)
    args = aligned.flat(x), aligned.flat(dy), no_bias(x), partial.reshape(-1), r, k, n, slices
    run(_linear_weights, slices * blocks, *args, work=r * k * n / 10)
    return sum_rows(partial).reshape(k, n)


def _slices(total, wanted):
    """The number of slices, at most `wanted`, into which `total` is cut by slices of one size."""
    return -(-total // -(-total // wanted))


@functools.cache
def _axis_linear_kernel(kind):
    @kernel
    def axis_linear_blocks(w, w_row, w_column, x, bias, b_step, none, y, m, k, c, counter):
        width = panel_width(x)
        across = -(-c // width)
        panel = scratch(_DEPTH * width, x), 0
        for task in tasks(counter):
            item, j = task // across, task % across * width
            out, columns = (y, item * m * c + j, c), min(width, c - j)
            terms = bias, 0, b_step, none[3], 0
            for start in range(0, max(k, 1), _DEPTH):
                depth, add = min(_DEPTH, k - start), start > 0
                fill_panel((x, (item * k + start) * c + j, c), panel, depth, columns)
                multiply_panel(
                    (w, start * w_column, w_row, w_column), panel, terms, out, m, depth, columns, add
                )
                terms = none
            if kind >= 0:
                activate_block(kind, y, item * m * c + j, c, m, columns)

    return axis_linear_blocks


def strided(w):
    """A matrix as (values, step from row to row, step from column to column); copied only if it must be."""
    if w.T.flags.c_contiguous and not w.flags.c_contiguous:
        return aligned.flat(w.T), 1, w.shape[0]
    return aligned.flat(w), w.shape[1], 1


def axis_linear(w, x, bias=None, activation=None):
    """activation(w x[i] + bias) for every i, the bias added to each column.

    Parameters
    ----------
    w : array (m, k)
    x : array (b, k, c)
    bias : array (m,), optional
    activation : str, optional
        See :func:`mixers.cpu.activations.number`.

    Returns
    -------
    array (b, m, c)
    """
    (m, k), (b, _, c) = w.shape, x.shape
    y = aligned.empty((b, m, c), x.dtype)
    if y.size:
        none = no_bias(x)
        terms = none[:2] if bias is None else (aligned.flat(bias), 1)
        args = *strided(w), aligned.flat(x), *terms, none, y.reshape(-1), m, k, c
        count = b * -(-c // (_VECTORS * lanes(x)))
        run(_axis_linear_kernel(activations.number(activation)), count, *args, work=m * k * b * c / 10)
    return y


@kernel
def _axis_weights(dy, x, none, partial, b, m, k, c, slices, counter):
    width = panel_width(x)
    panel = scratch(_DEPTH * width, x), 0
    across = -(-k // width)
    share = -(-b // slices)
    for task in tasks(counter):
        part, j = task // across, task % across * width
        out, columns = (partial, part * m * k + j, k), min(width, k - j)
        add = False
        for item in range(part * share, min((part + 1) * share, b)):
            for start in range(0, c, _DEPTH):
                depth = min(_DEPTH, c - start)
                fill_panel_transposed((x, (item * k + j) * c + start, c), panel, depth, columns)
                left = dy, item * m * c + start, c, 1
                multiply_panel(left, panel, none, out, m, depth, columns, add)
                add = True


def axis_weights(dy, x):
    """The sum over i of dy[i] x[i]^T: the gradient of the weights of :func:`axis_linear`.

    Parameters
    ----------
    dy : array (b, m, c)
    x : array (b, k, c)

    Returns
    -------
    array (m, k)
    """
    (b, m, c), k = dy.shape, x.shape[1]
    if not b * m * c * k:
        return aligned.zeros((m, k), x.dtype)
    across = -(-k // (_VECTORS * lanes(x)))
    slices = _slices(b, min(b, -(-_TASKS // across)))
    partial = aligned.empty((slices, m * k), x.dtype)
    args = aligned.flat(dy), aligned.flat(x), no_bias(x), partial.reshape(-1), b, m, k, c, slices
    run(_axis_weights, slices * across, *args, work=b * m * c * k / 10)
    return sum_rows(partial).reshape(m, k)
