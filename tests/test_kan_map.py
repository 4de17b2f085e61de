"""Attention by any Kolmogorov-Arnold map, and the simplex projection."""

import tracemalloc

import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, run

import mixers
from mixers import ops


class TestSimplexProjection(OpSuite):
    op = ops.simplex_projection
    cases = [
        Case("rows", {"x": (2, 9, 5)}),
        Case("one", {"x": (4, 1)}),
        Case("long", {"x": lambda rng: 0.05 * rng.standard_normal((17, 65))}),
        Case("inside", {"x": lambda rng: 0.25 + 0.01 * rng.standard_normal((3, 4))}),
        # a large common offset must not cost the digits of the differences
        Case("offset", {"x": lambda rng: 64.0 + rng.standard_normal((5, 33))}, halves=False),
        Case("longer", {"x": (3, 1000)}, differences=False),
        Case("empty", {"x": (0, 3)}),
        Case("no-values", {"x": (3, 0)}),
    ]


def needs(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_a_projection_is_a_point_of_the_simplex(backend):
    """Sum 1, not negative, and the conditions of Karush, Kuhn and Tucker."""
    needs(backend)
    x = 3 * numpy.random.default_rng(0).standard_normal((50, 33))
    (y,), _ = run(ops.simplex_projection, {"x": x}, x, backend)
    numpy.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-12)
    assert (y >= 0).all()
    for row, point in zip(x, y):
        support = point > 0
        threshold = (row - point)[support]
        numpy.testing.assert_allclose(threshold, threshold[0], rtol=1e-12)
        assert (row[~support] <= threshold[0] + 1e-12).all()


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("top", [1e20, -1e20])
def test_huge_values_project_to_a_corner(backend, top):
    needs(backend)
    x = numpy.full((1, 40), -1e30, "float32")
    x[0, 17] = top
    (y,), _ = run(ops.simplex_projection, {"x": x}, x, backend)
    numpy.testing.assert_array_equal(y[0], numpy.eye(40)[17])


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("place", [0, 1, 39])
def test_nan_fills_its_row_only(backend, place):
    needs(backend)
    x = numpy.random.default_rng(0).standard_normal((3, 40))
    x[1, place] = numpy.nan
    (y,), _ = run(ops.simplex_projection, {"x": x}, x, backend)
    numpy.testing.assert_array_equal(numpy.isnan(y), [[False] * 40, [True] * 40, [False] * 40])


def case(name, b, n, h, d, r, basis, operator, differences=True, emulated=True, **options):
    """Coefficients of a size that keeps the weights of order one."""
    sizes = {"full": (n, n), "w_phi": (n, r), "phi_w": (r, n), "phi_phi": (n, r)}[operator]
    layers = {"phi": sizes, **({"psi": (r, n)} if operator == "phi_phi" else {})}
    arrays = dict.fromkeys(("q", "k", "v"), (b, n, h, d))
    for layer, (i, o) in layers.items():
        for number, (inner, law) in enumerate(FUNCTIONS.get(basis, WAVELETS)):
            label = layer if number == 0 else f"{layer}_{number + 1}"
            arrays[label] = spread(law, (h, i, *inner, o), max(1, i) ** -0.5)
    if operator in ("w_phi", "phi_w"):
        arrays["w"] = spread("normal", (h, n, r) if operator == "w_phi" else (h, r, n), max(1, r) ** -0.5)
    options = {"basis": basis, "operator": operator, **options}
    return Case(name, arrays, options, differences=differences, emulated=emulated)


FUNCTIONS = {
    "fourier": (((2,), "normal"), ((2,), "normal")),
    "rational": (((6,), "normal"), ((4,), "normal")),
    "bspline": (((7,), "normal"),),
}
WAVELETS = (((), "normal"), ((), "scale"), ((), "normal"))


def spread(law, shape, size):
    if law == "scale":
        return lambda rng: rng.uniform(0.7, 1.4, shape)
    return lambda rng: size * rng.standard_normal(shape)


