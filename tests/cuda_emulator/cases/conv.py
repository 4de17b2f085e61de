"""Depthwise convolutions: rings with tails, cut rows and shared rows, any other kernel, causal strips."""

from harness import Case

from mixers import ops

from . import op_case

# 41 rows are cut between blocks, 65 columns are shared by two, 20 channels are no full block
op_case("conv.cu", ops.depthwise_conv2d, Case("k3", {"x": (1, 41, 10, 20), "w": (3, 3, 20), "b": (20,)}))
op_case("conv.cu", ops.depthwise_conv2d, Case("k5", {"x": (2, 9, 6, 3), "w": (5, 5, 3)}))
op_case("conv.cu", ops.depthwise_conv2d, Case("k7", {"x": (1, 41, 14, 8), "w": (7, 7, 8), "b": (8,)}))
op_case(
    "conv.cu",
    ops.depthwise_conv2d,
    Case("k7-shared-rows", {"x": (1, 5, 65, 3), "w": (7, 7, 3)}),
    dtypes=("float32",),
)
# blocks that sum over two images
for _taps in (3, 7):
    op_case(
        "conv.cu",
        ops.depthwise_conv2d,
        Case(f"k{_taps}-images", {"x": (17, 3, 4, 8), "w": (_taps, _taps, 8)}),
        dtypes=("float32",),
    )
op_case(
    "conv.cu",
    ops.depthwise_conv2d,
    Case("any", {"x": (1, 66, 6, 40), "w": (2, 3, 40), "b": (40,)}, {"dilation": 2}),
)
for _taps in (2, 3, 4):
    op_case(
        "conv.cu",
        ops.causal_conv1d,
        Case(
            f"causal-{_taps}",
            {"x": (2, 70, 8), "w": (_taps, 8), "b": (8,), "initial_state": (2, _taps - 1, 8)},
            {"return_final_state": True},
        ),
        dtypes=None if _taps == 4 else ("float32",),
    )
op_case(
    "conv.cu",
    ops.causal_conv1d,
    Case("causal-tail", {"x": (1, 37, 5), "w": (4, 5)}, {"activation": "none"}),
    dtypes=("float32", "bfloat16"),
)
