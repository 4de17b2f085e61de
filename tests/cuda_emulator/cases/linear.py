"""Biases of linear maps and their gradients: wide accesses and single ones, several blocks of rows."""

from harness import Case

from mixers import ops

from . import op_case

op_case("linear.cu", ops.linear, Case("wide", {"x": (3, 200, 4), "w": (4, 40), "b": (40,)}))
op_case("linear.cu", ops.linear, Case("tail", {"x": (2, 3, 4), "w": (4, 7), "b": (7,)}))
op_case("linear.cu", ops.axis_linear, Case("axis", {"x": (2, 3, 5, 8), "w": (4, 5), "b": (4,)}, {"axis": 2}))
