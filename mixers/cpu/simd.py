"""Explicit vectors inside kernels.

A vector holds as many consecutive values as one register of this processor: ``lanes(x)`` of them, where x
is an array of float32 or float64. The same kernel source serves both types, because every function here
takes the type from its arguments::

    @kernel
    def axpy(a, x, y, counter):
        for task in tasks(counter):
            for i in range(task * 4096, (task + 1) * 4096, lanes(x)):
                store(y, i, mul_add(full(x, a), load(x, i), load(y, i)))

Arrays are C-contiguous of any rank; offsets count values from the start of the array and are not checked,
which also spares the test for negative indices. Vectors know ``+ - * /``, unary ``-``, comparisons (the
result is a mask for :func:`select`) and ``& | ^ ~ << >>`` on masks and integer vectors. A plain number
beside a vector stands for a vector of that number in the vector's own type. Nothing here hides NaN or Inf;
``a * b + c`` may become a fused multiply-add.

Sums over many steps belong in registers: a :func:`tile` is a small array of vectors that the compiler
keeps there, if all loops over it have constant bounds and it stays in the function that made it. Count on
``REGISTERS - 2`` vectors for the tile and everything else that is alive in the innermost loop.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, type_callable

from mixers.cpu.vector_type import (
    BITS,
    FLOAT,
    INTEGER,
    REGISTERS,
    SCALARS,
    Tile,
    Vector,
    as_vectors,
    call,
    llvm_type,
    splat,
    vector_of,
)

__all__ = [
    "BITS",
    "REGISTERS",
    "any_lane",
    "bits",
    "clamp",
    "floor",
    "from_bits",
    "full",
    "lane",
    "lanes",
    "load",
    "load_first",
    "max_lanes",
    "maximum",
    "minimum",
    "mul_add",
    "prefetch",
    "scalar",
    "select",
    "single",
    "sqrt",
    "square_tile",
    "store",
    "store_first",
    "sum_lanes",
    "tile",
    "to_float",
    "to_integer",
    "transpose",
    "with_lane",
    "zeros",
]


def _common(*kinds):
    """The vector type of an operation: vectors of one type, and perhaps numbers; else None."""
    vectors = {kind for kind in kinds if isinstance(kind, Vector)}
    others = [kind for kind in kinds if not isinstance(kind, Vector | types.Number)]
    return vectors.pop() if len(vectors) == 1 and not others else None


def _define(operation, result, emit):
    """Define an operator for (vector, vector), (vector, number) and (number, vector)."""

    @type_callable(operation)
    def type_of(context):
        def typer(a, b):
            vector = _common(a, b)
            return vector and result(vector)

        return typer

    def generate(context, builder, signature, args):
        vector = _common(*signature.args)
        return emit(builder, vector, *as_vectors(context, builder, vector, signature.args, args))

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(operation, *pair)(generate)


def _define_arithmetic(name, floating, integer):
    def emit(builder, vector, a, b):
        if vector.floating:
            return getattr(builder, floating)(a, b, flags=("contract",))
        return getattr(builder, integer)(a, b)

    def result(vector):
        return vector if (floating if vector.floating else integer) else None

    for operation in (getattr(operator, name), getattr(operator, "i" + name.rstrip("_"))):
        _define(operation, result, emit)


def _define_comparison(name, sign):
    def emit(builder, vector, a, b):
        if vector.floating:
            compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
            return compare(sign, a, b)
        return builder.icmp_signed(sign, a, b)

    _define(getattr(operator, name), lambda vector: vector.of(types.boolean), emit)


for _row in (
    ("add", "fadd", "add"),
    ("sub", "fsub", "sub"),
    ("mul", "fmul", "mul"),
    ("truediv", "fdiv", None),
    ("and_", None, "and_"),
    ("or_", None, "or_"),
    ("xor", None, "xor"),
    ("lshift", None, "shl"),
    ("rshift", None, "ashr"),
):
    _define_arithmetic(*_row)
for _row in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!=")):
    _define_comparison(*_row)


def _define_unary(operation, accepts, emit):
    @type_callable(operation)
    def type_of(context):
        return lambda a: a if isinstance(a, Vector) and accepts(a) else None

    @lower_builtin(operation, Vector)
    def generate(context, builder, signature, args):
        return emit(builder, signature.return_type, *args)


def _emit_not(builder, vector, a):
    return builder.not_(a)


def _emit_negative(builder, vector, a):
    return builder.fneg(a) if vector.floating else builder.neg(a)


def _emit_absolute(builder, vector, a):
    return call(builder, "llvm.fabs", vector, [a])


_define_unary(operator.neg, lambda v: v.element != types.boolean, _emit_negative)
_define_unary(operator.invert, lambda v: not v.floating, _emit_not)
_define_unary(abs, lambda v: v.floating, _emit_absolute)


@intrinsic
def mul_add(typing, a, b, c):
    """a * b + c, with one rounding where the processor can. Numbers may stand for vectors."""
    vector = _common(a, b, c)
    if vector is None or not vector.floating:
        return None

    def generate(context, builder, signature, args):
        args = as_vectors(context, builder, vector, signature.args, args)
        return call(builder, "llvm.fmuladd", vector, args)

    return vector(a, b, c), generate


@intrinsic
def select(typing, mask, a, b):
    """The lanes of a where the mask is set, of b elsewhere; one of them may be a number."""
    vector = _common(a, b)
    if vector is None or mask != vector.of(types.boolean):
        return None

    def generate(context, builder, signature, args):
        chosen = as_vectors(context, builder, vector, signature.args[1:], args[1:])
        return builder.select(args[0], *chosen)

    return vector(mask, a, b), generate


def _ordered(builder, sign, a, b):
    """The smaller ("<") or larger (">") lanes; NaN if either is NaN."""
    chosen = builder.select(builder.fcmp_ordered(sign, a, b), a, b)
    # the comparison with a NaN in a chose b; one in b is kept already
    return builder.select(builder.fcmp_unordered("uno", a, a), a, chosen)


def _extremum(sign, a, b):
    vector = _common(a, b)
    if vector is None or not vector.floating:
        return None

    def generate(context, builder, signature, args):
        return _ordered(builder, sign, *as_vectors(context, builder, vector, signature.args, args))

    return vector(a, b), generate


@intrinsic
def minimum(typing, a, b):
    """The smaller of a and b per lane; NaN where either is NaN."""
    return _extremum("<", a, b)


@intrinsic
def maximum(typing, a, b):
    """The larger of a and b per lane; NaN where either is NaN."""
    return _extremum(">", a, b)


@intrinsic
def clamp(typing, a, low, high):
    """The vector a limited to [low, high], two numbers; a NaN stays."""
    if not isinstance(a, Vector) or not a.floating:
        return None

    def generate(context, builder, signature, args):
        value, low, high = as_vectors(context, builder, a, signature.args, args)
        # the value is the second operand, which x86 returns if a comparison is unordered
        value = builder.select(builder.fcmp_ordered(">", low, value), low, value)
        return builder.select(builder.fcmp_ordered("<", high, value), high, value)

    return a(a, low, high), generate


def _float_function(name, vector):
    if not isinstance(vector, Vector) or not vector.floating:
        return None
    return vector(vector), lambda context, builder, signature, args: call(builder, name, vector, args)


@intrinsic
def sqrt(typing, a):
    """Square root per lane; NaN below zero."""
    return _float_function("llvm.sqrt", a)


@intrinsic
def floor(typing, a):
    """The largest whole number not above a, per lane."""
    return _float_function("llvm.floor", a)


@intrinsic
def full(typing, like, number):
    """A vector of the type of `like` (array, vector, tile or scalar) with `number` in all lanes."""
    vector = vector_of(like)

    def generate(context, builder, signature, args):
        return as_vectors(context, builder, vector, signature.args[1:], args[1:])[0]

    return vector(like, number), generate


@intrinsic
def zeros(typing, like):
    """A vector of zeros of the type of `like` (array, vector, tile or scalar)."""
    vector = vector_of(like)
    return vector(like), lambda context, builder, signature, args: ir.Constant(llvm_type(vector), None)


@intrinsic
def single(typing, number):
    """A vector with one lane, for the functions of vectors applied to a number; see :func:`lane`."""
    vector = Vector(number, 1)

    def generate(context, builder, signature, args):
        return builder.insert_element(
            ir.Constant(llvm_type(vector), ir.Undefined), args[0], ir.IntType(32)(0)
        )

    return vector(number), generate


def lanes(array):
    """Number of values of the array's dtype in one vector; works in kernels and in Python."""
    return BITS // (8 * array.dtype.itemsize)


