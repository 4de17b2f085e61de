"""Kolmogorov-Arnold layers on the windows of an image in NumPy."""

import numpy

from mixers.reference.kan_layer import expand


def kan_conv2d_forward(
    x, w, basis="bspline", order=3, low=-1.0, high=1.0, width=None, stride=1, padding=0, save=True
):
    """Expand the padded pixels; then one tap of the window at a time."""
    options = basis, order, low, high, width
    beta = _expand(x, w.shape[3], options, padding).values
    taps = [
        numpy.einsum("bpqcg,cgo->bpqo", beta[:, rows, columns], w[i, j])
        for i, j, rows, columns in _taps(beta, w.shape[0], stride)
    ]
    return sum(taps), ()


def kan_conv2d_backward(dout, saved):
    """E = sum over the taps of dy w^T, where each tap was taken; dx = sum_g beta' E; dw = sum of beta dy."""
    x, w, padding = saved.x, saved.w, saved.padding
    options = saved.basis, saved.order, saved.low, saved.high, saved.width
    found = _expand(x, w.shape[3], options, padding)
    e, dw = numpy.zeros_like(found.values), numpy.empty_like(w)
    for i, j, rows, columns in _taps(e, w.shape[0], saved.stride):
        e[:, rows, columns] += numpy.einsum("bpqo,cgo->bpqcg", dout, w[i, j])
        dw[i, j] = numpy.einsum("bpqcg,bpqo->cgo", found.values[:, rows, columns], dout)
    dx = (e * found.by_x).sum(axis=-1)
    return dx[:, padding : padding + x.shape[1], padding : padding + x.shape[2]].copy(), dw


def _expand(x, g, options, padding):
    padded = numpy.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return expand(padded, g, None, None, *options)


def _taps(padded, size, stride):
    """Each tap, with the slices of the rows and columns that it sees."""
    for i in range(size):
        for j in range(size):
            yield (
                i,
                j,
                *(
                    slice(start, start + (n - size) // stride * stride + 1, stride)
                    for start, n in ((i, padded.shape[1]), (j, padded.shape[2]))
                ),
            )
