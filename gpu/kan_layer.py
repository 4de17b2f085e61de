"""Kolmogorov-Arnold layers on the GPU: tiled products whose left factor, the expansion, is made in shared memory."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_TILE, _THREADS = 64, 256
# tiles of rows that have sums of their own, at most, and rows of a slice of the gradient of w, at least
_BLOCKS, _ROWS = 256, 256
_BASES = {"bspline": 0, "fourier": 1, "rbf": 2, "chebyshev": 3, "relu": 4}
_SIZES = numpy.dtype(
    [("m", "i8"), ("i", "i4"), ("g", "i4"), ("o", "i4"), ("step", "i4"), ("order", "i4")], align=True
)


def kan_contract_forward(
    x, w, first=None, second=None, basis="bspline", order=3, low=-1.0, high=1.0, width=None, save=True
):
    call = _Call(x, w, first, second, basis, order, low, high, width)
    y = call.device.zeros((*x.shape[:-1], call.o), x.dtype)
    if call.work:
        grid = (-(-call.m // _TILE), -(-call.o // _TILE))
        arrays = call.device.contiguous(x), call.device.contiguous(w), y
        call.launch("kan_contract", grid, *arrays, *call.table, call.sizes)
    return y, ()


def kan_contract_backward(dout, saved):
    x, w = saved.x, saved.w
    options = (saved.basis, saved.order, saved.low, saved.high, saved.width)
    call = _Call(x, w, saved.first, saved.second, *options)
    device, wide = call.device, w.dtype
    learnt = saved.first is not None and saved.basis in ("rbf", "relu")
    dx, dw = device.zeros(x.shape, wide), device.zeros(w.shape, wide)
    # per block of rows, input and function: the sums for both parameters of the basis
    tiles = -(-call.m // _TILE)
    share = max(1, -(-tiles // _BLOCKS)) if learnt else 1
    blocks = -(-tiles // share)
    parts = device.zeros((blocks, call.i, call.g, 2), wide) if learnt else None
    if call.work:
        x, dout, w = (device.contiguous(a) for a in (x, dout, w))
        inputs = max(1, _TILE // call.g)
        counts = numpy.int32(inputs), numpy.int32(share)
        grid = (blocks, -(-call.i // inputs))
        call.launch("kan_pull", grid, x, dout, w, dx, parts, *call.table, call.sizes, *counts)
        dw = call.weights(x, dout).reshape(w.shape)
    if not learnt:
        return dx, dw, None, None
    sums = parts.sum(axis=0)
    return dx, dw, device.contiguous(sums[..., 0]), device.contiguous(sums[..., 1])


class _Call:
    """Sizes of a call, what its basis has per input, and its launches."""

    def __init__(self, x, w, first, second, basis, order, low, high, width):
        self.device, self.wide = device_of(x), w.dtype
        self.i, self.g, self.o = w.shape
        self.m = math.prod(x.shape[:-1])
        self.work = self.m * self.i * self.g * self.o
        self.macros = {"T": c_type(x.dtype), "BASIS": _BASES[basis]}
        if basis == "bspline":
            self.macros["ORDER"] = order
        if first is None:
            self.table, step = self._even(basis, order, low, high, width), 0
        else:
            self.table = [None if a is None else self.device.contiguous(a) for a in (first, second)]
            step = first.shape[1]
        self.sizes = numpy.array((self.m, self.i, self.g, self.o, step, order), _SIZES)[()]

    def _even(self, basis, order, low, high, width):
        """Even knots or centres, the same for all inputs."""
        g = self.g
        if basis == "bspline":
            step = (high - low) / (g - order)
            tables = [low + step * numpy.arange(-order, g + 1), None]
        elif basis == "rbf":
            width = (high - low) / (g - 1) if width is None else width
            tables = [numpy.linspace(low, high, g), numpy.full(g, width)]
        else:
            tables = [None, None]
        return [None if t is None else self.device.to_device(t.astype(self.wide)) for t in tables]

    def launch(self, name, grid, *args):
        self.device.launch(Kernel(name, "kan_layer.cu", **self.macros), grid, (_THREADS,), args)

    def weights(self, x, dout):
        """The gradient of w, summed over slices of the rows."""
        tiles = -(-self.i * self.g // _TILE), -(-self.o // _TILE)
        wanted = -(-2 * self.device.sm_count // (tiles[0] * tiles[1]))
        share = -(-self.m // max(1, min(wanted, self.m // _ROWS)))
        slices = -(-self.m // share)
        parts = self.device.empty((slices, self.i * self.g, self.o), self.wide)
        args = x, dout, parts, *self.table, self.sizes, numpy.int64(share)
        self.launch("kan_weights", (*tiles, slices), *args)
        return parts.sum(axis=0)
