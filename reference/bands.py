"""Bands of frequencies in NumPy."""

from typing import NamedTuple

import numpy

from mixers.reference import elementwise, norm


def band_mean_forward(x, bands, save=True):
    """The mean of each band, one after the other."""
    flat = x.reshape(x.shape[0], _count(x), x.shape[-1])
    means = [flat[:, members].mean(axis=1) for members in _bands(x, bands)]
    return numpy.stack(means, axis=1).astype(x.dtype), ()


def band_mean_backward(dout, saved):
    """dx = dy / n in every band, n its size."""
    dx = numpy.empty((saved.x.shape[0], _count(saved.x), saved.x.shape[-1]), dout.dtype)
    for k, members in enumerate(_bands(saved.x, saved.bands)):
        dx[:, members] = dout[:, k, None] / len(members)
    return (dx.reshape(saved.x.shape),)


def band_scale_forward(x, gain, save=True):
    """y = gain x in every band."""
    y = x.reshape(x.shape[0], _count(x), x.shape[-1]).copy()
    for k, members in enumerate(_bands(x, gain.shape[1])):
        y[:, members] *= gain[:, k, None]
    return y.reshape(x.shape), ()


def band_scale_backward(dout, saved):
    """dx = gain dy, dgain = sum x dy over the band."""
    dx, _ = band_scale_forward(dout, saved.gain)
    flat = (saved.x * dout).reshape(dx.shape[0], _count(dx), dx.shape[-1])
    sums = [flat[:, members].sum(axis=1) for members in _bands(dx, saved.gain.shape[1])]
    return dx, numpy.stack(sums, axis=1)


def band_weights_forward(z, scale, bias, w1, w2, b1=None, b2=None, eps=1e-5, save=True):
    """Norm, MLP and softmax with the bands last."""
    _, _, logits = _network(z, scale, bias, w1, w2, b1, b2, eps)
    return _softmax(logits).swapaxes(1, 2).copy(), ()


def band_weights_backward(dout, saved):
    """Backward of the steps in reverse.

    forward was: n = norm(z); h = n w1 + b1; o = gelu(h) w2 + b2; y = softmax(o).
    dy_k / do_j = y_k ([k = j] - y_j), so do = y (dy - sum_k y_k dy_k). Through the products: dgelu = do w2^T,
    dh = gelu'(h) dgelu and dn = dh w1^T; a weight gets what enters it times what leaves it, summed over items and
    channels. The norm's own backward gives dz.
    """
    s = saved
    n, h, logits = _network(s.z, s.scale, s.bias, s.w1, s.w2, s.b1, s.b2, s.eps)
    y, dy = _softmax(logits), dout.swapaxes(1, 2)
    do = y * (dy - (y * dy).sum(axis=-1, keepdims=True))
    v, _ = elementwise.gelu_forward(h)
    (dh,) = elementwise.gelu_backward(do @ s.w2.T, _Step(h))
    x = s.z.swapaxes(1, 2)
    _, (mean, rstd) = norm.layer_norm_forward(x, s.scale, s.bias, s.eps)
    dz, dscale, dbias = norm.layer_norm_backward(dh @ s.w1.T, _Norm(x, s.scale, s.bias, mean, rstd))
    return (
        dz.swapaxes(1, 2).copy(),
        dscale,
        dbias,
        _weight_gradient(n, dh),
        _weight_gradient(v, do),
        None if s.b1 is None else dh.sum(axis=(0, 1)),
        None if s.b2 is None else do.sum(axis=(0, 1)),
    )


class _Step(NamedTuple):
    """What the backward of an activation takes."""

    x: numpy.ndarray


class _Norm(NamedTuple):
    """What the backward of a layer norm takes."""

    x: numpy.ndarray
    scale: numpy.ndarray
    bias: numpy.ndarray
    mean: numpy.ndarray
    rstd: numpy.ndarray


def _network(z, scale, bias, w1, w2, b1, b2, eps):
    """The normalised z, the hidden values and the logits, all with the bands or hidden values last."""
    n, _ = norm.layer_norm_forward(z.swapaxes(1, 2), scale, bias, eps)
    h = n @ w1 if b1 is None else n @ w1 + b1
    o = elementwise.gelu_forward(h)[0] @ w2
    return n, h, o if b2 is None else o + b2


def _softmax(logits):
    e = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _weight_gradient(entering, leaving):
    return numpy.einsum("bcj,bck->jk", entering, leaving)


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
