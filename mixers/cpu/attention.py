"""Attention with softmax on the CPU: one window of one head at a time, as products of small matrices."""

import numpy

from mixers.cpu import aligned
from mixers.cpu.aligned import flat, scratch
from mixers.cpu.matrix import no_bias, panel_width
from mixers.cpu.products import WHOLE, product
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, routine, run, tasks
from mixers.cpu.simd import (
    full,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    mul_add,
    select,
    store,
    store_first,
    sum_lanes,
    zeros,
)
from mixers.cpu.vector_math import exp

# added to the scores of tokens that only a roll brought together
_APART = -100.0

# tasks wanted, at most: each holds sums for the table
_TASKS = 64


def shifted_window_attention_forward(q, k, v, table, window, shift=0, scale=None, save=True):
    """Windows are gathered, attended and put back by their rows."""
    y = aligned.empty(q.shape, q.dtype)
    _run(_forward, q, window, shift, scale, _bias(table, window), flat(q), flat(k), flat(v), y.reshape(-1))
    return y, ()


def shifted_window_attention_backward(dout, saved):
    """The weights again, then the products of the backward; sums of ds by tasks."""
    q, k, v, window = saved.q, saved.k, saved.v, saved.window
    n, size = q.shape[3], window * window
    dq, dk, dv = (aligned.empty(q.shape, q.dtype) for _ in range(3))
    sums = aligned.zeros((_blocks(q, window), n * size * size), q.dtype)
    arrays = (flat(q), flat(k), flat(v), flat(dout), *(a.reshape(-1) for a in (dq, dk, dv, sums)))
    _run(_backward, q, window, saved.shift, saved.scale, _bias(saved.table, window), *arrays)
    pairs = sum_rows(sums).reshape(n, size * size).T
    dtable = numpy.zeros(saved.table.shape, q.dtype)
    numpy.add.at(dtable, _relative(window).ravel(), pairs)
    return dq, dk, dv, dtable


def _run(kernel, q, window, shift, scale, bias, *arrays):
    b, h, w, n, d = q.shape
    rows, labels = _windows(h, w, window, shift)
    scale = q.dtype.type(d**-0.5 if scale is None else scale)
    blocks = _blocks(q, window)
    sizes = b, h * w, n, d, window * window
    args = *arrays, bias, rows, labels.astype(q.dtype), scale, sizes, blocks, no_bias(q)
    run(kernel, blocks * n if q.size else 0, *args, work=q.size * window**2 / 4)


