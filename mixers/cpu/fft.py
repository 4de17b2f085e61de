"""Fourier transforms with the channels in the lanes, for use in kernels.

A point is a complex value per channel: the real parts of one vector of channels, then the imaginary parts.
The forward transform takes natural order to *storage order* and the inverse takes it back, so that spectra
can be multiplied without any reordering: position p in storage holds the frequency ``storage_order(n)[p]``.
Two real signals (batch items b and b + 1) travel together as one complex signal; a filter that is real and
the same for both needs no separation of the two.

A length may have any prime factors up to LARGEST_FACTOR. Those up to 7 are fast; others, p, cost about p
operations per value.
"""

import functools
import math
from typing import NamedTuple

import numpy
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mixers.cpu.runner import helper, routine
from mixers.cpu.simd import lanes, load, mul_add, scalar, store, tile, zeros
from mixers.cpu.vector_type import Tile, llvm_type, splat, vector_of

# relative cost of a pass over all points, by radix
_COST = {8: 1.9, 7: 2.2, 5: 1.8, 4: 1.5, 3: 1.4, 2: 1.2}

LARGEST_FACTOR = 127
_TWICE_LARGEST = 2 * LARGEST_FACTOR


class Plan(NamedTuple):
    """What kernels need to know about transforms of one length: one array per field.

    radices : factors of the length, in the order of the forward passes
    twiddles : cosine and negative sine of the rotations of all passes
    offsets : where those of each pass begin
    roots : for each pass, cosines and then sines of the multiples of a circle's radix-th part
    root_offsets : where those of each pass begin
    """

    radices: numpy.ndarray
    twiddles: numpy.ndarray
    offsets: numpy.ndarray
    roots: numpy.ndarray
    root_offsets: numpy.ndarray

    @property
    def size(self):
        return math.prod(self.radices.tolist())


def factors(n):
    """Radices of a transform of length n, the fast ones first."""
    found = []
    for radix in _COST:
        while n % radix == 0:
            found.append(radix)
            n //= radix
    divisor = 11
    while n > 1:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 2
    return found


