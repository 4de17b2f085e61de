"""Sums of wavelets and rational functions on the CPU: the lanes are outputs, whose edges have their own shapes."""

import functools
import math

import numpy

from mixers.cpu import aligned
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import (
    clamp,
    lanes,
    load,
    load_first,
    mul_add,
    scalar,
    select,
    store,
    store_first,
    sum_lanes,
    tile,
    zeros,
)
from mixers.cpu.vector_math import exp, polynomial, sincos

_MEXICAN_HAT, _MORLET, _GAUSSIAN, _MEYER, _SHANNON, _RATIONAL = range(6)
_KINDS = {
    "mexican_hat": _MEXICAN_HAT,
    "morlet": _MORLET,
    "dog": _GAUSSIAN,
    "meyer": _MEYER,
    "shannon": _SHANNON,
    "rational": _RATIONAL,
}
# rows whose sums are in registers at once, and rows of a task
_TILE, _ROWS = 8, 64
# slices of the rows with gradients of their own
_SLICES = 16
# sin(z) / z, and its derivative over z, as series in z^2
_sinc = polynomial(*((-1.0) ** k / math.factorial(2 * k + 1) for k in range(11)))
_sinc_slope = polynomial(*((-1.0) ** k * 2 * k / math.factorial(2 * k + 1) for k in range(1, 12)))
_HAT = 2.0 / (math.sqrt(3.0) * math.pi**0.25)


