"""Moments, sums and maps of the norms over tokens: several blocks of rows, a tail of channels."""

from harness import Case

from mixers import ops

from . import op_case

_STATISTICS = {"scale": (33,), "bias": (33,), "mean": (33,), "var": lambda rng: rng.uniform(0.5, 2.0, 33)}

op_case(
    "token_norm.cu", ops.batch_norm, Case("training", {"x": (2, 260, 33), **_STATISTICS}, {"training": True})
)
op_case(
    "token_norm.cu",
    ops.group_norm,
    Case("groups", {"x": (2, 19, 34), "scale": (34,), "bias": (34,)}, {"groups": 2}),
)