def good_length(n):
    """The length of at least n that is likely to be transformed fastest, for padded signals.

    >>> good_length(1000), good_length(2047)
    (1024, 2048)
    """
    best = 1 << max(n - 1, 1).bit_length()
    cost = _cost(best)
    for odd in (3, 5, 7, 9, 15, 21, 25, 27, 35, 45, 49, 63, 75, 81):
        candidate = odd << max(0, (-(-n // odd) - 1).bit_length())
        if _cost(candidate) < cost:
            best, cost = candidate, _cost(candidate)
    return best


def _cost(n):
    return n * sum(_COST[radix] for radix in factors(n))


@functools.lru_cache(maxsize=64)
def plan(n, dtype):
    """The :class:`Plan` for transforms of length n with values of `dtype`.

    Raises
    ------
    ValueError
        If n has a prime factor above LARGEST_FACTOR.
    """
    radices = factors(n)
    if max(radices, default=1) > LARGEST_FACTOR:
        raise ValueError(f"plan: n must have no prime factor above {LARGEST_FACTOR}, got {n}")
    twiddles, offsets, roots, root_offsets, rest = [], [], [], [], n
    for radix in radices:
        offsets.append(sum(map(len, twiddles)))
        root_offsets.append(sum(map(len, roots)))
        part = rest // radix
        angles = 2 * numpy.pi * (numpy.arange(part)[:, None] * numpy.arange(1, radix) % rest) / rest
        twiddles.append(numpy.stack([numpy.cos(angles), -numpy.sin(angles)], -1).ravel())
        circle = 2 * numpy.pi * numpy.arange(radix) / radix
        roots.append(numpy.concatenate([numpy.cos(circle), numpy.sin(circle)]))
        rest = part
    values = [numpy.concatenate([numpy.zeros(0), *parts]).astype(dtype) for parts in (twiddles, roots)]
    indices = [numpy.array(numbers, numpy.int64) for numbers in (radices, offsets, root_offsets)]
    return Plan(indices[0], values[0], indices[1], values[1], indices[2])


def storage_order(n):
    """The frequency at every position of a transform of length n."""
    order = numpy.zeros(1, numpy.int64)
    for radix in reversed(factors(n)):
        order = numpy.concatenate([q + radix * order for q in range(radix)])
    return order


class _Point:
    """A complex vector in the code that is being generated; arithmetic on it emits instructions."""

    def __init__(self, builder, real, imaginary):
        self.builder, self.real, self.imaginary = builder, real, imaginary

    def _of(self, real, imaginary):
        return _Point(self.builder, real, imaginary)

    def _emit(self, operation, a, b):
        return getattr(self.builder, operation)(a, b, flags=("contract",))

    def __add__(self, other):
        real = self._emit("fadd", self.real, other.real)
        return self._of(real, self._emit("fadd", self.imaginary, other.imaginary))

    def __sub__(self, other):
        real = self._emit("fsub", self.real, other.real)
        return self._of(real, self._emit("fsub", self.imaginary, other.imaginary))

    def scaled(self, number):
        factor = ir.Constant(self.real.type, [number] * self.real.type.count)
        return self._of(self._emit("fmul", self.real, factor), self._emit("fmul", self.imaginary, factor))

    def times_i(self, sign):
        """Times sign sqrt(-1)."""
        if sign < 0:
            return self._of(self.imaginary, self.builder.fneg(self.real))
        return self._of(self.builder.fneg(self.imaginary), self.real)

    def turned(self, eighths, sign):
        """Times exp(sign 2 pi sqrt(-1) eighths / 8)."""
        if eighths >= 2:
            return self.times_i(sign).turned(eighths - 2, sign)
        return self if eighths == 0 else (self + self.times_i(sign)).scaled(math.sqrt(0.5))

    def times(self, c, d, sign):
        """Times c - sign d sqrt(-1)."""
        real = self._emit("fmul", self.real, c), self._emit("fmul", self.imaginary, d)
        imaginary = self._emit("fmul", self.imaginary, c), self._emit("fmul", self.real, d)
        first, second = ("fsub", "fadd") if sign < 0 else ("fadd", "fsub")
        return self._of(self._emit(first, *real), self._emit(second, *imaginary))


def _transform(points, sign):
    """The Fourier transform of 2, 4, 8 or an odd number of points."""
    n = len(points)
    if n == 1:
        return points
    if n % 2 == 0:
        even, odd = _transform(points[::2], sign), _transform(points[1::2], sign)
        odd = [point.turned(8 * k // n, sign) for k, point in enumerate(odd)]
        pairs = list(zip(even, odd, strict=True))
        return [a + b for a, b in pairs] + [a - b for a, b in pairs]
    # the points k and n - k share cosines and negate sines
    sums = [points[k] + points[n - k] for k in range(1, n // 2 + 1)]
    differences = [points[k] - points[n - k] for k in range(1, n // 2 + 1)]
    result = [sum(sums, start=points[0])] + [None] * (n - 1)
    for q in range(1, n // 2 + 1):
        angles = [2 * math.pi * (k * q % n) / n for k in range(1, n // 2 + 1)]
        even = sum((s.scaled(math.cos(a)) for s, a in zip(sums, angles, strict=True)), start=points[0])
        first, *others = (d.scaled(math.sin(a)) for d, a in zip(differences, angles, strict=True))
        odd = sum(others, start=first).times_i(sign)
        result[q], result[n - q] = even + odd, even - odd
    return result


class _Memory:
    """Where generated code finds the points of a butterfly: in an array, `gap` values apart, or in a tile."""

    def __init__(self, context, builder, kind, value, place=None, gap=None):
        self.builder, self.vector, self.tile = builder, vector_of(kind), isinstance(kind, Tile)
        self.base = value if self.tile else context.make_array(kind)(context, builder, value).data
        self.place, self.gap = place, gap

    def _address(self, k, part):
        number = ir.IntType(64)
        if self.tile:
            return self.builder.gep(self.base, [number(0), number(2 * k + part)])
        offset = self.builder.add(self.place, self.builder.mul(self.gap, number(k)))
        offset = self.builder.add(offset, number(part * self.vector.count))
        return self.builder.bitcast(
            self.builder.gep(self.base, [offset]), llvm_type(self.vector).as_pointer()
        )

    def load(self, k):
        values = [self.builder.load(self._address(k, part)) for part in range(2)]
        for value in values:
            value.align = self.vector.element.bitwidth // 8
        return _Point(self.builder, *values)

    def store(self, k, point):
        for part, value in enumerate((point.real, point.imaginary)):
            self.builder.store(value, self._address(k, part)).align = self.vector.element.bitwidth // 8


def _generate_butterfly(context, builder, source, target, twiddles, radix, sign):
    """Code for: load, rotate by the conjugate twiddles (inverse), transform, rotate (forward), store."""
    array, w, kind = twiddles
    vector = source.vector
    base = context.make_array(kind)(context, builder, array).data

    def rotated(points):
        factors = [
            splat(
                builder,
                builder.load(builder.gep(base, [builder.add(w, ir.IntType(64)(i))])),
                llvm_type(vector),
            )
            for i in range(2 * (radix - 1))
        ]
        rest = zip(points[1:], factors[::2], factors[1::2], strict=True)
        return [points[0]] + [point.times(c, d, sign) for point, c, d in rest]

    points = [source.load(k) for k in range(radix)]
    points = _transform(points, sign) if sign < 0 else _transform(rotated(points), sign)
    for k, point in enumerate(points if sign > 0 else rotated(points)):
        target.store(k, point)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _butterfly(typing, Z, place, gap, twiddles, w, radix, sign):
    """Transform the points of Z at place + k gap, k < radix, in place. The last two must be constants."""
    constants = radix.literal_value, sign.literal_value

    def generate(context, builder, signature, args):
        memory = _Memory(context, builder, signature.args[0], *args[:3])
        table = args[3], args[4], signature.args[3]
        return _generate_butterfly(context, builder, memory, memory, table, *constants)

    return types.void(Z, types.int64, types.int64, twiddles, types.int64, radix, sign), generate


@intrinsic(prefer_literal=True)
def butterfly_from(typing, t, Z, place, gap, twiddles, w, radix):
    """One forward butterfly from the tile t, which holds real and imaginary parts in turn, to Z."""
    constant = radix.literal_value

    def generate(context, builder, signature, args):
        source = _Memory(context, builder, signature.args[0], args[0])
        target = _Memory(context, builder, signature.args[1], *args[1:4])
        table = args[4], args[5], signature.args[4]
        return _generate_butterfly(context, builder, source, target, table, constant, -1)

    return types.void(t, Z, types.int64, types.int64, twiddles, types.int64, radix), generate


@intrinsic(prefer_literal=True)
def butterfly_to(typing, t, Z, place, gap, twiddles, w, radix):
    """One inverse butterfly from Z to the tile t, which then holds real and imaginary parts in turn."""
    constant = radix.literal_value

    def generate(context, builder, signature, args):
        source = _Memory(context, builder, signature.args[1], *args[1:4])
        target = _Memory(context, builder, signature.args[0], args[0])
        table = args[4], args[5], signature.args[4]
        return _generate_butterfly(context, builder, source, target, table, constant, 1)

    return types.void(t, Z, types.int64, types.int64, twiddles, types.int64, radix), generate


@routine
def _any_pass(Z, z, step, n, twiddles, w, roots, r, radix, sign):
    """A pass of any radix over n points, by the definition of the transform."""
    part, width = n // radix, lanes(Z)
    points = tile(Z, _TWICE_LARGEST)
    for j in range(part):
        for k in range(radix):
            place = z + (j + k * part) * step
            real, imaginary = load(Z, place), load(Z, place + width)
            if sign > 0 and k > 0:
                at = w + 2 * (j * (radix - 1) + k - 1)
                real, imaginary = _rotate(real, imaginary, scalar(twiddles, at), -scalar(twiddles, at + 1))
            points[2 * k] = real
            points[2 * k + 1] = imaginary
        for q in range(radix):
            real = imaginary = zeros(Z)
            for k in range(radix):
                turn = k * q % radix
                cosine, sine = scalar(roots, r + turn), sign * scalar(roots, r + radix + turn)
                a, b = points[2 * k], points[2 * k + 1]
                real = mul_add(-sine, b, mul_add(cosine, a, real))
                imaginary = mul_add(sine, a, mul_add(cosine, b, imaginary))
            if sign < 0 and q > 0:
                at = w + 2 * (j * (radix - 1) + q - 1)
                real, imaginary = _rotate(real, imaginary, scalar(twiddles, at), scalar(twiddles, at + 1))
            place = z + (j + q * part) * step
            store(Z, place, real)
            store(Z, place + width, imaginary)


@helper
def _rotate(real, imaginary, c, d):
    """Times c + d sqrt(-1)."""
    return real * c - imaginary * d, imaginary * c + real * d


@helper
def _any_butterfly(Z, place, gap, twiddles, w, radix, sign):
    if radix == 8:
        _butterfly(Z, place, gap, twiddles, w, 8, sign)
    elif radix == 7:
        _butterfly(Z, place, gap, twiddles, w, 7, sign)
    elif radix == 5:
        _butterfly(Z, place, gap, twiddles, w, 5, sign)
    elif radix == 4:
        _butterfly(Z, place, gap, twiddles, w, 4, sign)
    elif radix == 3:
        _butterfly(Z, place, gap, twiddles, w, 3, sign)
    else:
        _butterfly(Z, place, gap, twiddles, w, 2, sign)


def _level(sign):
    @helper
    def transform(Z, z, step, n, blocks, plan, level):
        """One pass over blocks of n points of Z at z + i step."""
        radices, twiddles, offsets, roots, root_offsets = plan
        radix, w = radices[level], offsets[level]
        part = n // radix
        for block in range(blocks):
            place = z + block * n * step
            if radix > 8:
                _any_pass(Z, place, step, n, twiddles, w, roots, root_offsets[level], radix, sign)
                continue
            for j in range(part):
                rotation = w + 2 * j * (radix - 1)
                _any_butterfly(Z, place + j * step, part * step, twiddles, rotation, radix, sign)

    return transform


_forward_level, _inverse_level = _level(-1), _level(1)


@routine
def forward(Z, z, step, n, plan, first, last):
    """The forward passes of the levels from first up to last, over one block of n points.

    The points are Z[z + i step] for i < n, `step` at least 2 lanes. A whole transform takes all levels, 0 to
    len(plan.radices); before level k there are prod(radices[:k]) blocks, which are independent of each other.
    """
    blocks = 1
    for level in range(first, last):
        _forward_level(Z, z, step, n, blocks, plan, level)
        blocks *= plan[0][level]
        n //= plan[0][level]


@routine
def inverse(Z, z, step, n, plan, first, last):
    """The inverse passes that undo :func:`forward` with the same arguments, up to the factor n."""
    blocks = 1
    for level in range(first, last):
        blocks *= plan[0][level]
        n //= plan[0][level]
    for level in range(last - 1, first - 1, -1):
        blocks //= plan[0][level]
        n *= plan[0][level]
        _inverse_level(Z, z, step, n, blocks, plan, level)
