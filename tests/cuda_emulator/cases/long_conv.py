"""Long convolution: direct and by transforms, causal and to both sides, tails everywhere."""

from harness import Case

from mixers import ops

from . import op_case

for _case in (
    Case("direct", {"x": (2, 70, 35), "h": (70, 35), "D": (35,)}),
    Case("transforms", {"x": (2, 521, 3), "h": (521, 3), "D": (3,)}),
    Case("direct-both-sides", {"x": (1, 19, 3), "h": (39, 3)}, {"causal": False}),
    Case("transforms-both-sides", {"x": (1, 290, 33), "h": (579, 33)}, {"causal": False}),
):
    op_case("long_conv.cu", ops.long_conv1d, _case)