def _blocks(q, window):
    """Into how many parts the windows of a head are cut."""
    b, h, w, n, _ = q.shape
    return max(1, min(b * (h // window) * (w // window), _TASKS // max(n, 1)))


def _relative(m):
    """Row of the table for each query and key of a window, (m^2, m^2)."""
    i, j = numpy.divmod(numpy.arange(m * m), m)
    return (i[:, None] - i + m - 1) * (2 * m - 1) + j[:, None] - j + m - 1


def _bias(table, window):
    """The table by heads, queries and keys, in one axis."""
    return flat(table[_relative(window)].transpose(2, 0, 1))


def _windows(h, w, m, shift):
    """The tokens of each window, and the regions they come from, (windows m^2,)."""
    region = lambda size: (numpy.arange(size) >= size - m).astype(int) + (numpy.arange(size) >= size - shift)
    labels = 3 * region(h)[:, None] + region(w) if shift else numpy.zeros((h, w))
    tokens = numpy.roll(numpy.arange(h * w).reshape(h, w), (-shift, -shift), axis=(0, 1))
    cut = lambda a: a.reshape(h // m, m, w // m, m).swapaxes(1, 2).reshape(-1)
    return cut(tokens).astype(numpy.int64), cut(labels)


@routine
def _gather(source, target, rows, place, step, size, d, factor):
    """target[i] = factor source[rows[place + i]]: compact rows of one head."""
    X, x = source
    for i in range(size):
        for j in range(0, d, lanes(X)):
            count = min(lanes(X), d - j)
            value = load_first(X, x + rows[place + i] * step + j, count) * factor
            store_first(target, i * d + j, value, count)


@routine
def _scatter(source, target, rows, place, step, size, d, factor):
    """The opposite of _gather."""
    Y, y = target
    for i in range(size):
        for j in range(0, d, lanes(Y)):
            count = min(lanes(Y), d - j)
            value = load_first(source, i * d + j, count) * factor
            store_first(Y, y + rows[place + i] * step + j, value, count)


@routine
def _softmax(scores, bias, pairs, labels, place, counting, size, row):
    """Weights of the rows of scores (size, row), with the bias and the mask of a window."""
    w = lanes(scores)
    for i in range(size):
        top = full(scores, -numpy.inf)
        for j in range(0, size, w):
            count = min(w, size - j)
            value = load(scores, i * row + j) + load_first(bias, pairs + i * size + j, count)
            apart = load_first(labels, place + j, count) != full(labels, labels[place + i])
            value = value + select(apart, full(scores, _APART), zeros(scores))
            value = select(load(counting, 0) < full(scores, count), value, full(scores, -numpy.inf))
            store(scores, i * row + j, value)
            top = maximum(top, value)
        highest = full(scores, max_lanes(top))
        total = zeros(scores)
        for j in range(0, size, w):
            value = exp(load(scores, i * row + j) - highest)
            value = select(load(counting, 0) < full(scores, size - j), value, zeros(scores))
            store(scores, i * row + j, value)
            total = total + value
        share = full(scores, 1.0 / sum_lanes(total))
        for j in range(0, size, w):
            store(scores, i * row + j, load(scores, i * row + j) * share)


@routine
def _pull_softmax(weights, pulled, sums, pairs, size, row):
    """pulled <- weights (pulled - sum of weights pulled) by rows, added to sums from `pairs` on."""
    w = lanes(weights)
    for i in range(size):
        total = zeros(weights)
        for j in range(0, size, w):
            count = min(w, size - j)
            value = load_first(pulled, i * row + j, count)
            total = mul_add(value, load(weights, i * row + j), total)
        mean = full(weights, sum_lanes(total))
        for j in range(0, size, w):
            count, at = min(w, size - j), pairs + i * size + j
            value = load(weights, i * row + j) * (load_first(pulled, i * row + j, count) - mean)
            store_first(pulled, i * row + j, value, count)
            store_first(sums, at, load_first(sums, at, count) + value, count)


@routine
def _counting(like):
    numbers = scratch(lanes(like), like)
    for i in range(lanes(like)):
        numbers[i] = i
    return numbers


@kernel
def _forward(q, k, v, y, bias, rows, labels, scale, sizes, blocks, none, counter):
    b, l, n, d, size = sizes
    row, windows = -(-size // lanes(q)) * lanes(q), l // size
    share = -(-b * windows // blocks)
    panel, scores = scratch(max(size, d) * panel_width(q), q), scratch(size * row, q)
    qs, ks, vs = scratch(size * d, q), scratch(size * d, q), scratch(size * d, q)
    counting = _counting(q)
    for task in tasks(counter):
        head, block = task % n, task // n
        for at in range(block * share, min((block + 1) * share, b * windows)):
            start, place, step = (at // windows * l * n + head) * d, at % windows * size, n * d
            _gather((q, start), qs, rows, place, step, size, d, scale)
            _gather((k, start), ks, rows, place, step, size, d, 1.0)
            _gather((v, start), vs, rows, place, step, size, d, 1.0)
            over, out = (size, d, size), (scores, 0, row)
            product((qs, 0, d, 1), (ks, 0, d), out, over, panel, none, True, WHOLE, False)
            _softmax(scores, bias, head * size * size, labels, place, counting, size, row)
            over, out = (size, size, d), (qs, 0, d)
            product((scores, 0, row, 1), (vs, 0, d), out, over, panel, none, False, WHOLE, False)
            _scatter(qs, (y, start), rows, place, step, size, d, 1.0)


@kernel
def _backward(q, k, v, dy, dq, dk, dv, sums, bias, rows, labels, scale, sizes, blocks, none, counter):
    b, l, n, d, size = sizes
    row, windows = -(-size // lanes(q)) * lanes(q), l // size
    share = -(-b * windows // blocks)
    panel, scores = scratch(max(size, d) * panel_width(q), q), scratch(size * row, q)
    pulled, out = scratch(size * row, q), scratch(size * d, q)
    qs, ks, vs, gs = scratch(size * d, q), scratch(size * d, q), scratch(size * d, q), scratch(size * d, q)
    counting = _counting(q)
    for task in tasks(counter):
        head, block = task % n, task // n
        pairs = head * size * size
        for at in range(block * share, min((block + 1) * share, b * windows)):
            start, place, step = (at // windows * l * n + head) * d, at % windows * size, n * d
            _gather((q, start), qs, rows, place, step, size, d, scale)
            _gather((k, start), ks, rows, place, step, size, d, 1.0)
            _gather((v, start), vs, rows, place, step, size, d, 1.0)
            _gather((dy, start), gs, rows, place, step, size, d, 1.0)
            over, tall = (size, d, size), (size, size, d)
            product((qs, 0, d, 1), (ks, 0, d), (scores, 0, row), over, panel, none, True, WHOLE, False)
            _softmax(scores, bias, pairs, labels, place, counting, size, row)
            product((scores, 0, 1, row), (gs, 0, d), (out, 0, d), tall, panel, none, False, WHOLE, False)
            _scatter(out, (dv, start), rows, place, step, size, d, 1.0)
            product((gs, 0, d, 1), (vs, 0, d), (pulled, 0, row), over, panel, none, True, WHOLE, False)
            _pull_softmax(scores, pulled, sums, block * n * size * size + pairs, size, row)
            product((pulled, 0, row, 1), (ks, 0, d), (out, 0, d), tall, panel, none, False, WHOLE, False)
            _scatter(out, (dq, start), rows, place, step, size, d, scale)
            product((pulled, 0, 1, row), (qs, 0, d), (out, 0, d), tall, panel, none, False, WHOLE, False)
            _scatter(out, (dk, start), rows, place, step, size, d, 1.0)
