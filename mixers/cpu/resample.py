"""Changes of the token grid. Channels are in the lanes; a task takes whole lines or blocks of tokens."""

import math

import numpy

from mixers.cpu.aligned import empty, flat, zeros
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, store_first
from mixers.cpu.simd import zeros as zero_vector

_TASK_VALUES = 16384


@kernel
def _pool_rows(x, y, h, w, c, rows, counter):
    """One row of blocks per task: the mean of four tokens."""
    for task in tasks(counter):
        item, row = task // rows, task % rows
        upper = (item * h + 2 * row) * w * c
        for q in range(w // 2):
            for j in range(0, c, lanes(x)):
                count = min(lanes(x), c - j)
                a = upper + 2 * q * c + j
                b = a + w * c
                total = load_first(x, a, count) + load_first(x, a + c, count)
                total = total + load_first(x, b, count) + load_first(x, b + c, count)
                store_first(y, (task * (w // 2) + q) * c + j, total * 0.25, count)


@kernel
def _unpool_rows(dy, dx, h, w, c, counter):
    """One row of dx per task: a quarter of the block's cotangent, zero where a row or column was dropped."""
    for task in tasks(counter):
        item, p = task // h, task % h
        line = (item * (h // 2) + p // 2) * (w // 2)
        for q in range(w):
            inside = p // 2 < h // 2 and q // 2 < w // 2
            for j in range(0, c, lanes(dy)):
                count = min(lanes(dy), c - j)
                value = zero_vector(dy)
                if inside:
                    value = load_first(dy, (line + q // 2) * c + j, count) * 0.25
                store_first(dx, (task * w + q) * c + j, value, count)


@kernel
def _copy_cells(x, y, rows, columns, h, w, c, high, wide, counter):
    """One row of the large grid per task."""
    for task in tasks(counter):
        item, p = task // high, task % high
        line = (item * h + rows[p]) * w
        for q in range(wide):
            for j in range(0, c, lanes(x)):
                count = min(lanes(x), c - j)
                store_first(
                    y, (task * wide + q) * c + j, load_first(x, (line + columns[q]) * c + j, count), count
                )


@kernel
def _sum_cells(dy, dx, rows, columns, h, w, c, high, wide, counter):
    """One row of the small grid per task; rows[i] .. rows[i + 1] are the lines that token row i covers."""
    for task in tasks(counter):
        item, i = task // h, task % h
        for k in range(w):
            for j in range(0, c, lanes(dy)):
                count = min(lanes(dy), c - j)
                total = zero_vector(dy)
                for p in range(rows[i], rows[i + 1]):
                    for q in range(columns[k], columns[k + 1]):
                        total = total + load_first(dy, ((item * high + p) * wide + q) * c + j, count)
                store_first(dx, (task * w + k) * c + j, total, count)


@kernel
def _mean_lines(x, y, outer, n, inner, size, counter):
    """y[o, i] = mean over n of x[o, n, i], for runs of `size` values of i."""
    runs = -(-inner // size)
    for task in tasks(counter):
        o, first = task // runs, task % runs * size
        for i in range(first, min(inner, first + size), lanes(x)):
            count = min(lanes(x), inner - i)
            total = zero_vector(x)
            for k in range(n):
                total = total + load_first(x, (o * n + k) * inner + i, count)
            store_first(y, o * inner + i, total / n, count)


@kernel
def _spread_lines(dy, dx, outer, n, inner, rows, counter):
    """dx[o, n, i] = dy[o, i] / n; a task takes some of the outer * n lines."""
    for task in tasks(counter):
        for line in range(task * rows, min(outer * n, (task + 1) * rows)):
            for i in range(0, inner, lanes(dy)):
                count = min(lanes(dy), inner - i)
                value = load_first(dy, line // n * inner + i, count) / n
                store_first(dx, line * inner + i, value, count)


def avg_pool_2x2_forward(x, save=True):
    """Rows of blocks are independent."""
    b, h, w, c = x.shape
    y = empty((b, h // 2, w // 2, c), x.dtype)
    run(_pool_rows, b * (h // 2), flat(x), y.reshape(-1), h, w, c, h // 2, work=2 * x.size)
    return y, ()


def avg_pool_2x2_backward(dout, saved):
    """Rows of dx are independent."""
    b, h, w, c = saved.x.shape
    dx = empty(saved.x.shape, dout.dtype)
    run(_unpool_rows, b * h, flat(dout), dx.reshape(-1), h, w, c, work=2 * dx.size)
    return (dx,)


def nearest_upsample_forward(x, grid=None, save=True):
    """Rows of the large grid are independent."""
    b, h, w, c = x.shape
    y = empty((b, *grid, c), x.dtype)
    rows, columns = (numpy.arange(big) * small // big for big, small in zip(grid, (h, w)))
    run(_copy_cells, b * grid[0], flat(x), y.reshape(-1), rows, columns, h, w, c, *grid, work=2 * y.size)
    return y, ()


def nearest_upsample_backward(dout, saved):
    """A token of the small grid sums a rectangle: cell i owns the rows ceil(i H / h) .. ceil((i + 1) H / h) - 1."""
    b, h, w, c = saved.x.shape
    dx = empty(saved.x.shape, dout.dtype)
    rows, columns = (-(-numpy.arange(small + 1) * big // small) for big, small in zip(saved.grid, (h, w)))
    args = flat(dout), dx.reshape(-1), rows, columns, h, w, c, *saved.grid
    run(_sum_cells, b * h, *args, work=2 * dout.size)
    return (dx,)


def token_mean_forward(x, axes=None, save=True):
    """Means over neighbouring axes are taken at once; others axis by axis, from the last."""
    axes = _axes(x, axes)
    y = x
    for first, last in reversed(_runs(axes)):
        outer, n = math.prod(y.shape[:first]), math.prod(y.shape[first : last + 1])
        y = _mean(y, outer, n, y.shape[:first] + y.shape[last + 1 :])
    return y, ()


def token_mean_backward(dout, saved):
    """Each token of a run gets its share; from the first run, so that the others are still merged."""
    shape = saved.x.shape
    dx = dout
    for first, last in _runs(_axes(saved.x, saved.axes)):
        outer, n = math.prod(shape[:first]), math.prod(shape[first : last + 1])
        dx = _spread(dx, outer, n, shape[: last + 1] + dx.shape[first:])
    return (dx,)


# lines of one long mean that are summed at a time: bounds the rounding error and gives the threads work
_LINES = 64


def _mean(x, outer, n, shape):
    inner = math.prod(shape) // outer if outer else 0
    y = empty(shape, x.dtype)
    if not y.size:
        return y
    if n > 2 * _LINES:
        # sums of blocks of lines first
        for o, line in enumerate(x.reshape(outer, n, inner)):
            y.reshape(outer, inner)[o] = sum_rows(line) / n
        return y
    size = max(lanes(x), _TASK_VALUES // n // lanes(x) * lanes(x))
    run(
        _mean_lines, outer * -(-inner // size), flat(x), y.reshape(-1), outer, n, inner, size, work=2 * x.size
    )
    return y


def _spread(dy, outer, n, shape):
    dx = empty(shape, dy.dtype) if math.prod(shape) else zeros(shape, dy.dtype)
    if dx.size:
        inner = dx.size // (outer * n)
        rows = max(1, _TASK_VALUES // inner)
        args = flat(dy), dx.reshape(-1), outer, n, inner, rows
        run(_spread_lines, -(-outer * n // rows), *args, work=2 * dx.size)
    return dx


def _axes(x, axes):
    return tuple(range(1, x.ndim - 1)) if axes is None else tuple(sorted(a % x.ndim for a in axes))


def _runs(axes):
    """(first, last) of each run of neighbouring axes."""
    runs = []
    for axis in axes:
        if runs and runs[-1][1] == axis - 1:
            runs[-1] = runs[-1][0], axis
        else:
            runs.append((axis, axis))
    return runs
