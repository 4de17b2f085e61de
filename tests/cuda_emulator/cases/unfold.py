"""Windows of an image with stride and padding."""

from harness import Case

from mixers import ops

from . import op_case

op_case(
    "unfold.cu", ops.unfold2d, Case("windows", {"x": (2, 7, 6, 5)}, {"size": 3, "stride": 2, "padding": 1})
)
