"""Changes of the token grid in NumPy."""

import math

import numpy


def avg_pool_2x2_forward(x, save=True):
    """y = mean of the four cells of each block."""
    return _blocks(x).mean(axis=(2, 4)), ()


def avg_pool_2x2_backward(dout, saved):
    """dx = dy / 4 on the cells of a block, 0 on what was dropped."""
    dx = numpy.zeros_like(saved.x)
    h, w = dout.shape[1:3]
    dx[:, : 2 * h, : 2 * w] = (dout / 4).repeat(2, axis=1).repeat(2, axis=2)
    return (dx,)


def nearest_upsample_forward(x, grid=None, save=True):
    """y[p, q] = x[p h // H, q w // W]."""
    rows, columns = _sources(x.shape, grid)
    return x[:, rows][:, :, columns], ()


def nearest_upsample_backward(dout, saved):
    """dx = sum of dy over the cells that read a token."""
    rows, columns = _sources(saved.x.shape, saved.grid)
    dx = numpy.zeros_like(saved.x)
    numpy.add.at(dx, (slice(None), rows[:, None], columns), dout)
    return (dx,)


def token_mean_forward(x, axes=None, save=True):
    """y = mean over the axes."""
    return x.mean(axis=_axes(x, axes)), ()


def token_mean_backward(dout, saved):
    """dx = dy / count, the same for all tokens that were averaged."""
    x = saved.x
    axes = _axes(x, saved.axes)
    count = math.prod(x.shape[a] for a in axes)
    return (numpy.broadcast_to(numpy.expand_dims(dout / count, axes), x.shape).astype(x.dtype),)


def _blocks(x):
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


def _sources(shape, grid):
    return tuple(numpy.arange(big) * small // big for big, small in zip(grid, shape[1:3]))


def _axes(x, axes):
    return tuple(range(1, x.ndim - 1)) if axes is None else tuple(sorted(a % x.ndim for a in axes))
