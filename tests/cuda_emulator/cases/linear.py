"""Biases of linear maps and their gradients: wide accesses and single ones, several blocks of rows."""

from harness import Case

from mixers import ops

from . import op_case

op_case("linear.cu", ops.linear, Case("wide", {"x": (3, 200, 4), "w": (4, 40), "b": (40,)}))
op_case("linear.cu", ops.linear, Case("tail", {"x": (2, 3, 4), "w": (4, 7), "b": (7,)}))
op_case("linear.cu", ops.axis_linear, Case("axis", {"x": (2, 3, 5, 8), "w": (4, 5), "b": (4,)}, {"axis": 2}))
_MLP = {"x": (2, 3, 8), "w_in": (5, 3), "w_out": (3, 5)}
op_case("linear.cu", ops.token_mlp, Case("mlp", {**_MLP, "b_in": (5,), "b_out": (3,)}))
op_case("linear.cu", ops.token_mlp, Case("mlp-plain", _MLP, {"activation": "relu"}), dtypes=("float32",))