@type_callable(lanes)
def _type_lanes(context):
    return lambda like: types.intp


@lower_builtin(lanes, types.Any)
def _lower_lanes(context, builder, signature, args):
    return ir.IntType(64)(vector_of(signature.args[0]).count)


def _in_memory(array, writable=False):
    """The vector type of an array argument; None, which is a typing error, if it is unfit."""
    fit = isinstance(array, types.Array) and array.layout == "C" and (array.mutable or not writable)
    return vector_of(array) if fit else None


def _place(context, builder, kind, array, offset, pointee=None):
    place = builder.gep(context.make_array(kind)(context, builder, array).data, [offset])
    return place if pointee is None else builder.bitcast(place, pointee.as_pointer())


def _bytes(vector):
    return vector.element.bitwidth // 8


@intrinsic
def load(typing, array, offset):
    """The vector that starts at the offset."""
    vector = _in_memory(array)
    if vector is None:
        return None

    def generate(context, builder, signature, args):
        value = builder.load(_place(context, builder, signature.args[0], *args, llvm_type(vector)))
        value.align = _bytes(vector)
        return value

    return vector(array, types.int64), generate


@intrinsic
def store(typing, array, offset, value):
    """Write the vector to the array, beginning at the offset."""
    vector = _in_memory(array, writable=True)
    if vector is None or value != vector:
        return None

    def generate(context, builder, signature, args):
        array, offset, value = args
        place = _place(context, builder, signature.args[0], array, offset, llvm_type(vector))
        builder.store(value, place).align = _bytes(vector)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


