"""Token linears inside and across windows in NumPy."""

import numpy


def window_linear_forward(x, w, b=None, size=None, across=False, save=True):
    """y = w x + b over the tokens of each set."""
    y = numpy.einsum("nm,bsmc->bsnc", w, _sets(x, size, across))
    if b is not None:
        y = y + b[:, None]
    return _image(y, x.shape, size, across), ()


def window_linear_backward(dout, saved):
    """dx = w^T dy, dw = sum dy x^T, db = sum dy, over the same sets."""
    x, dy = (_sets(a, saved.size, saved.across) for a in (saved.x, dout))
    dx = _image(numpy.einsum("nm,bsnc->bsmc", saved.w, dy), saved.x.shape, saved.size, saved.across)
    dw = numpy.einsum("bsnc,bsmc->nm", dy, x)
    return dx, dw, None if saved.b is None else dy.sum(axis=(0, 1, 3))


# axes of (b, p, i, q, j, c): window row, row in it, window column, column in it
_INSIDE = (0, 1, 3, 2, 4, 5)
_ACROSS = (0, 2, 4, 1, 3, 5)


def _cells(shape, size, across):
    """(b, p, i, q, j, c) of an image."""
    b, h, w, c = shape
    if across:
        return b, size[0], h // size[0], size[1], w // size[1], c
    return b, h // size[0], size[0], w // size[1], size[1], c


def _sets(x, size, across):
    """(b, sets, tokens of a set, c): one set per window, or per place inside the windows."""
    cells = x.reshape(_cells(x.shape, size, across)).transpose(_ACROSS if across else _INSIDE)
    b, s0, s1, n0, n1, c = cells.shape
    return cells.reshape(b, s0 * s1, n0 * n1, c)


def _image(sets, shape, size, across):
    """The inverse of _sets."""
    b, gh, fh, gw, fw, c = _cells(shape, size, across)
    if across:
        return sets.reshape(b, fh, fw, gh, gw, c).transpose(0, 3, 1, 4, 2, 5).reshape(shape)
    return sets.reshape(b, gh, gw, fh, fw, c).transpose(0, 1, 3, 2, 4, 5).reshape(shape)
