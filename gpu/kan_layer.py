"""Kolmogorov-Arnold layers on the GPU: tiled products whose left factor, the expansion, is made in shared memory."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_TILE, _THREADS = 64, 256
# tiles of rows that have sums of their own, at most, and rows of a slice of the gradient of w, at least
_BLOCKS, _ROWS = 256, 256
_BASES = {"bspline": 0, "fourier": 1, "rbf": 2, "chebyshev": 3, "relu": 4, "silu": 5}
_WINDOWS = "h w c down across size stride padding".split()
_INTEGERS = ["i", "g", "o", "step", "order", *_WINDOWS]
_SIZES = numpy.dtype([("m", "i8"), *((name, "i4") for name in _INTEGERS)], align=True)


def kan_contract_forward(
    x, w, first=None, second=None, basis="bspline", order=3, low=-1.0, high=1.0, width=None, save=True
):
    call = Contraction(x, w, first, second, basis, order, low, high, width)
    y = call.device.zeros((*x.shape[:-1], call.o), x.dtype)
    call.forward(x, w, y)
    return y, ()


def kan_contract_backward(dout, saved):
    x, w = saved.x, saved.w
    options = (saved.basis, saved.order, saved.low, saved.high, saved.width)
    call = Contraction(x, w, saved.first, saved.second, *options)
    learnt = saved.first is not None and saved.basis in ("rbf", "relu")
    dx, sums = call.pull(x, dout, w, learnt)
    dw = call.weights(x, dout).reshape(w.shape)
    if not learnt:
        return dx, dw, None, None
    return dx, dw, *(call.device.contiguous(sums[..., n]) for n in range(2))


class Contraction:
    """Sizes of a call, what its basis has per input, and its launches.

    With `windows` (sizes of the image, of the kernel and of the grid of windows) the rows are windows, and
    pixels in :meth:`pull`, whose w then is (c, g, taps o); `m` is their number.
    """

    def __init__(self, x, w, first, second, basis, order, low, high, width, m=None, windows=None):
        self.device, self.wide = device_of(x), w.dtype
        self.i, self.g, self.o = w.shape
        self.m = math.prod(x.shape[:-1]) if m is None else m
        self.work = self.m * self.i * self.g * self.o
        self.macros = {"T": c_type(x.dtype), "BASIS": _BASES[basis]}
        if basis == "bspline":
            self.macros["ORDER"] = order
        if windows is not None:
            self.macros["WINDOWS"] = 1
        if first is None:
            self.table, step = self._even(basis, order, low, high, width), 0
        else:
            self.table = [None if a is None else self.device.contiguous(a) for a in (first, second)]
            step = first.shape[1]
        self.sizes = numpy.array(
            (self.m, self.i, self.g, self.o, step, order, *(windows or [0] * len(_WINDOWS))), _SIZES
        )[()]

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

    def forward(self, x, w, y):
        """Write the rows of y."""
        if self.work:
            grid = (-(-self.m // _TILE), -(-self.o // _TILE))
            arrays = self.device.contiguous(x), self.device.contiguous(w), y
            self.launch("kan_contract", grid, *arrays, *self.table, self.sizes)

    def pull(self, x, dout, w, learnt=False):
        """The gradient of x, and if they are learnt (i, g, 2) of the parameters of the basis."""
        dx = self.device.zeros(x.shape, self.wide)
        tiles = -(-self.m // _TILE)
        share = max(1, -(-tiles // _BLOCKS)) if learnt else 1
        blocks = -(-tiles // share)
        # per block of rows, input and function: the sums for both parameters of the basis
        parts = self.device.zeros((blocks, self.i, self.g, 2), self.wide) if learnt else None
        if self.work:
            inputs = max(1, _TILE // self.g)
            counts = numpy.int32(inputs), numpy.int32(share)
            arrays = (self.device.contiguous(a) for a in (x, dout, w))
            grid = (blocks, -(-self.i // inputs))
            self.launch("kan_pull", grid, *arrays, dx, parts, *self.table, self.sizes, *counts)
        return dx, parts.sum(axis=0) if learnt else None

    def weights(self, x, dout):
        """The gradient of w (i g, o), summed over slices of the rows."""
        if not self.work:
            return self.device.zeros((self.i * self.g, self.o), self.wide)
        x, dout = self.device.contiguous(x), self.device.contiguous(dout)
        tiles = -(-self.i * self.g // _TILE), -(-self.o // _TILE)
        wanted = -(-2 * self.device.sm_count // (tiles[0] * tiles[1]))
        share = -(-self.m // max(1, min(wanted, self.m // _ROWS)))
        slices = -(-self.m // share)
        parts = self.device.empty((slices, self.i * self.g, self.o), self.wide)
        args = x, dout, parts, *self.table, self.sizes, numpy.int64(share)
        self.launch("kan_weights", (*tiles, slices), *args)
        return parts.sum(axis=0)
