"""StarReLU over several rounds and a tail, with and without sums; gates of every activation, and of slices."""

from harness import Case

from mixers import ops

from . import kernel_case, op_case

op_case("activation.cu", ops.star_relu, Case("learned", {"x": (3, 5, 601), "scale": (1,), "bias": (1,)}))
op_case("activation.cu", ops.star_relu, Case("squared", {"x": (2, 3, 47)}))
op_case("activation.cu", ops.gate, Case("tail", {"x": (2, 3, 47), "z": (2, 3, 47)}))
for _name in ("silu", "sigmoid", "none"):
    op_case(
        "activation.cu",
        ops.gate,
        Case(_name, {"x": (2, 3, 47), "z": (2, 3, 47)}, {"activation": _name}),
        dtypes=("float32", "float64"),
    )


@kernel_case("activation.cu")
def gate_of_slices(device, dtype):
    wide = device.to_device(Case("wide", {"x": (5, 48)}).draw(dtype)["x"])
    outputs = []
    for start in (16, 17):
        y, saved = ops.gate.forward(wide[:, :16], wide[:, start : start + 16])
        outputs += [y, *ops.gate.backward(wide[:, 32:], saved)]
    return tuple(outputs)
