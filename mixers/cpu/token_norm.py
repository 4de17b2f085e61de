"""Norms with statistics over tokens.

Everything is seen as (items, rows, c): one item of all rows for batch norm, one per batch item for group
norm. Each task takes a block of rows that fits a cache; sums of blocks are combined in a fixed order.
"""

import math

import numpy

from mixers.cpu.aligned import contiguous, empty, flat
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, mul_add, tile, zeros
from mixers.cpu.tails import get, put

# values of a block of rows: they are swept twice, so they should stay in the second-level cache
_BLOCK_VALUES = 16384


# vectors of channels whose sums are in registers together
_VECTORS = 4


@helper
def _column_moments(x, means, squares, start, to, count, c, rest, whole):
    """Of some vectors of channels; `rest` channels are left."""
    total, square, left = tile(x, _VECTORS), tile(x, _VECTORS), tile(x, _VECTORS)
    for v in range(_VECTORS):
        total[v], square[v], left[v] = zeros(x), zeros(x), zeros(x)
    for r in range(count):
        for v in range(_VECTORS):
            width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
            total[v] = total[v] + get(x, start + r * c + v * lanes(x), width)
    for v in range(_VECTORS):
        total[v] = total[v] / count
    for r in range(count):
        for v in range(_VECTORS):
            width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
            centred = get(x, start + r * c + v * lanes(x), width) - total[v]
            square[v] = mul_add(centred, centred, square[v])
            left[v] = left[v] + centred
    for v in range(_VECTORS):
        width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
        # a large common offset costs the first mean digits; what it left over corrects both
        put(means, to + v * lanes(x), total[v] + left[v] / count, width)
        put(squares, to + v * lanes(x), square[v] - left[v] * left[v] / count, width)


@kernel
def _moments(x, means, squares, rows, c, size, blocks, counter):
    """Mean and sum of centred squares of each block of rows, per channel."""
    for task in tasks(counter):
        item, block = task // blocks, task % blocks
        first = block * size
        count = min(rows - first, size)
        for j in range(0, c, _VECTORS * lanes(x)):
            start, to = (item * rows + first) * c + j, task * c + j
            # two calls, so that one is compiled for full vectors
            if c - j >= _VECTORS * lanes(x):
                _column_moments(x, means, squares, start, to, count, c, c - j, True)
            else:
                _column_moments(x, means, squares, start, to, count, c, c - j, False)


@kernel
def _normalise(x, y, centre, factor, bias, rows, c, size, blocks, counter):
    """y = (x - centre) factor + bias, all three per item and channel."""
    for task in tasks(counter):
        item, block = task // blocks, task % blocks
        first = block * size
        for r in range(first, min(rows, first + size)):
            for j in range(0, c, lanes(x)):
                width = min(c - j, lanes(x))
                at, p = (item * rows + r) * c + j, item * c + j
                centred = get(x, at, width) - get(centre, p, width)
                value = mul_add(centred, get(factor, p, width), get(bias, j, width))
                put(y, at, value, width)


@helper
def _column_products(x, dy, dx, centre, rstd, factor, sums, dots, start, p, to, count, c, rest, whole, pulls):
    """Of some vectors of channels; `rest` channels are left."""
    total, dot = tile(x, _VECTORS), tile(x, _VECTORS)
    middle, scale, slope = tile(x, _VECTORS), tile(x, _VECTORS), tile(x, _VECTORS)
    for v in range(_VECTORS):
        width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
        at = p + v * lanes(x)
        total[v], dot[v] = zeros(x), zeros(x)
        middle[v], scale[v] = get(centre, at, width), get(rstd, at, width)
        slope[v] = get(factor, at, width)
    for r in range(count):
        for v in range(_VECTORS):
            width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
            at = start + r * c + v * lanes(x)
            d = get(dy, at, width)
            n = (get(x, at, width) - middle[v]) * scale[v]
            total[v] = total[v] + d
            dot[v] = mul_add(d, n, dot[v])
            if pulls:
                put(dx, at, d * slope[v], width)
    for v in range(_VECTORS):
        width = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
        put(sums, to + v * lanes(x), total[v], width)
        put(dots, to + v * lanes(x), dot[v], width)


