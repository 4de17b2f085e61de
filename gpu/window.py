"""Token linears inside and across windows on the GPU.

The tokens of each set are brought together by one copy, then cuBLAS multiplies all sets at once.
"""

import math
from typing import NamedTuple

from mixers.gpu import linear
from mixers.gpu.device import device_of


def window_linear_forward(x, w, b=None, size=None, across=False, save=True):
    y, _ = linear.axis_linear_forward(_sets(x, size, across), w, b, axis=1)
    return _image(y, x.shape, size, across), ()


def window_linear_backward(dout, saved):
    x, dy = (_sets(a, saved.size, saved.across) for a in (saved.x, dout))
    dx, dw, db = linear.axis_linear_backward(dy, _AxisSaved(x, saved.w, saved.b))
    return _image(dx, saved.x.shape, saved.size, saved.across), dw, db


class _AxisSaved(NamedTuple):
    """What the backward of a linear along axis 1 needs."""

    x: object
    w: object
    b: object
    axis: int = 1


# axes of (b, p, i, q, j, c): window row, row in it, window column, column in it
_INSIDE, _INSIDE_BACK = (0, 1, 3, 2, 4, 5), (0, 1, 3, 2, 4, 5)
_ACROSS, _ACROSS_BACK = (0, 2, 4, 1, 3, 5), (0, 3, 1, 4, 2, 5)


def _cells(shape, size, across):
    """(b, p, i, q, j, c) of an image."""
    b, h, w, c = shape
    if across:
        return b, size[0], h // size[0], size[1], w // size[1], c
    return b, h // size[0], size[0], w // size[1], size[1], c


def _sets(x, size, across):
    """(b sets, tokens of a set, c): one set per window, or per place inside the windows."""
    cells = device_of(x).contiguous(x).reshape(_cells(x.shape, size, across))
    cells = device_of(x).contiguous(cells.transpose(_ACROSS if across else _INSIDE))
    return cells.reshape(math.prod(cells.shape[:3]), size[0] * size[1], x.shape[3])


def _image(sets, shape, size, across):
    """The inverse of _sets."""
    cells = _cells(shape, size, across)
    moved = tuple(cells[i] for i in (_ACROSS if across else _INSIDE))
    back = sets.reshape(moved).transpose(_ACROSS_BACK if across else _INSIDE_BACK)
    return device_of(sets).contiguous(back).reshape(shape)
