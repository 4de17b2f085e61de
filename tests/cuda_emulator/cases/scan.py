"""Scans: several tiles and chunks with tails, segments with and without growth, every split of the states."""

import numpy
from harness import Case
from test_scan import EVERYTHING, selective, update

from mixers import ops

from . import op_case

_SOFTPLUS = {"delta_softplus": True, "return_last_state": True}

for _file in ("scan_forward.cu", "scan_backward.cu"):
    op_case(
        _file,
        ops.selective_scan,
        Case("everything", selective(1, 50, 68, 16, **EVERYTHING), _SOFTPLUS),
        dtypes=None if _file == "scan_backward.cu" else ("float32",),
    )
    op_case(_file, ops.selective_scan, Case("groups", selective(1, 37, 6, 3, g=2)), dtypes=("float32",))
# 150 tokens make two segments
op_case(
    "scan_segments.cu",
    ops.selective_scan,
    Case("segments", selective(1, 150, 5, 6, delta=(-3.0, 1.0), **EVERYTHING), _SOFTPLUS),
    dtypes=("float32", "float64"),
)
op_case(
    "scan_segments.cu",
    ops.selective_scan,
    Case("some-grow", selective(1, 150, 3, 1, A=(-0.1, 0.1)), {"reverse": True, "delta_softplus": True}),
    dtypes=("float32",),
)
# two launches of 72 states
op_case(
    "scan_backward.cu",
    ops.selective_scan,
    Case("parts", selective(1, 18, 3, 144, D=True, z=True), {"delta_softplus": True}),
    dtypes=("float32",),
)
_random = numpy.random.default_rng(3)
for _file, _length in (("scan_forward.cu", 50), ("scan_backward.cu", 50), ("scan_segments.cu", 150)):
    op_case(
        _file,
        ops.selective_scan,
        Case(
            "marked",
            selective(1, _length, 5, 6, delta=(-3.0, 1.0), **EVERYTHING),
            _SOFTPLUS
            | {
                "sequence_starts": _random.random((1, _length)) < 0.05,
                "mask": _random.random((1, _length)) < 0.8,
            },
        ),
        dtypes=("float32",),
    )
op_case(
    "scan_linear.cu",
    ops.linear_scan,
    Case("state", {"a": (1, 150, 33), "b": (1, 150, 33), "h0": (1, 33)}, {"return_last_state": True}),
)
op_case(
    "scan_update.cu",
    ops.selective_state_update,
    Case("everything", update(2, 9, 20, D=True, z=True, delta_bias=True), {"delta_softplus": True}),
)
