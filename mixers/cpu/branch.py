"""Attention over branches on the CPU: two passes over the branches each way, the small MLP between them.

The branches may be parts of one array: tokens lie at one distance from each other, channels are neighbours.
Each task takes a block of tokens of one item; sums of blocks are combined in a fixed order.
"""

import math

import numpy

from mixers.cpu import elementwise, matrix
from mixers.cpu.aligned import contiguous, empty, flat
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, mul_add, store_first, tile, zeros

_BLOCK_VALUES = 16384
# vectors side by side, and those of the three branches
_WIDTH, _SUMS = 4, 12


@kernel
def _pool(z0, z1, z2, steps, sums, tokens, c, size, blocks, counter):
    """Sum of all branches over each block of tokens."""
    n = lanes(sums)
    for task in tasks(counter):
        item, first = task // blocks, task % blocks * size
        for j in range(0, c, _WIDTH * n):
            total = tile(sums, _WIDTH)
            for v in range(_WIDTH):
                total[v] = zeros(sums)
            for r in range(item * tokens + first, item * tokens + min(tokens, first + size)):
                for v in range(_WIDTH):
                    at, count = j + v * n, min(n, max(0, c - j - v * n))
                    value = load_first(z0, r * steps[0] + at, count) + load_first(
                        z1, r * steps[1] + at, count
                    )
                    total[v] = total[v] + (value + load_first(z2, r * steps[2] + at, count))
            for v in range(_WIDTH):
                at, count = j + v * n, min(n, max(0, c - j - v * n))
                store_first(sums, task * c + at, total[v], count)


@kernel
def _weigh(z0, z1, z2, steps, weights, y, tokens, c, size, blocks, counter):
    """y = sum of weights[k] z_k."""
    n = lanes(y)
    for task in tasks(counter):
        item, first = task // blocks, task % blocks * size
        for r in range(item * tokens + first, item * tokens + min(tokens, first + size)):
            for j in range(0, c, n):
                count, at = min(n, c - j), item * 3 * c + j
                total = load_first(z0, r * steps[0] + j, count) * load_first(weights, at, count)
                total = mul_add(
                    load_first(z1, r * steps[1] + j, count), load_first(weights, at + c, count), total
                )
                total = mul_add(
                    load_first(z2, r * steps[2] + j, count), load_first(weights, at + 2 * c, count), total
                )
                store_first(y, r * c + j, total, count)


@kernel
def _products(z0, z1, z2, steps, dy, sums, tokens, c, size, blocks, counter):
    """Sum of dy z_k over each block of tokens, for each branch."""
    n = lanes(dy)
    for task in tasks(counter):
        item, first = task // blocks, task % blocks * size
        for j in range(0, c, _WIDTH * n):
            total = tile(dy, _SUMS)
            for v in range(_SUMS):
                total[v] = zeros(dy)
            for r in range(item * tokens + first, item * tokens + min(tokens, first + size)):
                for v in range(_WIDTH):
                    at, count = j + v * n, min(n, max(0, c - j - v * n))
                    d = load_first(dy, r * c + at, count)
                    total[3 * v] = mul_add(d, load_first(z0, r * steps[0] + at, count), total[3 * v])
                    total[3 * v + 1] = mul_add(d, load_first(z1, r * steps[1] + at, count), total[3 * v + 1])
                    total[3 * v + 2] = mul_add(d, load_first(z2, r * steps[2] + at, count), total[3 * v + 2])
            for v in range(_WIDTH):
                at, count = j + v * n, min(n, max(0, c - j - v * n))
                for k in range(3):
                    store_first(sums, (task * 3 + k) * c + at, total[3 * v + k], count)


@kernel
def _pull(dy, weights, dpooled, dz0, dz1, dz2, tokens, c, size, blocks, counter):
    """dz_k = weights[k] dy + dpooled."""
    n = lanes(dy)
    for task in tasks(counter):
        item, first = task // blocks, task % blocks * size
        for r in range(item * tokens + first, item * tokens + min(tokens, first + size)):
            for j in range(0, c, n):
                count, at = min(n, c - j), item * 3 * c + j
                d, common = load_first(dy, r * c + j, count), load_first(dpooled, item * c + j, count)
                store_first(dz0, r * c + j, mul_add(load_first(weights, at, count), d, common), count)
                store_first(dz1, r * c + j, mul_add(load_first(weights, at + c, count), d, common), count)
                store_first(dz2, r * c + j, mul_add(load_first(weights, at + 2 * c, count), d, common), count)