@kernel
def _products(x, dy, dx, centre, rstd, factor, sums, dots, rows, c, size, blocks, pulls, counter):
    """Sums of dy and of dy n over each block of rows, n = (x - centre) rstd; with `pulls` also dx = dy factor."""
    for task in tasks(counter):
        item, block = task // blocks, task % blocks
        first = block * size
        count = min(rows - first, size)
        arrays = x, dy, dx, centre, rstd, factor, sums, dots
        for j in range(0, c, _VECTORS * lanes(x)):
            place = (item * rows + first) * c + j, item * c + j, task * c + j, count, c, c - j
            # one call for each kind, so that it is compiled for it
            if c - j < _VECTORS * lanes(x):
                _column_products(*arrays, *place, False, pulls)
            elif pulls:
                _column_products(*arrays, *place, True, True)
            else:
                _column_products(*arrays, *place, True, False)


@kernel
def _pull(x, dy, dx, centre, factor, shift, slope, rows, c, size, blocks, counter):
    """dx = dy factor - shift - (x - centre) slope, all per item and channel."""
    for task in tasks(counter):
        item, block = task // blocks, task % blocks
        first = block * size
        for r in range(first, min(rows, first + size)):
            for j in range(0, c, lanes(x)):
                width = min(c - j, lanes(x))
                at, p = (item * rows + r) * c + j, item * c + j
                centred = get(x, at, width) - get(centre, p, width)
                value = get(dy, at, width) * get(factor, p, width)
                value = value - get(shift, p, width) - centred * get(slope, p, width)
                put(dx, at, value, width)


def batch_norm_forward(x, scale, bias, mean, var, eps=1e-5, training=False, save=True):
    """One item of all rows."""
    grid = _Grid(x, 1)
    m, v = mean, var
    if training:
        m, v = (s[0].astype(x.dtype) for s in _statistics(x, grid, groups=x.shape[-1]))
    rstd = (1.0 / numpy.sqrt(v.astype(numpy.float64) + eps)).astype(x.dtype)
    y = _affine(x, grid, m, rstd * scale, bias)
    return (y, m, v) if training else (y, None, None), (m, rstd)


def batch_norm_backward(dout, saved):
    """The map of group norm over one item; an affine one if the statistics were given."""
    x, scale, rstd = saved.x, saved.scale, saved.rstd
    dy = numpy.zeros_like(x) if dout.y is None else dout.y
    grid = _Grid(x, 1)
    affine = None if saved.training else (empty(x.shape, x.dtype), rstd * scale)
    dbias, dscale = (s[0] for s in _sums(x, dy, grid, saved.centre, rstd, affine))
    if saved.training:
        count = x.size // x.shape[-1]
        shift = rstd * scale * dbias / count
        slope = rstd * rstd * scale * dscale / count
        if dout.batch_mean is not None:
            shift = shift - dout.batch_mean / count
        if dout.batch_var is not None:
            slope = slope - 2.0 * dout.batch_var / count
        dx = _pulled(x, dy, grid, saved.centre, rstd * scale, shift, slope)
    else:
        dx, _ = affine
    return dx, dscale.astype(x.dtype), dbias.astype(x.dtype), None, None


def group_norm_forward(x, scale=None, bias=None, groups=1, eps=1e-5, save=True):
    """One item per batch item."""
    c = x.shape[-1]
    grid = _Grid(x, x.shape[0])
    mean, var = _statistics(x, grid, groups)
    rstd = 1.0 / numpy.sqrt(var + eps)
    factor = _spread(rstd, c) * (1.0 if scale is None else scale)
    y = _affine(x, grid, _spread(mean, c), factor, numpy.zeros(c) if bias is None else bias)
    return y, (mean.astype(x.dtype), rstd.astype(x.dtype))


