"""Linear maps on the CPU: the products of mixers.cpu.matrix on the arrays' own memory."""

import math

from mixers.cpu import aligned, matrix
from mixers.cpu.reduction import sum_rows


def linear_forward(x, w, b=None, save=True):
    """All tokens are the rows of one product."""
    return matrix.linear(_rows(x), w, b).reshape(*x.shape[:-1], w.shape[1]), ()


def linear_backward(dout, saved):
    """dx = dy w^T, dw = x^T dy, db = sum dy."""
    rows, drows = _rows(saved.x), _rows(dout)
    dx = matrix.linear(drows, saved.w.T).reshape(saved.x.shape)
    dw = matrix.linear_weights(rows, drows)
    return dx, dw, (None if saved.b is None else sum_rows(drows))


def axis_linear_forward(x, w, b=None, axis=1, save=True):
    """One product per position before the axis; its columns are everything behind the axis."""
    axis %= x.ndim
    y = matrix.axis_linear(w, _stack(x, axis), b)
    return y.reshape(*x.shape[:axis], w.shape[0], *x.shape[axis + 1 :]), ()


def axis_linear_backward(dout, saved):
    """dx = w^T dy, dw = sum dy x^T, db = sum dy."""
    stack, dstack = (_stack(a, saved.axis % a.ndim) for a in (saved.x, dout))
    dx = matrix.axis_linear(saved.w.T, dstack).reshape(saved.x.shape)
    dw = matrix.axis_weights(dstack, stack)
    return dx, dw, (None if saved.b is None else dstack.sum(axis=2).sum(axis=0))


def _rows(array):
    """The array as (tokens, channels)."""
    return aligned.contiguous(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _stack(array, axis):
    """The array as (everything before the axis, the axis, everything behind it)."""
    before, behind = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    return aligned.contiguous(array).reshape(before, array.shape[axis], behind)
