"""Every unary op, over full 16-byte accesses and a tail, aligned and not."""

from harness import Case

from mixers import ops

from . import kernel_case, op_case

_TAIL = Case("tail", {"x": (2, 3, 47)})
op_case("elementwise.cu", ops.gelu, _TAIL)
# the storage types are the same for all, the functions exist in float and double
for _name in "gelu_tanh silu relu sigmoid tanh softplus sin exp absolute".split():
    op_case("elementwise.cu", getattr(ops, _name), _TAIL, dtypes=("float32", "float64"))


@kernel_case("elementwise.cu", dtypes=("float32", "float64"))
def unaligned(device, dtype):
    x = device.to_device(Case("unaligned", {"x": (100,)}).draw(dtype)["x"])[1:]
    y, saved = ops.silu.forward(x)
    return y, ops.silu.backward(x, saved)