def group_norm_backward(dout, saved):
    """dx = rstd (q - mean(q) - n mean(q n)), the means from the sums per channel."""
    x, c = saved.x, saved.x.shape[-1]
    grid = _Grid(x, x.shape[0])
    mean, rstd = _spread(saved.mean, c), _spread(saved.rstd, c)
    sums, dots = _sums(x, dout, grid, mean, rstd)
    scale = numpy.ones(c) if saved.scale is None else saved.scale.astype(numpy.float64)
    count = max(grid.rows * (c // saved.groups), 1)
    shift = rstd * _spread(_over_groups(sums * scale, saved.groups) / count, c)
    slope = rstd * rstd * _spread(_over_groups(dots * scale, saved.groups) / count, c)
    dx = _pulled(x, dout, grid, mean, rstd * scale, shift, slope)
    dscale = None if saved.scale is None else dots.sum(axis=0).astype(x.dtype)
    return dx, dscale, None if saved.bias is None else sums.sum(axis=0).astype(x.dtype)


class _Grid:
    """How (items, rows, c) is cut into blocks of rows."""

    def __init__(self, x, items):
        self.items, self.c = items, x.shape[-1]
        self.rows = math.prod(x.shape[:-1]) // items if items else 0
        self.size = max(1, _BLOCK_VALUES // max(self.c, 1))
        self.blocks = -(-self.rows // self.size)
        self.tasks = self.items * self.blocks if self.c else 0
        self.layout = (self.rows, self.c, self.size, self.blocks)

    def counts(self):
        """Rows of each block, (blocks, 1)."""
        ends = numpy.minimum(numpy.arange(1, self.blocks + 1) * self.size, self.rows)
        return numpy.diff(ends, prepend=0)[:, None].astype(numpy.float64)


def _statistics(x, grid, groups):
    """Mean and biased variance of each item and group, float64: moments of the blocks.

    The variance of a union is that within its parts plus that of their means (Chan et al. 1979).
    """
    means, squares = (empty((grid.items, grid.blocks, grid.c), x.dtype) for _ in range(2))
    run(_moments, grid.tasks, contiguous(x), means, squares, *grid.layout, work=2 * x.size)
    shape = (grid.items, grid.blocks, groups, grid.c // groups)
    means, squares = (a.astype(numpy.float64).reshape(shape) for a in (means, squares))
    weights = grid.counts()[..., None]
    count = max(grid.rows * (grid.c // groups), 1)
    mean = (means * weights).sum(axis=(1, 3)) / count
    between = (weights * (means - mean[:, None, :, None]) ** 2).sum(axis=(1, 3))
    return mean, (squares.sum(axis=(1, 3)) + between) / count


def _sums(x, dy, grid, centre, rstd, affine=None):
    """Sums over the rows of dy and of dy n per item and channel, float64.

    With (dx, factor) as `affine` also sets dx = dy factor.
    """
    sums, dots = (empty((grid.items, grid.blocks, grid.c), x.dtype) for _ in range(2))
    dx, factor = affine or (sums, rstd)
    per_channel = [contiguous(a, x.dtype) for a in (centre, rstd, factor)]
    arrays = flat(x), flat(dy), dx.reshape(-1), *(a.reshape(-1) for a in (*per_channel, sums, dots))
    run(_products, grid.tasks, *arrays, *grid.layout, affine is not None, work=3 * x.size)
    return sums.sum(axis=1, dtype=numpy.float64), dots.sum(axis=1, dtype=numpy.float64)


def _affine(x, grid, centre, factor, bias):
    y = empty(x.shape, x.dtype)
    per_channel = [contiguous(a, x.dtype) for a in (centre, factor, bias)]
    run(_normalise, grid.tasks, contiguous(x), y, *per_channel, *grid.layout, work=2 * x.size)
    return y


def _pulled(x, dy, grid, centre, factor, shift, slope):
    dx = empty(x.shape, x.dtype)
    per_channel = [contiguous(a, x.dtype) for a in (centre, factor, shift, slope)]
    run(_pull, grid.tasks, contiguous(x), contiguous(dy), dx, *per_channel, *grid.layout, work=3 * x.size)
    return dx


def _spread(per_group, c):
    """(items, groups) -> (items, c)."""
    return numpy.repeat(per_group.astype(numpy.float64), c // max(per_group.shape[1], 1), axis=1)


def _over_groups(per_channel, groups):
    """Sums over the channels of each group: (items, c) -> (items, groups)."""
    items, c = per_channel.shape
    return per_channel.reshape(items, groups, c // groups).sum(axis=2)
