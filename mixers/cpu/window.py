"""Token linears inside and across windows.

A table lists the tokens of each set: a window, or one place of all windows. Each task brings the tokens of a
set together in scratch, multiplies there and puts the result back where it belongs, so no view is copied.
"""

import numpy

from mixers.cpu.aligned import empty, flat
from mixers.cpu.matrix import fill_panel_transposed, multiply_panel, no_bias, panel_width, strided
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, store, store_first, sum_lanes, zeros

_SLICES = 16


@helper
def _gather_panel(x, start, tokens, first, n, c, columns, panel):
    """panel[m] = the channels of token m of a set."""
    step = panel_width(x)
    for m in range(n):
        place = start + tokens[first + m] * c
        for v in range(0, step, lanes(x)):
            store(panel, m * step + v, load_first(x, place + v, min(lanes(x), max(columns - v, 0))))


@kernel
def _multiply_sets(w, w_row, w_column, x, bias, b_step, none, y, tokens, sets, n, grid, c, counter):
    """y[s, n] = sum_m w[n, m] x[s, m] + bias[n] for one panel of channels of one set."""
    width = panel_width(x)
    across = -(-c // width)
    panel = numpy.empty(n * width, x.dtype)
    block = numpy.empty(n * width, x.dtype)
    for task in tasks(counter):
        item, rest = task // (sets * across), task % (sets * across)
        first, j = rest // across * n, rest % across * width
        columns = min(width, c - j)
        start = item * grid * c + j
        _gather_panel(x, start, tokens, first, n, c, columns, panel)
        left, out = (w, 0, w_row, w_column), (block, 0, width)
        multiply_panel(left, (panel, 0), (bias, 0, b_step, none[3], 0), out, n, n, columns, False)
        for m in range(n):
            place = start + tokens[first + m] * c
            for v in range(0, columns, lanes(x)):
                count = min(lanes(x), columns - v)
                store_first(y, place + v, load_first(block, m * width + v, count), count)


@helper
def _gather(x, start, tokens, first, n, c, block):
    """block[m] = all channels of token m of a set."""
    for m in range(n):
        place = start + tokens[first + m] * c
        for j in range(0, c, lanes(x)):
            count = min(lanes(x), c - j)
            store_first(block, m * c + j, load_first(x, place + j, count), count)


@kernel
def _weight_sums(x, dy, none, weights, biases, tokens, sets, total, n, grid, c, slices, counter):
    """Per slice of the sets: the sum of dy x^T, and of dy over channels."""
    width = panel_width(x)
    panel = numpy.empty(c * width, x.dtype)
    left, right = numpy.empty(n * c, x.dtype), numpy.empty(n * c, x.dtype)
    share = -(-total // slices)
    for task in tasks(counter):
        for m in range(n):
            biases[task * n + m] = 0
        for s in range(task * share, min((task + 1) * share, total)):
            start, first = s // sets * grid * c, s % sets * n
            _gather(dy, start, tokens, first, n, c, left)
            _gather(x, start, tokens, first, n, c, right)
            for m in range(n):
                row = zeros(x)
                for j in range(0, c, lanes(x)):
                    row = row + load_first(left, m * c + j, min(lanes(x), c - j))
                biases[task * n + m] += sum_lanes(row)
            for j in range(0, n, width):
                columns = min(width, n - j)
                fill_panel_transposed((right, j * c, c), (panel, 0), c, columns)
                out, add = (weights, task * n * n + j, n), s > task * share
                multiply_panel((left, 0, c, 1), (panel, 0), none, out, n, c, columns, add)


def window_linear_forward(x, w, b=None, size=None, across=False, save=True):
    """y = w x + b on each set of tokens."""
    return _product(x, w, b, size, across), ()


def window_linear_backward(dout, saved):
    """dx = w^T dy on the same sets; dw and db from slices of the sets, added up in order."""
    x, n = saved.x, saved.w.shape[0]
    dx = _product(dout, saved.w.T, None, saved.size, saved.across)
    tokens = _table(x.shape, saved.size, saved.across)
    total = x.shape[0] * len(tokens)
    # no slice may be empty
    slices = -(-total // -(-total // _SLICES)) if total and x.size else 0
    weights, biases = empty((slices, n * n), x.dtype), empty((slices, n), x.dtype)
    arrays = flat(x), flat(dout), no_bias(x), weights.reshape(-1), biases.reshape(-1)
    sizes = len(tokens), total, n, x.shape[1] * x.shape[2], x.shape[3], slices
    run(_weight_sums, slices, *arrays, tokens.reshape(-1), *sizes, work=x.size * n / 8)
    dw = sum_rows(weights).reshape(n, n)
    return dx, dw, None if saved.b is None else sum_rows(biases)


def _product(x, w, b, size, across):
    y = empty(x.shape, x.dtype)
    if not x.size:
        return y
    tokens = _table(x.shape, size, across)
    none = no_bias(x)
    # a panel is as wide as what stands for no bias
    c, width = x.shape[3], len(none[0])
    terms = none[:2] if b is None else (flat(b), 1)
    arrays = *strided(w), flat(x), *terms, none, y.reshape(-1), tokens.reshape(-1)
    sizes = len(tokens), tokens.shape[1], x.shape[1] * x.shape[2], c
    count = x.shape[0] * len(tokens) * -(-c // width)
    run(_multiply_sets, count, *arrays, *sizes, work=x.size * w.shape[0] / 8)
    return y


def _table(shape, size, across):
    """(sets, tokens of a set): numbers of tokens in row order."""
    h, w = shape[1:3]
    if across:
        cells = numpy.arange(h * w).reshape(size[0], h // size[0], size[1], w // size[1])
        return cells.transpose(1, 3, 0, 2).reshape(-1, size[0] * size[1])
    cells = numpy.arange(h * w).reshape(h // size[0], size[0], w // size[1], size[1])
    return cells.transpose(0, 2, 1, 3).reshape(-1, size[0] * size[1])