def _first_lanes(builder, vector, count):
    """Mask of the lanes below `count`, a number of at least 0."""
    kind = ir.VectorType(SCALARS[INTEGER[vector.element]], vector.count)
    if kind.element.width < 64:
        count = builder.trunc(count, kind.element)
    return builder.icmp_unsigned(
        "<", ir.Constant(kind, list(range(vector.count))), splat(builder, count, kind)
    )


@intrinsic
def load_first(typing, array, offset, count):
    """The first `count` lanes from the array, zero in the others, whose memory is not touched."""
    vector = _in_memory(array)
    if vector is None:
        return None

    def generate(context, builder, signature, args):
        array, offset, count = args
        place = _place(context, builder, signature.args[0], array, offset, llvm_type(vector))
        mask = _first_lanes(builder, vector, count)
        align = ir.IntType(32)(_bytes(vector))
        rest = ir.Constant(llvm_type(vector), None)
        return call(builder, "llvm.masked.load", vector, [place, align, mask, rest], suffix=".p0")

    return vector(array, types.int64, types.int64), generate


@intrinsic
def store_first(typing, array, offset, value, count):
    """Write the first `count` lanes; the memory of the others is not touched."""
    vector = _in_memory(array, writable=True)
    if vector is None or value != vector:
        return None

    def generate(context, builder, signature, args):
        array, offset, value, count = args
        place = _place(context, builder, signature.args[0], array, offset, llvm_type(vector))
        mask = _first_lanes(builder, vector, count)
        align = ir.IntType(32)(_bytes(vector))
        call(builder, "llvm.masked.store", vector, [value, place, align, mask], ir.VoidType(), ".p0")
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), generate


@intrinsic
def prefetch(typing, array, offset):
    """Ask for the cache line of the value at the offset, which may lie outside of the array."""
    if _in_memory(array) is None:
        return None

    def generate(context, builder, signature, args):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(_place(context, builder, signature.args[0], *args), byte)
        # to be read, to be kept in all levels, data
        builder.call(function, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(array, types.int64), generate


@intrinsic
def scalar(typing, array, offset):
    """One value of the array. Beside a vector it stands for all lanes: ``scalar(w, k) * load(x, i)``."""
    if _in_memory(array) is None:
        return None

    def generate(context, builder, signature, args):
        return builder.load(_place(context, builder, signature.args[0], *args))

    return array.dtype(array, types.int64), generate


@intrinsic
def lane(typing, vector, index):
    """The value in one lane."""

    def generate(context, builder, signature, args):
        return builder.extract_element(*args)

    return vector.element(vector, types.int64), generate


@intrinsic
def with_lane(typing, vector, index, number):
    """The vector with another value in one lane."""

    def generate(context, builder, signature, args):
        value, index, number = args
        return builder.insert_element(value, number, index)

    return vector(vector, types.int64, vector.element), generate


def _halving(combine):
    """Combine all lanes, the upper half with the lower until one is left: a fixed order."""

    def generate(context, builder, signature, args):
        (value,) = args
        while value.type.count > 1:
            half = value.type.count // 2
            kind = ir.VectorType(ir.IntType(32), half)
            low, high = (
                builder.shuffle_vector(value, value, ir.Constant(kind, list(range(start, start + half))))
                for start in (0, half)
            )
            value = combine(builder, low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return generate


@intrinsic
def sum_lanes(typing, vector):
    """The sum of all lanes."""
    return vector.element(vector), _halving(lambda builder, low, high: builder.fadd(low, high))


@intrinsic
def max_lanes(typing, vector):
    """The largest of all lanes; NaN if one is NaN."""
    return vector.element(vector), _halving(lambda builder, low, high: _ordered(builder, ">", low, high))


@intrinsic
def any_lane(typing, mask):
    """Whether the mask is set in any lane."""
    if not isinstance(mask, Vector) or mask.element != types.boolean:
        return None

    def generate(context, builder, signature, args):
        whole = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], whole), whole(0))

    return types.boolean(mask), generate


