"""Kolmogorov-Arnold layers on the CPU: products whose left factor, the expansion, is made tile by tile.

Rows of x are turned so that the lanes are rows while functions are evaluated. Then a block of the expansion,
which stays in the second-level cache, is a factor of :func:`mixers.cpu.matrix.multiply_panel`. In the backward
E = w dy^T has its rows in the lanes, too, so that the sum over the functions needs no turning. Many B-splines, of
which few are not zero, go through :mod:`mixers.cpu.kan_spline`.
"""

import functools
import math

import numpy

from mixers.cpu import aligned, kan_spline, matrix
from mixers.cpu.aligned import first_aligned
from mixers.cpu.kan_basis import KINDS, RADIAL, RELU, all_knots, pull, tables, values
from mixers.cpu.matrix import fill_panel, fill_panel_transposed, multiply_panel, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, store, sum_lanes
from mixers.cpu.turn import turn, turn_back

# functions of a block of the expansion, forward and in the gradient of w; steps of a sum over outputs
_FUNCTIONS, _COLUMNS, _DEPTH = 256, 112, 512
# rows of a task of the forward (multiples of 14 suit the products), rows of a block of the gradient of w
_FEW_ROWS, _MANY_ROWS, _ROWS = 28, 112, 256
# tasks that are enough, and slots that scratch is longer than what it holds, to begin at a cache line
_TASKS, _SPARE = 16, 16


