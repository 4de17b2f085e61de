"""Linear maps on the CPU."""

import math

import numpy

from mixers.cpu import aligned
from mixers.cpu.reduction import sum_rows


def linear_forward(x, w, b=None, save=True):
    """All tokens are the rows of one product."""
    rows = _rows(x)
    y = aligned.empty((rows.shape[0], w.shape[1]), x.dtype)
    numpy.matmul(rows, aligned.contiguous(w), out=y)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), ()


def linear_backward(dout, saved):
    """dx = dy w^T, dw = x^T dy, db = sum dy."""
    rows, drows = _rows(saved.x), _rows(dout)
    dx = aligned.empty(rows.shape, rows.dtype)
    numpy.matmul(drows, aligned.contiguous(saved.w).T, out=dx)
    dw = numpy.matmul(rows.T, drows)
    return dx.reshape(saved.x.shape), dw, (None if saved.b is None else sum_rows(drows))


def axis_linear_forward(x, w, b=None, axis=1, save=True):
    """One product per position before the axis, with everything behind the axis as columns."""
    axis %= x.ndim
    stack = _stack(x, axis)
    y = aligned.empty((stack.shape[0], w.shape[0], stack.shape[2]), x.dtype)
    numpy.matmul(aligned.contiguous(w), stack, out=y)
    if b is not None:
        y += b[:, None]
    return y.reshape(*x.shape[:axis], w.shape[0], *x.shape[axis + 1 :]), ()


def axis_linear_backward(dout, saved):
    """dx = w^T dy, dw = sum dy x^T, db = sum dy."""
    stack, dstack = (_stack(a, saved.axis % a.ndim) for a in (saved.x, dout))
    dx = aligned.empty(stack.shape, stack.dtype)
    numpy.matmul(aligned.contiguous(saved.w).T, dstack, out=dx)
    dw = numpy.matmul(dstack, stack.swapaxes(1, 2)).sum(axis=0)
    db = None if saved.b is None else dstack.sum(axis=2).sum(axis=0)
    return dx.reshape(saved.x.shape), dw, db


def _rows(array):
    """The array as (tokens, channels)."""
    return aligned.contiguous(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _stack(array, axis):
    """The array as (everything before the axis, the axis, everything behind it)."""
    before, behind = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    return aligned.contiguous(array).reshape(before, array.shape[axis], behind)
