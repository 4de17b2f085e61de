"""Products of images with tails of rows, columns and channels."""

from harness import Case

from mixers import ops

from . import op_case

op_case("spatial.cu", ops.spatial_matmul, Case("product", {"x": (2, 5, 6, 35), "z": (2, 6, 7, 35)}))
