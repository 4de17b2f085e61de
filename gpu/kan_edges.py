"""Sums of wavelets and rational functions on the GPU."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_LANES, _STRIPES = 32, 8
# rows of a slice with gradients of its own, at least, and slices at most
_ROWS, _SLICES = 256, 64
_FUNCTIONS = {"mexican_hat": 0, "morlet": 1, "dog": 2, "meyer": 3, "shannon": 4, "rational": 5}


def kan_edges_forward(x, first, second, third=None, function="mexican_hat", save=True):
    call = _Call(x, first, second, third, function)
    y = call.device.zeros((*x.shape[:-1], call.o), x.dtype)
    if call.work:
        grid = (-(-call.m // _STRIPES), -(-call.o // _LANES))
        call.launch(
            "edge_sums", grid, call.device.contiguous(x), call.edges, y, numpy.int64(call.m), *call.sizes
        )
    return y, ()


def kan_edges_backward(dout, saved):
    x = saved.x
    call = _Call(x, saved.first, saved.second, saved.third, saved.function)
    device = call.device
    dx = device.zeros(x.shape, x.dtype)
    slices = max(1, min(_SLICES, -(-call.m // _ROWS)))
    share = -(-call.m // slices)
    parts = device.zeros((slices, call.i, call.terms, call.o), saved.first.dtype)
    if call.work:
        arrays = device.contiguous(x), device.contiguous(dout), call.edges
        call.launch("edge_pull", (call.m, -(-call.i // _STRIPES)), *arrays, dx, *call.sizes)
        grid = (call.i, -(-call.o // _LANES), slices)
        rows = numpy.int64(call.m), *call.sizes, numpy.int64(share)
        call.launch("edge_parameters", grid, *arrays, parts, *rows)
    sums = parts.sum(axis=0)
    if saved.function == "rational":
        return dx, *(device.contiguous(s) for s in (sums[:, : call.above], sums[:, call.above :])), None
    weight, scale, translation = (device.contiguous(sums[:, term]) for term in range(3))
    return dx, weight if call.window is None else weight * call.window, scale, translation


class _Call:
    """Sizes of a call, the parameters of the edges as the kernels read them, and its launches."""

    def __init__(self, x, first, second, third, function):
        self.device, wide = device_of(x), first.dtype
        self.m, self.i, self.o = math.prod(x.shape[:-1]), x.shape[-1], first.shape[-1]
        self.above, self.window = 0, None
        if function == "rational":
            self.above, self.terms = first.shape[1], first.shape[1] + second.shape[1]
            parts = (slice(0, self.above), first), (slice(self.above, self.terms), second)
        else:
            self.terms = 3
            if function == "shannon" and self.i > 1:
                self.window = self.device.to_device(numpy.hamming(self.i).astype(wide)[:, None])
                first = first * self.window
            parts = (0, first), (1, 1.0 / second), (2, third)
        self.edges = self.device.empty((self.i, self.terms, self.o), wide)
        for place, array in parts:
            self.edges[:, place] = array
        self.work = self.m * self.i * self.o
        self.sizes = numpy.int32(self.i), numpy.int32(self.o)
        self.macros = {"T": c_type(x.dtype), "FUNCTION": _FUNCTIONS[function]}
        self.macros |= {"ABOVE": self.above, "TERMS": self.terms}

    def launch(self, name, grid, *args):
        self.device.launch(Kernel(name, "kan_edges.cu", **self.macros), grid, (_LANES, _STRIPES), args)
