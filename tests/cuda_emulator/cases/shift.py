"""Shifts in every mode, within and beyond the grid."""

import numpy
from harness import Case

from mixers import ops

from . import op_case

for _mode in ("zero", "clamp", "wrap"):
    op_case(
        "shift.cu",
        ops.channel_shift,
        Case(_mode, {"x": (2, 5, 3, 7)}, {"shifts": numpy.arange(7) * 2 - 6, "axis": 1, "mode": _mode}),
    )
op_case(
    "shift.cu",
    ops.channel_shift,
    Case(
        "both-axes",
        {"x": (2, 4, 3, 5)},
        {"shifts": numpy.stack([numpy.arange(5) - 2, 1 - numpy.arange(5)]), "axis": (1, 2), "mode": "clamp"},
    ),
)