def kan_edges_forward(x, first, second, third=None, function="mexican_hat", save=True):
    """Tasks are blocks of rows."""
    call = _Call(x, first, second, third, function)
    y = aligned.zeros((*x.shape[:-1], call.o), x.dtype)
    if y.size and call.i:
        kernels = _kernels(call.kind)
        args = aligned.flat(x), *call.edges, y.reshape(-1), call.sizes
        run(kernels[0], -(-call.m // _ROWS), *args, work=20 * y.size * call.i // 8)
    return y, ()


def kan_edges_backward(dout, saved):
    """Tasks are slices of the rows, each with its own sums for the parameters of the edges."""
    x, arrays = saved.x, (saved.first, saved.second, saved.third)
    call = _Call(x, *arrays, saved.function)
    dx = aligned.zeros(x.shape, x.dtype)
    size = call.terms * call.i * call.o
    share = -(-call.m // _SLICES)
    count = -(-call.m // share) if share else 0
    parts = aligned.zeros((count, size), x.dtype)
    if dout.size and call.i:
        args = aligned.flat(x), aligned.flat(dout), *call.edges, dx.reshape(-1), parts.reshape(-1), call.sizes
        run(_kernels(call.kind)[1], count, *args, share, work=40 * dout.size * call.i // 8)
    sums = sum_rows(parts).reshape(call.i, call.terms, call.o)
    if call.kind == _RATIONAL:
        return dx, sums[:, : call.above].copy(), sums[:, call.above :].copy(), None
    weight, scale, translation = (sums[:, term].copy() for term in range(3))
    return dx, weight * call.window, scale, translation


class _Call:
    """Sizes of a call, and the parameters of the edges as the kernels read them.

    Rational: (i, m + 1 + n, o). Wavelets: (i, 3, o) with weight, 1 / scale, translation.
    """

    def __init__(self, x, first, second, third, function):
        self.kind, self.i = _KINDS[function], x.shape[-1]
        self.m, self.o = math.prod(x.shape[:-1]), first.shape[-1]
        self.above = first.shape[1] if self.kind == _RATIONAL else 0
        self.window = x.dtype.type(1)
        if self.kind == _RATIONAL:
            stacked = numpy.concatenate([first, second], axis=1)
        else:
            if self.kind == _SHANNON and self.i > 1:
                self.window = numpy.hamming(self.i).astype(x.dtype)[:, None]
            with numpy.errstate(divide="ignore"):
                stacked = numpy.stack([first * self.window, 1.0 / second, third], axis=1)
        self.terms = stacked.shape[1]
        self.edges = (aligned.flat(stacked),)
        self.sizes = (self.m, self.i, self.o, self.above, self.terms - self.above)


@helper
def _meyer(z):
    """sin(pi v) M(v) and its derivative by z, v = |z|."""
    v = abs(z)
    # beyond 1 the window is zero
    sine, cosine = sincos(clamp(v, 0.0, 1.0) * math.pi)
    t = clamp(v + v - 1.0, 0.0, 1.0)
    cube = t * t * t
    nu = cube * t * (35.0 + t * (-84.0 + t * (70.0 + t * -20.0)))
    fall, m = sincos(nu * (0.5 * math.pi))
    m = select(v >= 1.0, 0.0, m)
    back = 1.0 - t
    dm = cube * (back * back * back) * fall * (-140.0 * math.pi)
    slope = cosine * m * math.pi + sine * dm
    return sine * m, select(z > 0.0, slope, select(z < 0.0, -slope, slope * 0.0))


@helper
def _wavelet(kind, z):
    """psi(z) and psi'(z)."""
    if kind == _MEYER:
        return _meyer(z)
    if kind == _SHANNON:
        # the difference of cos z and sin(z) / z vanishes near 0
        near = abs(z) < 1.0
        safe, square = select(near, 1.0, z), z * z
        sine, cosine = sincos(safe)
        psi = sine / safe
        slope = select(near, z * _sinc_slope(square), (cosine - psi) / safe)
        return select(near, _sinc(square), psi), slope
    square = z * z
    e = exp(square * -0.5)
    if kind == _MEXICAN_HAT:
        return (square - 1.0) * e * _HAT, z * (3.0 - square) * e * _HAT
    if kind == _MORLET:
        sine, cosine = sincos(z * 5.0)
        return cosine * e, -(sine * 5.0 + z * cosine) * e
    return -(z * e), (square - 1.0) * e


@helper
def _fraction(edges, at, o, above, below, x, count):
    """P, P', Q, Q' of x, a number, for the outputs in the lanes; Horner's scheme."""
    p, dp, q, dq = zeros(edges), zeros(edges), zeros(edges), zeros(edges)
    for j in range(above - 1, -1, -1):
        dp = mul_add(dp, x, p)
        p = mul_add(p, x, load_first(edges, at + j * o, count))
    for j in range(below - 1, -1, -1):
        dq = mul_add(dq, x, q)
        q = mul_add(q, x, load_first(edges, at + (above + j) * o, count))
    # the constant term is zero
    return p, dp, q * x, mul_add(dq, x, q)


@helper
def _sign(x):
    return select(x > 0.0, 1.0, select(x < 0.0, -1.0, x))


@functools.cache
def _kernels(kind):
    """The forward and the backward kernel of one function."""

    @kernel
    def forward(x, edges, y, sizes, counter):
        m, i, o, above, below = sizes
        for task in tasks(counter):
            for first in range(task * _ROWS, min((task + 1) * _ROWS, m), _TILE):
                rows = min(_TILE, m - first)
                for c in range(0, o, lanes(y)):
                    count = min(lanes(y), o - c)
                    total = tile(y, _TILE)
                    for r in range(_TILE):
                        total[r] = zeros(y)
                    for j in range(i):
                        at = j * (above + below) * o + c
                        if kind == _RATIONAL:
                            for r in range(_TILE):
                                value = scalar(x, (first + min(r, rows - 1)) * i + j)
                                p, _, q, _ = _fraction(edges, at, o, above, below, value, count)
                                total[r] = total[r] + p / (1.0 + abs(q))
                        else:
                            weight, inverse = load_first(edges, at, count), load_first(edges, at + o, count)
                            middle = load_first(edges, at + 2 * o, count)
                            for r in range(_TILE):
                                value = scalar(x, (first + min(r, rows - 1)) * i + j)
                                psi = _wavelet(kind, (value - middle) * inverse)[0]
                                total[r] = mul_add(weight, psi, total[r])
                    for r in range(_TILE):
                        if r < rows:
                            store_first(y, (first + r) * o + c, total[r], count)

    @kernel
    def backward(x, dy, edges, dx, parts, sizes, share, counter):
        m, i, o, above, below = sizes
        n, terms = lanes(dx), above + below
        sums = numpy.empty(terms * n, dx.dtype)
        for task in tasks(counter):
            first, last = task * share, min((task + 1) * share, m)
            for j in range(i):
                for c in range(0, o, n):
                    count = min(n, o - c)
                    at = j * terms * o + c
                    for term in range(terms):
                        store(sums, term * n, zeros(dx))
                    for row in range(first, last):
                        value, d = scalar(x, row * i + j), load_first(dy, row * o + c, count)
                        if kind == _RATIONAL:
                            p, dp, q, dq = _fraction(edges, at, o, above, below, value, count)
                            inverse = 1.0 / (1.0 + abs(q))
                            d = d * inverse
                            back = -(d * p * inverse * _sign(q))
                            pulled = mul_add(d, dp, back * dq)
                            for term in range(above):
                                store(sums, term * n, load(sums, term * n) + d)
                                d = d * value
                            for term in range(above, terms):
                                back = back * value
                                store(sums, term * n, load(sums, term * n) + back)
                        else:
                            weight, inverse = load_first(edges, at, count), load_first(edges, at + o, count)
                            z = (value - load_first(edges, at + 2 * o, count)) * inverse
                            psi, slope = _wavelet(kind, z)
                            pulled = d * weight * slope * inverse
                            store(sums, 0, mul_add(d, psi, load(sums, 0)))
                            store(sums, n, load(sums, n) - pulled * z)
                            store(sums, 2 * n, load(sums, 2 * n) - pulled)
                        dx[row * i + j] += sum_lanes(pulled)
                    place = task * i * terms * o + at
                    for term in range(terms):
                        store_first(parts, place + term * o, load(sums, term * n), count)

    return forward, backward
