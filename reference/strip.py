"""Strips of an image, as defined."""

import numpy


def strip_linear_forward(x, w, b=None, axis=None, save=True):
    """One product per tap, on the strips moved by that tap."""
    strips = _strips(x, w, axis)
    y = numpy.zeros_like(strips)
    for t, moved in enumerate(_taps(strips, w.shape[1])):
        y += numpy.einsum("jnm,bsmij->bsnij", w[:, t], moved)
    if b is not None:
        y += b.T[:, None, :]
    return _image(y, x.shape, axis), ()


def strip_linear_backward(dout, saved):
    """Adjoint of each product, then of the move.

    forward was: y[s, n] = b[n] + sum_{t, m} w[t, n, m] x[s + t - r, m], r = k // 2. So strip s' of x meets
    dy[s' - t + r] through w[t]^T, dw[t, n, m] = sum dy[s, n] x[s + t - r, m] and db[n] = sum dy[s, n].
    """
    x, w, axis = saved.x, saved.w, saved.axis
    k = w.shape[1]
    strips, dstrips = _strips(x, w, axis), _strips(dout, w, axis)
    dx, dw = numpy.zeros_like(strips), numpy.zeros_like(w)
    for t, moved in enumerate(_taps(strips, k)):
        dw[:, t] = numpy.einsum("bsnij,bsmij->jnm", dstrips, moved)
    for t, moved in enumerate(_taps(dstrips, k)):
        dx += numpy.einsum("jnm,bsnij->bsmij", w[:, k - 1 - t], moved)
    db = None if saved.b is None else dstrips.sum(axis=(0, 1, 3)).T
    return _image(dx, x.shape, axis), dw, db


def relative_bias_forward(x, table, save=True):
    """y[i, k] = x[i, k] + table[clip(k - i, -m, m) + m]."""
    return x + table[_distances(x, table)], ()


def relative_bias_backward(dout, saved):
    """Every token adds its cotangent to the row of the table it read."""
    dtable = numpy.zeros_like(saved.table)
    numpy.add.at(dtable, _distances(saved.x, saved.table), dout.sum(axis=0))
    return dout.copy(), dtable


def _strips(x, w, axis):
    """(b, strips, positions, groups, J)."""
    b, height, width, c = x.shape
    cells = x.reshape(b, height, width, c // w.shape[0], w.shape[0])
    return cells if axis == "w" else cells.swapaxes(1, 2)


def _image(strips, shape, axis):
    return numpy.ascontiguousarray(strips if axis == "w" else strips.swapaxes(1, 2)).reshape(shape)


def _taps(strips, k):
    """For each tap the strips it reads: strip s + t - k // 2 in place of s."""
    reach = k // 2
    padded = numpy.pad(strips, ((0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)))
    return [padded[:, t : t + strips.shape[1]] for t in range(k)]


def _distances(x, table):
    """The row of the table that each token reads, (h, w)."""
    height, width = x.shape[1:3]
    m = len(table) // 2
    return numpy.clip(numpy.arange(width) - numpy.arange(height)[:, None], -m, m) + m
