"""Spectral filters of even and odd grids, and long convolutions, whose grid is larger than the image."""

from harness import Case

from mixers import ops

from . import op_case

for _h, _w in ((4, 6), (5, 7)):
    _weights = (_h, _w // 2 + 1, 33)
    op_case(
        "filter.cu",
        ops.spectral_filter,
        Case("grid", {"x": (3, _h, _w, 33), "w_re": _weights, "w_im": _weights}),
    )
op_case(
    "filter.cu",
    ops.long_conv2d,
    Case("image", {"x": (2, 3, 4, 5), "h": (3, 4, 5), "D": (5,)}, {"reverse": (True, False)}),
)
# so many items that a block takes several
op_case(
    "filter.cu",
    ops.spectral_filter,
    Case("batch", {"x": (258, 2, 2, 1), "w_re": (2, 2, 1), "w_im": (2, 2, 1)}),
    dtypes=("float32",),
)
