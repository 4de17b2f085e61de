"""Linear maps on the CPU: the products of mixers.cpu.matrix on the arrays' own memory."""

import functools
import math

import numpy

from mixers.cpu import activations, aligned, matrix
from mixers.cpu.activations import activate, activate_derivative
from mixers.cpu.matrix import fill_panel, multiply_panel, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load, store, store_first

# steps of a long sum at a time
_DEPTH = 512


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
    return dx, dw, (None if saved.b is None else _sum_per_position(dstack))


def token_mlp_forward(x, w_in, w_out, b_in=None, b_out=None, activation="gelu", save=True):
    """A task is a panel of channels of one item; what lies between the products stays in its caches."""
    (b, l, c), (n, h) = x.shape, w_out.shape
    y = aligned.empty((b, n, c), x.dtype)
    hidden = aligned.empty((b, h, c) if save else (0,), x.dtype)
    run(
        _mlp_kernels(activations.number(activation))[0],
        _panels(x),
        *map(aligned.flat, (x, w_in, w_out)),
        *(_row_terms(x, terms) for terms in (b_in, b_out)),
        *(matrix.no_bias(x), hidden.reshape(-1), y.reshape(-1)),
        *(l, h, n, c, save),
        work=b * c * h * (l + n) / 10,
    )
    return y, (hidden if save else None,)


def token_mlp_backward(dout, saved):
    """dhidden, act(hidden) and dx in one pass, then the products that sum over batch and channels."""
    x, w_in, w_out, hidden = saved.x, saved.w_in, saved.w_out, saved.hidden
    (b, l, c), (n, h) = x.shape, w_out.shape
    dx, dhidden, v = (aligned.empty(a.shape, x.dtype) for a in (x, hidden, hidden))
    run(
        _mlp_kernels(activations.number(saved.activation))[1],
        _panels(x),
        *map(aligned.flat, (dout, hidden, w_in, w_out)),
        *(matrix.no_bias(x), dhidden.reshape(-1), v.reshape(-1), dx.reshape(-1)),
        *(l, h, n, c),
        work=b * c * h * (l + n) / 10,
    )
    dw_in, dw_out = matrix.axis_weights(dhidden, x), matrix.axis_weights(dout, v)
    db_in = None if saved.b_in is None else _sum_per_position(dhidden)
    return dx, dw_in, dw_out, db_in, (None if saved.b_out is None else _sum_per_position(dout))


@routine
def _multiply(left, panel, terms, none, out, rows, depth, columns):
    """A product whose common index is taken in parts; arguments as of multiply_panel."""
    W, w, w_row, w_column = left
    P, p = panel
    for start in range(0, max(depth, 1), _DEPTH):
        part = (W, w + start * w_column, w_row, w_column), (P, p + start * panel_width(P))
        multiply_panel(*part, terms, out, rows, min(_DEPTH, depth - start), columns, start > 0)
        terms = none


@functools.cache
def _mlp_kernels(kind):
    """The forward and the backward kernel with one activation."""

    @kernel
    def forward(x, w_in, w_out, b_in, b_out, none, hidden, y, l, h, n, c, save, counter):
        width = panel_width(x)
        across = -(-c // width)
        panel, inner = (numpy.empty(l * width, x.dtype), 0), (numpy.empty(h * width, x.dtype), 0)
        for task in tasks(counter):
            item, j = task // across, task % across * width
            columns = min(width, c - j)
            fill_panel((x, item * l * c + j, c), panel, l, columns)
            _multiply((w_in, 0, l, 1), panel, b_in, none, (*inner, width), h, l, width)
            for i in range(h):
                for v in range(0, width, lanes(x)):
                    value = load(inner[0], i * width + v)
                    if save:
                        place, count = (item * h + i) * c + j + v, max(0, min(lanes(x), columns - v))
                        store_first(hidden, place, value, count)
                    store(inner[0], i * width + v, activate(kind, value))
            _multiply((w_out, 0, h, 1), inner, b_out, none, (y, item * n * c + j, c), n, h, columns)

    @kernel
    def backward(dy, hidden, w_in, w_out, none, dhidden, activated, dx, l, h, n, c, counter):
        width = panel_width(dy)
        across = -(-c // width)
        panel, inner = (numpy.empty(n * width, dy.dtype), 0), (numpy.empty(h * width, dy.dtype), 0)
        before = numpy.empty(h * width, dy.dtype), 0
        for task in tasks(counter):
            item, j = task // across, task % across * width
            columns = min(width, c - j)
            fill_panel((dy, item * n * c + j, c), panel, n, columns)
            _multiply((w_out, 0, 1, h), panel, none, none, (*inner, width), h, n, width)
            # reading all at once keeps more reads under way than the loop below could
            fill_panel((hidden, item * h * c + j, c), before, h, columns)
            for i in range(h):
                for v in range(0, width, lanes(dy)):
                    at, place = i * width + v, (item * h + i) * c + j + v
                    count = max(0, min(lanes(dy), columns - v))
                    value = load(before[0], at)
                    slope = load(inner[0], at) * activate_derivative(kind, value)
                    store(inner[0], at, slope)
                    store_first(dhidden, place, slope, count)
                    store_first(activated, place, activate(kind, value), count)
            _multiply((w_in, 0, 1, l), inner, none, none, (dx, item * l * c + j, c), l, h, columns)

    return forward, backward


def _panels(x):
    """Number of panels of channels in (b, l, c)."""
    # panel_width is for kernels; what stands for no bias has its length
    return x.shape[0] * -(-x.shape[2] // len(matrix.no_bias(x)[0]))


def _row_terms(x, bias):
    """The `bias` of multiply_panel that adds to row i its i-th value."""
    none = matrix.no_bias(x)
    return none if bias is None else (aligned.flat(bias), 0, 1, *none[3:])


def _sum_per_position(stack):
    """Sum over the first and last axes."""
    return aligned.contiguous(stack).sum(axis=2).sum(axis=0)


def _rows(array):
    """The array as (tokens, channels)."""
    return aligned.contiguous(array).reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _stack(array, axis):
    """The array as (everything before the axis, the axis, everything behind it)."""
    before, behind = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    return aligned.contiguous(array).reshape(before, array.shape[axis], behind)
