"""Kolmogorov-Arnold layers: each basis within one tile, then several tiles of rows, features and outputs."""

import numpy
from harness import Case

from mixers import ops

from . import op_case


def _case(name, m, i, g, o, dtypes=None, **options):
    arrays = {"x": (m, i), "w": (i, g, o)}
    if options.get("basis") in ("relu", "rbf") and options.pop("learnt", False):
        arrays["first"] = lambda rng: rng.uniform(-1.5, 0.5, (i, g))
        arrays["second"] = lambda rng: rng.uniform(0.6, 2.0, (i, g))
    op_case("kan_layer.cu", ops.kan_contract, Case(name, arrays, options), dtypes)


_case("bspline", 70, 9, 9, 70)
_case("fourier", 5, 3, 70, 18, basis="fourier")
_case("radial", 70, 5, 6, 18, basis="rbf", learnt=True)
_case("even-centres", 3, 2, 4, 3, basis="rbf", dtypes=("float32",))
_case("chebyshev", 5, 3, 5, 4, basis="chebyshev", dtypes=("float32",))
_case("relu", 5, 3, 6, 4, basis="relu", learnt=True, dtypes=("float32",))
_case("steps", 5, 3, 6, 4, order=0, dtypes=("float32",))


def _knots(rng):
    return numpy.sort(rng.uniform(-2, 2, (3, 8)), axis=1) + 0.05 * numpy.arange(8)


op_case(
    "kan_layer.cu",
    ops.kan_contract,
    Case("knots", {"x": (5, 3), "w": (3, 5, 4), "first": _knots}, {"order": 2}),
    ("float32",),
)