def branch_attention_forward(
    z0, z1, z2, w_in, w_out, b_in=None, b_out=None, pool="mean", order="fastest", save=True
):
    """The branches are read for the sums over tokens, then for y."""
    grid, branches = _Grid(z0), _branches(z0, z1, z2)
    sums = empty((grid.items, grid.blocks, grid.c), z0.dtype)
    run(_pool, grid.tasks, *branches, sums.reshape(-1), *grid.layout, work=3 * z0.size)
    pooled = (sums.sum(axis=1, dtype=numpy.float64) * grid.factor(pool)).astype(z0.dtype)
    hidden = matrix.linear(pooled, w_in, b_in)
    o = matrix.linear(elementwise.gelu_forward(hidden)[0], w_out, b_out)
    weights = _softmax(_by_branch(o, order))
    y = empty(z0.shape, z0.dtype)
    run(_weigh, grid.tasks, *branches, weights.reshape(-1), y.reshape(-1), *grid.layout, work=4 * z0.size)
    return y, (pooled, hidden, weights)


def branch_attention_backward(dout, saved):
    """The branches are read for dweights; dz needs only dy."""
    z0, weights = saved.z0, contiguous(saved.weights)
    grid, branches, dy = _Grid(z0), _branches(z0, saved.z1, saved.z2), flat(dout)
    sums = empty((grid.items, grid.blocks, 3, grid.c), z0.dtype)
    run(_products, grid.tasks, *branches, dy, sums.reshape(-1), *grid.layout, work=6 * z0.size)
    dweights = sums.sum(axis=1, dtype=numpy.float64)
    dlogits = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
    do = contiguous(_by_column(dlogits, saved.order), z0.dtype)
    dhidden = elementwise.gelu_backward(matrix.linear(do, saved.w_out.T), _Step(saved.hidden))[0]
    dpooled = matrix.linear(dhidden, saved.w_in.T) * z0.dtype.type(grid.factor(saved.pool))
    dz = [empty(z0.shape, z0.dtype) for _ in range(3)]
    small = weights.reshape(-1), flat(dpooled)
    run(_pull, grid.tasks, dy, *small, *(d.reshape(-1) for d in dz), *grid.layout, work=4 * z0.size)
    return (
        *dz,
        matrix.linear_weights(saved.pooled, dhidden),
        matrix.linear_weights(elementwise.gelu_forward(saved.hidden)[0], do),
        None if saved.b_in is None else sum_rows(dhidden),
        None if saved.b_out is None else sum_rows(do),
    )


class _Step:
    """What the backward of an activation takes."""

    def __init__(self, x):
        self.x = x


class _Grid:
    """How (items, tokens, c) is cut into blocks of tokens."""

    def __init__(self, z):
        self.items, self.tokens, self.c = z.shape[0], math.prod(z.shape[1:-1]), z.shape[-1]
        size = max(1, _BLOCK_VALUES // max(self.c, 1))
        self.blocks = -(-self.tokens // size)
        self.tasks = self.items * self.blocks if self.c else 0
        self.layout = self.tokens, self.c, size, self.blocks

    def factor(self, pool):
        """What sums over tokens are multiplied by."""
        return 1.0 / max(self.tokens, 1) if pool == "mean" else 1.0


def _branches(*branches):
    """The memory of each branch, and the steps from token to token."""
    memory, steps = zip(*map(_rows, branches))
    return *memory, steps


def _rows(z):
    """(values, step from token to token); copied unless its strides say it."""
    *outer, last = z.strides
    step = next((s for n, s in zip(reversed(z.shape[:-1]), reversed(outer)) if n != 1), z.shape[-1] * last)
    walked = step
    for n, s in zip(reversed(z.shape[:-1]), reversed(outer)):
        if n != 1 and s != walked:
            return flat(z), z.shape[-1]
        walked = s * n if n != 1 else walked
    if not z.size or last != z.itemsize or step % z.itemsize or step < z.shape[-1] * last:
        return flat(z), z.shape[-1]
    span = (z.size // z.shape[-1] - 1) * step // z.itemsize + z.shape[-1]
    return flat(numpy.lib.stride_tricks.as_strided(z, (span,), (z.itemsize,))), step // z.itemsize


def _softmax(logits):
    """Over axis 1."""
    weights = numpy.exp(logits - logits.max(axis=1, keepdims=True)) if logits.size else logits
    return contiguous(weights / weights.sum(axis=1, keepdims=True))


def _by_branch(o, order):
    """(b, 3 c) -> (b, 3, c)."""
    b, c = len(o), o.shape[1] // 3
    return o.reshape(b, c, 3).swapaxes(1, 2) if order == "fastest" else o.reshape(b, 3, c)


def _by_column(logits, order):
    """The inverse of _by_branch."""
    b, _, c = logits.shape
    return (logits.swapaxes(1, 2) if order == "fastest" else logits).reshape(b, 3 * c)
