"""Average pooling: windows of 3 over several strips of rows, other windows along each axis."""

from harness import Case

from mixers import ops

from . import op_case

op_case("pooling.cu", ops.avg_pool, Case("strips", {"x": (2, 17, 9, 8)}, {"minus_identity": True}))
op_case("pooling.cu", ops.avg_pool, Case("tail", {"x": (1, 3, 4, 5)}))
op_case("pooling.cu", ops.avg_pool, Case("any", {"x": (2, 5, 4, 3)}, {"size": 5, "minus_identity": True}))
op_case("pooling.cu", ops.avg_pool, Case("line", {"x": (2, 9, 3)}, {"size": 7}), dtypes=("float32",))
