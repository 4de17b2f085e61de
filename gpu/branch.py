"""Attention over branches on the GPU: two passes over the branches each way, the small MLP between them."""

import math
from typing import Any, NamedTuple

import numpy

from mixers.gpu import elementwise
from mixers.gpu.device import Kernel, c_type, device_of

_THREADS, _LANES, _STRIPES = 256, 32, 8
_BLOCK_TOKENS = 512


def branch_attention_forward(
    z0, z1, z2, w_in, w_out, b_in=None, b_out=None, pool="mean", order="fastest", save=True
):
    grid = _Grid(z0)
    device, branches = grid.device, [grid.device.contiguous(z) for z in (z0, z1, z2)]
    pooled = grid.sums("pool", branches).sum(axis=1).reshape(grid.items, grid.c) * grid.factor(pool)
    hidden = _linear(device, pooled, w_in, b_in)
    o = _linear(device, elementwise.gelu_forward(hidden)[0], w_out, b_out)
    weights = device.empty((grid.items, 3, grid.c), grid.wide)
    steps = (1, 3) if order == "fastest" else (grid.c, 1)
    size = grid.items * grid.c
    grid.map("soften", (device.contiguous(o), weights), (numpy.int32(grid.c), *map(numpy.int32, steps)), size)
    y = device.empty(z0.shape, z0.dtype)
    grid.map("weigh", (*branches, weights, y), (numpy.int64(grid.tokens), numpy.int32(grid.c)), y.size)
    return y, (pooled, hidden, weights)


def branch_attention_backward(dout, saved):
    grid = _Grid(saved.z0)
    device, weights = grid.device, grid.device.contiguous(saved.weights)
    arrays = [device.contiguous(a) for a in (saved.z0, saved.z1, saved.z2, dout)]
    dweights = grid.sums("products", arrays, 3).sum(axis=1)
    dlogits = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
    # back in the order of the columns of w_out
    dlogits = dlogits.swapaxes(1, 2) if saved.order == "fastest" else dlogits
    do = device.contiguous(dlogits).reshape(grid.items, 3 * grid.c)
    dv = device.matmul(do, saved.w_out.swapaxes(0, 1))
    (dhidden,) = elementwise.gelu_backward(dv, _Step(saved.hidden))
    dpooled = device.matmul(dhidden, saved.w_in.swapaxes(0, 1)) * grid.factor(saved.pool)
    dz = [device.empty(saved.z0.shape, saved.z0.dtype) for _ in range(3)]
    grid.map(
        "pull",
        (arrays[3], weights, dpooled, *dz),
        (numpy.int64(grid.tokens), numpy.int32(grid.c)),
        dz[0].size,
    )
    v, _ = elementwise.gelu_forward(saved.hidden)
    return (
        *dz,
        device.matmul(saved.pooled.swapaxes(0, 1), dhidden),
        device.matmul(v.swapaxes(0, 1), do),
        None if saved.b_in is None else dhidden.sum(axis=0),
        None if saved.b_out is None else do.sum(axis=0),
    )


class _Step(NamedTuple):
    """What the backward of an activation takes."""

    x: Any


class _Grid:
    """The branches as (items, tokens, c), and the launches over them."""

    def __init__(self, z):
        self.device, self.c_type = device_of(z), c_type(z.dtype)
        self.items, self.tokens, self.c = z.shape[0], math.prod(z.shape[1:-1]), z.shape[-1]
        self.wide = numpy.dtype(numpy.float64 if z.dtype == numpy.float64 else numpy.float32)

    def factor(self, pool):
        """What sums over tokens are multiplied by."""
        return self.wide.type(1.0 / max(self.tokens, 1) if pool == "mean" else 1.0)

    def sums(self, name, arrays, parts=1):
        """(items, blocks of tokens, parts, c)."""
        blocks = max(1, -(-self.tokens // _BLOCK_TOKENS))
        sums = self.device.zeros((self.items, blocks, parts, self.c), self.wide)
        if sums.size:
            sizes = map(numpy.int32, (self.tokens, self.c, _BLOCK_TOKENS, blocks))
            grid = self.items * blocks, -(-self.c // _LANES)
            kernel = Kernel(name, "branch.cu", T=self.c_type)
            self.device.launch(kernel, grid, (_LANES, _STRIPES), (*arrays, sums, *sizes))
        return sums

    def map(self, name, arrays, sizes, size):
        """A thread per value."""
        if size:
            kernel = Kernel(name, "branch.cu", T=self.c_type)
            self.device.launch(
                kernel, (-(-size // _THREADS),), (_THREADS,), (*arrays, *sizes, numpy.int64(size))
            )


def _linear(device, x, w, b):
    y = device.matmul(x, w)
    return y if b is None else y + b
