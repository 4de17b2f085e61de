"""Windows of nine tokens, shifted: warps without a query, and lanes without a key."""

from harness import Case

from mixers import ops

from . import op_case

_GRID = {name: (1, 3, 6, 3, 33) for name in "qkv"}

op_case(
    "attention.cu",
    ops.shifted_window_attention,
    Case("shifted", {**_GRID, "table": (25, 3)}, {"window": 3, "shift": 1}),
)
