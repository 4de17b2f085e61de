"""Pooling of blocks and upsampling, odd sizes."""

from harness import Case

from mixers import ops

from . import op_case

op_case("resample.cu", ops.avg_pool_2x2, Case("odd", {"x": (2, 5, 7, 3)}))
op_case("resample.cu", ops.nearest_upsample, Case("odd", {"x": (2, 3, 4, 3)}, {"grid": (7, 9)}))
