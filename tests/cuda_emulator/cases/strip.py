"""Biases along diagonals, within and beyond the table."""

from harness import Case

from mixers import ops

from . import op_case

op_case("strip.cu", ops.relative_bias, Case("clipped", {"x": (2, 3, 9, 5), "table": (7, 5)}))
