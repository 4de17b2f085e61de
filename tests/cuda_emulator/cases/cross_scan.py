"""Scans along several orders: own and shared arrays, both places of the coefficients, segments."""

from harness import Case
from test_cross_scan import BOTH, LAW, crossed, options

from mixers import ops

from . import op_case

for _file in ("scan_forward.cu", "scan_backward.cu"):
    op_case(
        _file,
        ops.cross_selective_scan,
        Case("own", crossed(1, 50, 68, 16, 2, **BOTH), options(2, 50, delta_softplus=True)),
        dtypes=None if _file == "scan_backward.cu" else ("float32",),
    )
    op_case(
        _file,
        ops.cross_selective_scan,
        Case(
            "storage",
            crossed(2, 37, 6, 3, 3, (*LAW, "C"), **BOTH),
            options(3, 37, delta_softplus=True, ordered_coefficients=False),
        ),
        dtypes=("float32",),
    )
# 150 tokens make two segments
for _ordered in (True, False):
    op_case(
        "scan_segments.cu",
        ops.cross_selective_scan,
        Case(
            f"segments-{'ordered' if _ordered else 'storage'}",
            crossed(1, 150, 5, 6, 2, ("B",), delta=(-3.0, 1.0), **BOTH),
            options(2, 150, delta_softplus=True, ordered_coefficients=_ordered),
        ),
        dtypes=("float32",),
    )
