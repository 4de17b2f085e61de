"""Wavelets and rational functions: several blocks of rows, outputs and slices."""

from harness import Case

from mixers import ops

from . import op_case


def _wavelet(function, m, i, o, dtypes=None):
    scales = lambda rng: rng.uniform(0.5, 1.5, (i, o))
    arrays = {"x": (m, i), "first": (i, o), "second": scales, "third": (i, o)}
    op_case("kan_edges.cu", ops.kan_edges, Case(function, arrays, {"function": function}), dtypes)


_wavelet("mexican_hat", 300, 9, 33)
for _name in ("morlet", "dog", "meyer", "shannon"):
    _wavelet(_name, 9, 3, 5, ("float32",))
op_case(
    "kan_edges.cu",
    ops.kan_edges,
    Case("rational", {"x": (9, 3), "first": (3, 6, 5), "second": (3, 4, 5)}, {"function": "rational"}),
)
