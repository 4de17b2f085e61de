"""Bands of frequencies in NumPy."""

import numpy


def band_mean_forward(x, bands, save=True):
    """The mean of each band, one after the other."""
    flat = x.reshape(x.shape[0], _count(x), x.shape[-1])
    means = [flat[:, members].mean(axis=1) for members in _bands(x, bands)]
    return numpy.stack(means, axis=-1).astype(x.dtype), ()


def band_mean_backward(dout, saved):
    """dx = dy / n in every band, n its size."""
    dx = numpy.empty((saved.x.shape[0], _count(saved.x), saved.x.shape[-1]), dout.dtype)
    for k, members in enumerate(_bands(saved.x, saved.bands)):
        dx[:, members] = dout[:, None, :, k] / len(members)
    return (dx.reshape(saved.x.shape),)


def band_scale_forward(x, gain, save=True):
    """y = gain x in every band."""
    y = x.reshape(x.shape[0], _count(x), x.shape[-1]).copy()
    for k, members in enumerate(_bands(x, gain.shape[-1])):
        y[:, members] *= gain[:, None, :, k]
    return y.reshape(x.shape), ()


def band_scale_backward(dout, saved):
    """dx = gain dy, dgain = sum x dy over the band."""
    dx, _ = band_scale_forward(dout, saved.gain)
    flat = (saved.x * dout).reshape(dx.shape[0], _count(dx), dx.shape[-1])
    sums = [flat[:, members].sum(axis=1) for members in _bands(dx, saved.gain.shape[-1])]
    return dx, numpy.stack(sums, axis=-1)


def _bands(x, count):
    """The raster indices of the coefficients of every band."""
    grid = x.shape[1:-1]
    order = numpy.arange(_count(x)) if len(grid) == 1 else numpy.array(_zigzag(*grid), int)
    edges = [k * len(order) // count for k in range(count + 1)]
    return [order[begin:end] for begin, end in zip(edges, edges[1:])]


def _zigzag(h, w):
    """Antidiagonal by antidiagonal: odd ones from the top right down, even ones from the bottom left up."""
    order = []
    for s in range(h + w - 1):
        cells = [i * w + s - i for i in range(h) if 0 <= s - i < w]
        order += cells if s % 2 == 1 else cells[::-1]
    return order


def _count(x):
    return int(numpy.prod(x.shape[1:-1]))
