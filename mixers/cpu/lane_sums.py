"""Many sums over the lanes at once, as gradients of coefficients that all channels share need them.

Two vectors are folded into one with half of the lanes for each; folding such vectors again leaves a quarter
for each of four, until every lane is the sum of another vector: three operations per vector, where adding up
the lanes of one vector takes two per halving.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mixers.cpu.vector_type import Tile, Vector


def _fold(builder, a, b, width):
    """Per pair of blocks of `width` lanes: the sum of a's blocks first, then the sum of b's."""
    n = a.type.count
    second = [bool(lane & width) for lane in range(n)]
    kind = ir.VectorType(ir.IntType(32), n)
    kept = ir.Constant(kind, [lane + n * of_b for lane, of_b in enumerate(second)])
    other = ir.Constant(kind, [(lane ^ width) + n * of_b for lane, of_b in enumerate(second)])
    return builder.fadd(builder.shuffle_vector(a, b, kept), builder.shuffle_vector(a, b, other))


@intrinsic
def fold(typing, a, b):
    """A vector with the lanes of a summed in its lower half by two and those of b in its upper half."""
    if not isinstance(a, Vector) or a != b:
        return None

    def generate(context, builder, signature, args):
        return _fold(builder, *args, signature.return_type.count // 2)

    return a(a, b), generate


@intrinsic
def folded_sums(typing, folded, start):
    """Finish the sums of as many pairs of vectors as half a vector has lanes, each folded into one.

    Of a :func:`mixers.cpu.simd.tile`, from index `start` on. Lane i is the sum of the first vector of pair i,
    lane i + half the lanes that of its second.
    """
    if not isinstance(folded, Tile):
        return None

    def generate(context, builder, signature, args):
        tile, start = args
        width = signature.return_type.count // 2
        index = [builder.add(start, ir.IntType(64)(i)) for i in range(width)]
        rows = [builder.load(builder.gep(tile, [ir.IntType(64)(0), i])) for i in index]
        while len(rows) > 1:
            width //= 2
            half = len(rows) // 2
            rows = [_fold(builder, a, b, width) for a, b in zip(rows[:half], rows[half:], strict=True)]
        return rows[0]

    return folded.vector(folded, types.int64), generate
