"""The Numba types behind :mod:`mixers.cpu.simd`, and how their values look to LLVM."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import models, register_model


def _vector_bits():
    """Width of the widest vector register that the compiler uses for this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    chosen = config.CPU_FEATURES
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=config.CPU_NAME or llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten() if chosen is None else chosen,
    )
    module = llvm.parse_assembly(
        "define <16 x float> @f(<16 x float> %a, <16 x float> %b) {\n"
        "  %c = fadd <16 x float> %a, %b\n"
        "  ret <16 x float> %c\n}"
    )
    module.triple = llvm.get_process_triple()
    assembly = machine.emit_assembly(module)
    return 512 if "zmm" in assembly else 256 if "ymm" in assembly else 128


BITS = _vector_bits()
REGISTERS = 32 if BITS == 512 or not llvm.get_process_triple().startswith(("x86", "i686")) else 16


class Vector(types.Type):
    """Numba type of `count` values of one scalar type in a register."""

    def __init__(self, element, count):
        self.element, self.count = element, count
        super().__init__(f"vector({element} x {count})")

    @property
    def floating(self):
        return isinstance(self.element, types.Float)

    def of(self, element):
        """The type with the same number of values of another scalar type."""
        return Vector(element, self.count)


class Tile(types.Type):
    """Numba type of a few vectors on the stack, which the optimiser moves into registers."""

    def __init__(self, vector, count):
        self.vector, self.count = vector, count
        super().__init__(f"tile({count} x {vector})")


SCALARS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.boolean: ir.IntType(1),
}
INTEGER = {types.float32: types.int32, types.float64: types.int64}
FLOAT = {types.int32: types.float32, types.int64: types.float64}


def llvm_type(vector):
    return ir.VectorType(SCALARS[vector.element], vector.count)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, llvm_type(vector))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, ir.ArrayType(llvm_type(tile.vector), tile.count).as_pointer())


def vector_of(kind):
    """The vector type that belongs to an array, a vector, a tile or a scalar."""
    if isinstance(kind, Vector):
        return kind
    if isinstance(kind, Tile):
        return kind.vector
    element = kind.dtype if isinstance(kind, types.Array) else kind
    return Vector(element, BITS // element.bitwidth)


def splat(builder, scalar, kind):
    """A vector with the value in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None))


def as_vectors(context, builder, vector, kinds, values):
    """Numbers cast to the vector's type and repeated; vectors stay as they are."""
    return [
        value
        if isinstance(kind, Vector)
        else splat(builder, context.cast(builder, value, kind, vector.element), llvm_type(vector))
        for kind, value in zip(kinds, values, strict=True)
    ]


def call(builder, name, vector, args, result=None, suffix=""):
    """Call the LLVM intrinsic `name` for a vector type, such as name.v16f32; it returns such a vector."""
    kind = ir.FunctionType(result or llvm_type(vector), [arg.type for arg in args])
    full_name = f"{name}.v{vector.count}f{vector.element.bitwidth}{suffix}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full_name), args)
