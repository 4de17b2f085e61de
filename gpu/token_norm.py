"""Norms with statistics over tokens on the GPU.

Everything is seen as (items, rows, c): one item of all rows for batch norm, one per batch item for group
norm. Kernels sum over blocks of rows; the small tables of block sums are combined in float64 by the arrays'
own operators.
"""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_LANES, _STRIPES = 32, 8
_BLOCK_ROWS = 512


def batch_norm_forward(x, scale, bias, mean, var, eps=1e-5, training=False, save=True):
    grid = _Grid(x, 1)
    m, v = mean, var
    if training:
        m, v = (s.reshape(grid.c).astype(scale.dtype) for s in _statistics(x, grid, grid.c))
    rstd = ((v.astype(numpy.float64) + eps) ** -0.5).astype(scale.dtype)
    y = _affine(x, grid, m, rstd * scale, bias)
    return (y, m, v) if training else (y, None, None), (m, rstd)


def batch_norm_backward(dout, saved):
    x, scale, rstd = saved.x, saved.scale, saved.rstd
    grid = _Grid(x, 1)
    dy = grid.device.zeros(x.shape, x.dtype) if dout.y is None else dout.y
    dbias, dscale = (s.reshape(grid.c) for s in _sums(x, dy, grid, saved.centre, rstd))
    shift, slope = rstd * 0, rstd * 0
    if saved.training:
        count = x.size // grid.c
        shift = rstd * scale * dbias / count
        slope = rstd * rstd * scale * dscale / count
        if dout.batch_mean is not None:
            shift = shift - dout.batch_mean / count
        if dout.batch_var is not None:
            slope = slope - 2.0 * dout.batch_var / count
    dx = _pulled(x, dy, grid, saved.centre, rstd * scale, shift, slope)
    return dx, dscale.astype(scale.dtype), dbias.astype(scale.dtype), None, None


def group_norm_forward(x, scale=None, bias=None, groups=1, eps=1e-5, save=True):
    grid = _Grid(x, x.shape[0])
    mean, var = _statistics(x, grid, groups)
    rstd = (var + eps) ** -0.5
    factor = _spread(rstd, grid.c)
    if scale is not None:
        factor = factor * scale
    if bias is None:
        bias = grid.device.zeros(grid.c, grid.wide)
    y = _affine(x, grid, _spread(mean, grid.c), factor, bias)
    return y, (mean.astype(grid.wide), rstd.astype(grid.wide))


def group_norm_backward(dout, saved):
    x = saved.x
    grid = _Grid(x, x.shape[0])
    mean, rstd = (_spread(a.astype(numpy.float64), grid.c) for a in (saved.mean, saved.rstd))
    sums, dots = _sums(x, dout, grid, mean, rstd)
    factor, weighed = rstd, (sums, dots)
    if saved.scale is not None:
        factor, weighed = rstd * saved.scale, (sums * saved.scale, dots * saved.scale)
    count = max(grid.rows * (grid.c // saved.groups), 1)
    shift, slope = (
        rstd
        * _spread(s.reshape(grid.items, saved.groups, grid.c // saved.groups).sum(axis=2) / count, grid.c)
        for s in weighed
    )
    dx = _pulled(x, dout, grid, mean, factor, shift, rstd * slope)
    dscale = None if saved.scale is None else dots.sum(axis=0).astype(grid.wide)
    return dx, dscale, None if saved.bias is None else sums.sum(axis=0).astype(grid.wide)


class _Grid:
    """How (items, rows, c) is cut into blocks of rows, and the launches over it."""

    def __init__(self, x, items):
        self.device, self.dtype = device_of(x), x.dtype
        self.wide = numpy.float64 if x.dtype == numpy.float64 else numpy.float32
        self.items, self.c = items, x.shape[-1]
        self.rows = math.prod(x.shape[:-1]) // items if items else 0
        self.size = _BLOCK_ROWS
        self.blocks = -(-self.rows // self.size)

    def launch(self, name, *arrays):
        """Run a kernel of token_norm.cu over all blocks."""
        if self.items and self.rows and self.c:
            kernel = Kernel(name, "token_norm.cu", T=c_type(self.dtype))
            sizes = map(numpy.int32, (self.rows, self.c, self.size, self.blocks))
            contiguous = [self.device.contiguous(a) for a in arrays]
            grid = (self.items * self.blocks, -(-self.c // _LANES))
            self.device.launch(kernel, grid, (_LANES, _STRIPES), (*contiguous, *sizes))

    def tables(self):
        """Two tables of sums per item, block of rows and channel."""
        return [self.device.empty((self.items, self.blocks, self.c), self.wide) for _ in range(2)]

    def counts(self):
        """Rows of each block, (blocks, 1, 1)."""
        ends = numpy.minimum(numpy.arange(1, self.blocks + 1) * self.size, self.rows)
        return self.device.to_device(numpy.diff(ends, prepend=0)[:, None, None].astype(numpy.float64))


def _statistics(x, grid, groups):
    """Mean and biased variance of each item and group, float64: the moments of the blocks, combined.

    The variance of a union is that within its parts plus that of their means (Chan et al. 1979).
    """
    means, squares = grid.tables()
    grid.launch("moments", x, means, squares)
    shape = (grid.items, grid.blocks, groups, grid.c // groups)
    means, squares = (a.astype(numpy.float64).reshape(shape) for a in (means, squares))
    weights = grid.counts()
    count = max(grid.rows * (grid.c // groups), 1)
    mean = (means * weights).sum(axis=(1, 3)) / count
    between = (weights * (means - mean[:, None, :, None]) ** 2).sum(axis=(1, 3))
    return mean, (squares.sum(axis=(1, 3)) + between) / count


def _sums(x, dy, grid, centre, rstd):
    """Sums over the rows of dy and of dy n per item and channel, float64."""
    sums, dots = grid.tables()
    grid.launch("products", x, dy, centre.astype(grid.wide), rstd.astype(grid.wide), sums, dots)
    return (a.astype(numpy.float64).sum(axis=1) for a in (sums, dots))


def _affine(x, grid, centre, factor, bias):
    y = grid.device.empty(x.shape, x.dtype)
    grid.launch("normalise", x, y, *(a.astype(grid.wide) for a in (centre, factor, bias)))
    return y


def _pulled(x, dy, grid, centre, factor, shift, slope):
    dx = grid.device.empty(x.shape, x.dtype)
    grid.launch("pull", x, dy, dx, *(a.astype(grid.wide) for a in (centre, factor, shift, slope)))
    return dx


def _spread(per_group, c):
    """(items, groups) -> (items, c)."""
    return per_group.repeat(c // max(per_group.shape[1], 1), axis=1)
