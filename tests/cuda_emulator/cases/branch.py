"""Attention over branches: a tail of channels, several blocks of tokens, both poolings."""

from harness import Case

from mixers import ops

from . import op_case

_WEIGHTS = {"w_in": (33, 4), "w_out": lambda rng: 0.1 * rng.standard_normal((4, 99))}

op_case(
    "branch.cu",
    ops.branch_attention,
    Case(
        "mean", {**dict.fromkeys(("z0", "z1", "z2"), (2, 520, 33)), **_WEIGHTS, "b_in": (4,), "b_out": (99,)}
    ),
)