def _conversion(instruction, elements, vector):
    if not isinstance(vector, Vector) or vector.element not in elements:
        return None
    result = vector.of(elements[vector.element])

    def generate(context, builder, signature, args):
        return getattr(builder, instruction)(args[0], llvm_type(result))

    return result(vector), generate


@intrinsic
def bits(typing, vector):
    """The bit patterns of float lanes as integers of the same width."""
    return _conversion("bitcast", INTEGER, vector)


@intrinsic
def from_bits(typing, vector):
    """The floats with these bit patterns; the inverse of :func:`bits`."""
    return _conversion("bitcast", FLOAT, vector)


@intrinsic
def to_integer(typing, vector):
    """Float lanes, rounded towards zero, as integers of the same width; they must fit."""
    return _conversion("fptosi", INTEGER, vector)


@intrinsic
def to_float(typing, vector):
    """Integer lanes as floats of the same width."""
    return _conversion("sitofp", FLOAT, vector)


@intrinsic(prefer_literal=True)
def tile(typing, like, count):
    """`count` vectors of the type of `like`, to be set before use: ``t[i] = ...; t[i]``.

    The count must be a literal or a global integer of the module, not an expression.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = Tile(vector_of(like), count.literal_value)

    def generate(context, builder, signature, args):
        return cgutils.alloca_once(builder, ir.ArrayType(llvm_type(kind.vector), kind.count))

    return kind(like, count), generate


@intrinsic
def square_tile(typing, like):
    """A :func:`tile` of as many vectors as each has lanes."""
    vector = vector_of(like)
    kind = Tile(vector, vector.count)

    def generate(context, builder, signature, args):
        return cgutils.alloca_once(builder, ir.ArrayType(llvm_type(vector), kind.count))

    return kind(like), generate


@intrinsic
def transpose(typing, square):
    """Exchange the vectors and the lanes of a :func:`square_tile`, in place."""
    if not isinstance(square, Tile) or square.count != square.vector.count:
        return None
    n = square.count

    def generate(context, builder, signature, args):
        places = [builder.gep(args[0], [ir.IntType(64)(0), ir.IntType(64)(i)]) for i in range(n)]
        rows = [builder.load(place) for place in places]
        kind = ir.VectorType(ir.IntType(32), n)
        # riffling the first half of the rows with the second, log2 n times
        riffled = [lane for i in range(n) for lane in (i, n + i)]
        low, high = (ir.Constant(kind, riffled[start : start + n]) for start in (0, n))
        for _ in range(n.bit_length() - 1):
            pairs = list(zip(rows[: n // 2], rows[n // 2 :], strict=True))
            rows = [builder.shuffle_vector(*pair, half) for pair in pairs for half in (low, high)]
        for place, row in zip(places, rows, strict=True):
            builder.store(row, place)
        return context.get_dummy_value()

    return types.void(square), generate


def _tile_place(builder, signature, tile, index):
    index = builder.sext(index, ir.IntType(64)) if index.type.width < 64 else index
    return builder.gep(tile, [ir.IntType(64)(0), index])


@type_callable(operator.getitem)
def _type_get(context):
    return lambda kind, index: (
        kind.vector if isinstance(kind, Tile) and isinstance(index, types.Integer) else None
    )


@lower_builtin(operator.getitem, Tile, types.Integer)
def _lower_get(context, builder, signature, args):
    return builder.load(_tile_place(builder, signature, *args))


@type_callable(operator.setitem)
def _type_set(context):
    return lambda kind, index, value: types.void if isinstance(kind, Tile) and value == kind.vector else None


@lower_builtin(operator.setitem, Tile, types.Integer, Vector)
def _lower_set(context, builder, signature, args):
    tile, index, value = args
    builder.store(value, _tile_place(builder, signature, tile, index))
    return context.get_dummy_value()
