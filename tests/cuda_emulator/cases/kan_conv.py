"""Kolmogorov-Arnold layers on windows: several tiles of windows, taps and outputs; strides and padding."""

from harness import Case

from mixers import ops

from . import op_case


def _case(name, x, w, dtypes=None, **options):
    op_case("kan_layer.cu", ops.kan_conv2d, Case(name, {"x": x, "w": w}, options), dtypes)


_case("windows", (2, 6, 7, 3), (3, 3, 3, 8, 9), padding=1)
_case("strides", (1, 7, 6, 2), (3, 3, 2, 4, 5), basis="chebyshev", stride=2, padding=1, dtypes=("float32",))
_case("fourier", (1, 4, 5, 2), (2, 2, 2, 4, 3), basis="fourier", dtypes=("float32",))
_case("radial", (1, 4, 5, 2), (2, 2, 2, 4, 3), basis="rbf", dtypes=("float32",))
_case("silu", (1, 4, 5, 2), (3, 3, 2, 1, 3), basis="silu", padding=1, dtypes=("float32",))
