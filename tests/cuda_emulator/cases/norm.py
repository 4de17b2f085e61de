"""Norms over channels: full 16-byte accesses and single ones, several blocks of tokens."""

from harness import Case

from mixers import ops

from . import op_case

op_case("norm.cu", ops.layer_norm, Case("wide", {"x": (2, 260, 40), "scale": (40,), "bias": (40,)}))
op_case("norm.cu", ops.rms_norm, Case("tail", {"x": (3, 5, 33), "scale": (33,)}))
op_case("norm.cu", ops.layer_norm, Case("plain", {"x": (1, 9, 7)}), dtypes=("float32", "float64"))
