"""Grouped convolutions, with and without a bias."""

from harness import Case

from mixers import ops

from . import op_case

op_case(
    "grouped_conv.cu",
    ops.grouped_conv2d,
    Case("groups", {"x": (2, 3, 5, 8), "w": (3, 5, 4, 6), "b": (6,)}, {"groups": 2}),
)