class TestKanMapAttention(OpSuite):
    op = ops.kan_map_attention
    cases = [
        case("full", 2, 7, 2, 4, 0, "fourier", "full"),
        case("splines", 2, 9, 2, 3, 4, "bspline", "w_phi", low=-2.0, high=2.0),
        case("rational", 1, 9, 2, 4, 3, "rational", "w_phi", base="silu"),
        case("mexican-hat", 2, 9, 2, 3, 4, "mexican_hat", "phi_w", base="gelu", projection="output"),
        case("two-layers", 1, 8, 2, 4, 3, "bspline", "phi_phi", base="identity", low=-2.0, high=2.0),
        case("hidden", 2, 5, 1, 3, 4, "fourier", "w_phi", projection="hidden", base="silu"),
        case("output", 2, 5, 1, 3, 2, "morlet", "w_phi", projection="output", scale=0.3),
        case("dog", 1, 5, 1, 3, 2, "dog", "phi_phi", projection="output"),
        case("meyer", 1, 6, 1, 3, 2, "meyer", "w_phi"),
        case("shannon", 2, 6, 1, 2, 2, "shannon", "full"),
        case("phi-w-splines", 1, 6, 2, 2, 3, "bspline", "phi_w", order=2),
        case("one-token", 2, 1, 1, 3, 2, "fourier", "phi_w"),
        case("longer", 1, 65, 1, 8, 5, "fourier", "w_phi", differences=False, projection="hidden"),
        case("no-tokens", 2, 0, 2, 4, 3, "fourier", "w_phi", projection="hidden"),
        case("empty-batch", 0, 5, 2, 4, 3, "bspline", "phi_phi"),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_the_form_with_an_op_of_its_own(backend):
    """Fourier functions in low-rank form are kan_attention."""
    needs(backend)
    arguments = case("same", 2, 11, 2, 4, 3, "fourier", "w_phi", base="silu").draw()
    named = {"phi_cos": arguments["phi"], "phi_sin": arguments["phi_2"], "w_up": arguments["w"]}
    heads = {n: arguments[n] for n in ("q", "k", "v")}
    dout = numpy.random.default_rng(1).standard_normal(arguments["q"].shape)
    (want,), wanted = run(ops.kan_attention, {**heads, **named, "base": "silu"}, dout, backend)
    (got,), gradients = run(ops.kan_map_attention, arguments, dout, backend)
    numpy.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("phi_2", "phi_sin"), ("w", "w_up")):
        numpy.testing.assert_allclose(gradients[ours], wanted[theirs], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("module", ["cpu", "gpu"])
def test_blocks_of_queries_do_not_matter(module, monkeypatch):
    """The same numbers, to rounding, from blocks of few queries."""
    backend = {"cpu": "cpu", "gpu": "emulated"}[module]
    needs(backend)
    import importlib

    arguments = case("blocks", 2, 9, 2, 4, 3, "bspline", "w_phi", projection="hidden").draw()
    dout = numpy.random.default_rng(1).standard_normal(arguments["q"].shape)
    (want,), wanted = run(ops.kan_map_attention, arguments, dout, backend)
    monkeypatch.setattr(importlib.import_module(f"mixers.{module}.kan_map"), "_LOGITS", 40)
    (got,), gradients = run(ops.kan_map_attention, arguments, dout, backend)
    numpy.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)
    for name, gradient in gradients.items():
        if gradient is not None:
            numpy.testing.assert_allclose(gradient, wanted[name], rtol=1e-9, atol=1e-12)


def test_memory_is_linear_in_the_tokens():
    """Nothing of size n x n."""
    needs("cpu")
    n = 4096
    arguments = case("memory", 1, n, 1, 4, 2, "dog", "w_phi").draw("float32")
    ops.kan_map_attention.forward(**case("warm", 1, 8, 1, 4, 2, "dog", "w_phi").draw("float32"))
    tracemalloc.start()
    ops.kan_map_attention(**arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * n * n / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": "relu"}, "kan_map_attention: basis must be one of 'fourier', 'rational', 'bspline'"),
        ({"operator": "phi"}, "kan_map_attention: operator must be one of 'full', 'w_phi'"),
        ({"projection": "l1"}, "kan_map_attention: projection must be one of 'none', 'output'"),
        ({"operator": "full", "projection": "hidden"}, "projection 'hidden' needs operator 'w_phi'"),
        ({"phi_2": None}, "kan_map_attention: phi_2 must be given with basis='fourier'"),
        ({"phi_3": numpy.zeros(1)}, "kan_map_attention: phi_3 must not be given with basis='fourier'"),
        ({"psi": numpy.zeros(1)}, "kan_map_attention: psi must not be given with operator='w_phi'"),
        ({"w": None}, "kan_map_attention: w must be given with operator='w_phi'"),
        ({"w": numpy.zeros((2, 5, 4))}, r"kan_map_attention: w must have shape \(h, n, r\) = \(2, 5, 3\)"),
        ({"low": 1.0}, "kan_map_attention: low must be < high"),
        ({"k": numpy.zeros((1, 4, 2, 4))}, r"kan_map_attention: k must have shape \(b, n, h, d\)"),
    ],
)
def test_errors(change, message):
    arguments = case("error", 1, 5, 2, 4, 3, "fourier", "w_phi").draw()
    with mixers.use_backend("reference"), pytest.raises(ValueError, match=message):
        ops.kan_map_attention(**{**arguments, **change})


def test_splines_have_more_functions_than_their_degree():
    arguments = case("error", 1, 5, 2, 4, 3, "bspline", "phi_phi").draw()
    with pytest.raises(ValueError, match="kan_map_attention: phi must have g > order = 7 functions, got 7"):
        ops.kan_map_attention(**{**arguments, "order": 7})
    with pytest.raises(ValueError, match="kan_map_attention: psi must be given with basis='bspline'"):
        ops.kan_map_attention(**{**arguments, "psi": None})
