"""The simplex projection: rows longer than a warp, and the last block not full."""

from harness import Case

from mixers import ops

from . import op_case

op_case("kan_map.cu", ops.simplex_projection, Case("rows", {"x": (11, 70)}))
op_case("kan_map.cu", ops.simplex_projection, Case("short", {"x": (3, 4)}), ("float32",))