def kan_contract_forward(
    x, w, first=None, second=None, basis="bspline", order=3, low=-1.0, high=1.0, width=None, save=True
):
    """Tasks are blocks of rows; all outputs of a block follow from one expansion."""
    knots = _local_knots(x, w, first, basis, order, low, high)
    if knots is not None:
        rows = x.reshape(-1, w.shape[0])
        return kan_spline.forward(rows, w, knots, order).reshape(*x.shape[:-1], w.shape[2]), ()
    call = _Call(x, w, first, second, basis, order, low, high, width)
    y = aligned.empty((*x.shape[:-1], call.o), x.dtype)
    if not call.size:
        y.fill(0)
    else:
        rows = min(_MANY_ROWS, max(_FEW_ROWS, 14 * -(-call.m // (14 * _TASKS))))
        inputs = min(call.i, max(1, _FUNCTIONS // call.g))
        panels = matrix.pack(w.reshape(call.i * call.g, call.o)).reshape(-1)
        args = aligned.flat(x), call.table, panels, matrix.no_bias(x), y.reshape(-1), call.rho
        run(_kernels(call.kind)[0], -(-call.m // rows), *args, (*call.sizes, rows, inputs), work=call.work)
    return y, ()


def kan_contract_backward(dout, saved):
    """dx by panels of rows; dw by blocks of inputs and slices of rows."""
    x, w = saved.x, saved.w
    options = (saved.basis, saved.order, saved.low, saved.high, saved.width)
    knots = _local_knots(x, w, saved.first, *options[:-1])
    if knots is not None:
        rows, drows = x.reshape(-1, w.shape[0]), dout.reshape(-1, w.shape[2])
        dx, dw = kan_spline.backward(rows, drows, w, knots, saved.order)
        return dx.reshape(x.shape), dw, None, None
    call = _Call(x, w, saved.first, saved.second, *options)
    learnt = saved.first is not None and call.kind in (RADIAL, RELU)
    if not call.size:
        gradients = (numpy.zeros(a.shape, x.dtype) for a in (x, w))
        return *gradients, *(numpy.zeros(saved.first.shape, x.dtype) if learnt else None for _ in range(2))
    dx, rows, drows = aligned.empty(x.shape, x.dtype), aligned.flat(x), aligned.flat(dout)
    none = matrix.no_bias(x)
    blocks = -(-call.m // len(none[0]))
    share = -(-blocks // (4 * _TASKS))
    count = -(-blocks // share)
    inputs = min(call.i, max(1, _FUNCTIONS // call.g))
    parts = aligned.zeros((count, 2 * call.i * call.g if learnt else 1), x.dtype)
    args = rows, drows, aligned.flat(w), call.table, none, dx.reshape(-1), parts.reshape(-1), call.rho, learnt
    run(_kernels(call.kind)[1], count, *args, (*call.sizes, share, inputs), work=2 * call.work)
    dw = _weights(call, rows, drows, none, x.dtype)
    if not learnt:
        return dx, dw.reshape(w.shape), None, None
    dfirst, dsecond = numpy.moveaxis(sum_rows(parts).reshape(call.i, call.g, 2), 2, 0)
    return dx, dw.reshape(w.shape), dfirst, dsecond


def _local_knots(x, w, first, basis, order, low, high):
    """The knots, if there is something to do and the form for B-splines suits it best."""
    if basis != "bspline" or not (x.size and w.size and kan_spline.suits(w.shape[1], order)):
        return None
    return all_knots(w.shape[1], first, order, low, high)


def _weights(call, rows, drows, none, dtype):
    inputs = min(call.i, max(1, _COLUMNS // call.g))
    chunks = -(-call.i // inputs)
    blocks = -(-call.m // _ROWS)
    share = -(-blocks // min(blocks, -(-_TASKS // chunks)))
    slices = -(-blocks // share)
    parts = aligned.empty((slices, call.i * call.g * call.o), dtype)
    args = rows, drows, call.table, none, parts.reshape(-1), call.rho
    run(_kernels(call.kind)[2], slices * chunks, *args, (*call.sizes, share, inputs), work=call.work)
    return sum_rows(parts)


class _Call:
    """Sizes of a call and the table of its basis."""

    def __init__(self, x, w, first, second, basis, order, low, high, width):
        self.i, self.g, self.o = w.shape
        self.m = math.prod(x.shape[:-1])
        self.size = self.m * self.i * self.g * self.o
        self.work = self.size / 10
        self.kind = KINDS[basis]
        table = tables(self.g, first, second, basis, order, low, high, width, x.dtype)
        self.rho = x.dtype.type(4.0 * (self.g - order) ** 2 / (order + 1) ** 2)
        self.table = aligned.flat(table)
        step = table.shape[1] if len(table) > 1 else 0
        self.sizes = (self.m, self.i, self.g, self.o, order, step)


@helper
def _expand(kind, x, start, step, count, begin, n, turned, stride, table, t_row, g, order, rho, scratch, out):
    """out[(j g + f) stride + r] = beta_f of input begin + j of row r, for `count` rows and n inputs."""
    turn((x, start + begin, step), (turned, 0), count, n, stride)
    for j in range(n):
        for r in range(0, stride, lanes(x)):
            argument = load(turned, j * stride + r)
            t = (begin + j) * t_row
            values(kind, argument, table, t, g, order, rho, scratch, out, j * g * stride + r, stride)


@functools.cache
def _kernels(kind):
    """Kernels of one basis: forward, gradient of x (and the basis' parameters), gradient of w."""

    @kernel
    def forward(x, table, panels, none, y, rho, sizes, counter):
        m, i, g, o, order, t_row, rows, inputs = sizes
        width, n = panel_width(x), lanes(x)
        stride = -(-rows // n) * n
        turned = numpy.empty(inputs * stride + _SPARE, x.dtype)
        turned = turned[first_aligned(turned) :]
        functions = numpy.empty(inputs * g * stride + _SPARE, x.dtype)
        functions = functions[first_aligned(functions) :]
        scratch = numpy.empty((g + order + 1) * n, x.dtype)
        for task in tasks(counter):
            first = task * rows
            count = min(rows, m - first)
            for begin in range(0, i, inputs):
                size = min(inputs, i - begin)
                _expand(
                    *(kind, x, first * i, i, count, begin, size, turned, stride),
                    *(table, t_row, g, order, rho, scratch, functions),
                )
                for c in range(0, o, width):
                    left, panel = (functions, 0, 1, stride), (panels, (c * i + begin * width) * g)
                    out, columns = (y, first * o + c, o), min(width, o - c)
                    multiply_panel(left, panel, none, out, count, size * g, columns, begin > 0)

    @kernel
    def backward(x, dy, w, table, none, dx, parts, rho, learnt, sizes, counter):
        m, i, g, o, order, t_row, share, inputs = sizes
        width, n = panel_width(x), lanes(x)
        panel = numpy.empty(o * width + _SPARE, x.dtype)
        panel = panel[first_aligned(panel) :]
        turned = numpy.empty(inputs * width + _SPARE, x.dtype)
        turned = turned[first_aligned(turned) :]
        products = numpy.empty(inputs * g * width + _SPARE, x.dtype)
        products = products[first_aligned(products) :]
        scratch = numpy.empty((g + order + 1) * n, x.dtype)
        slopes = numpy.empty(2 * g * n, x.dtype)
        blocks = -(-m // width)
        for task in tasks(counter):
            for block in range(task * share, min((task + 1) * share, blocks)):
                first = block * width
                count = min(width, m - first)
                fill_panel_transposed((dy, first * o, o), (panel, 0), o, count)
                for begin in range(0, i, inputs):
                    size = min(inputs, i - begin)
                    for start in range(0, o, _DEPTH):
                        left, out = (w, begin * g * o + start, o, 1), (products, 0, width)
                        depth, add = min(_DEPTH, o - start), start > 0
                        right = panel, start * width
                        multiply_panel(left, right, none, out, size * g, depth, width, add)
                    turn((x, first * i + begin, i), (turned, 0), count, size, width)
                    for j in range(size):
                        for r in range(0, width, n):
                            total = pull(
                                *(kind, load(turned, j * width + r), products, j * g * width + r, width),
                                *(table, (begin + j) * t_row, g, order, rho, scratch, slopes, 0),
                            )
                            store(turned, j * width + r, total)
                            if learnt:
                                at = (task * i + begin + j) * g * 2
                                for f in range(2 * g):
                                    parts[at + f] += sum_lanes(load(slopes, f * n))
                    turn_back((turned, 0), (dx, first * i + begin, i), count, size, width)

    @kernel
    def weights(x, dy, table, none, parts, rho, sizes, counter):
        m, i, g, o, order, t_row, share, inputs = sizes
        width, n = panel_width(x), lanes(x)
        turned = numpy.empty(inputs * _ROWS + _SPARE, x.dtype)
        turned = turned[first_aligned(turned) :]
        functions = numpy.empty(inputs * g * _ROWS + _SPARE, x.dtype)
        functions = functions[first_aligned(functions) :]
        panel = numpy.empty(_ROWS * width + _SPARE, x.dtype)
        panel = panel[first_aligned(panel) :]
        scratch = numpy.empty((g + order + 1) * n, x.dtype)
        chunks, blocks = -(-i // inputs), -(-m // _ROWS)
        for task in tasks(counter):
            part, begin = task // chunks, task % chunks * inputs
            size = min(inputs, i - begin)
            for block in range(part * share, min((part + 1) * share, blocks)):
                first = block * _ROWS
                count = min(_ROWS, m - first)
                _expand(
                    *(kind, x, first * i, i, count, begin, size, turned, _ROWS),
                    *(table, t_row, g, order, rho, scratch, functions),
                )
                for c in range(0, o, width):
                    columns = min(width, o - c)
                    fill_panel((dy, first * o + c, o), (panel, 0), count, columns)
                    out = parts, (part * i + begin) * g * o + c, o
                    left, add = (functions, 0, _ROWS, 1), block > part * share
                    multiply_panel(left, (panel, 0), none, out, size * g, count, columns, add)

    return forward, backward, weights
