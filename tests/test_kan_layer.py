"""Kolmogorov-Arnold layers with a basis of functions."""

import tracemalloc

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, reference, run
from scipy.interpolate import BSpline
from tolerances import BACKWARD, FORWARD

import mixers
from mixers import ops


def knots(i, count, low=-2.0, high=2.0):
    """Uneven knots, others for every input."""
    return lambda rng: (
        low + (high - low) * numpy.sort(rng.uniform(0, 1, (i, count)), axis=1) + 0.05 * (numpy.arange(count))
    )


def starts(i, g):
    return lambda rng: rng.uniform(-1.5, 0.5, (i, g))


def ends(i, g):
    return lambda rng: rng.uniform(0.6, 2.0, (i, g))


def widths(i, g):
    return lambda rng: rng.uniform(0.5, 1.5, (i, g))


def inside(m, i):
    """x between the knots, away from them: difference quotients must not meet a jump."""
    return lambda rng: (rng.integers(0, 4, (m, i)) + rng.uniform(0.1, 0.9, (m, i))) / 2.0 - 1.0


class TestKanContract(OpSuite):
    op = ops.kan_contract
    cases = [
        Case("cubic", {"x": (2, 9, 6), "w": (6, 8, 5)}),
        Case("quadratic", {"x": (3, 7), "w": (7, 6, 33)}, {"order": 2, "low": -2.0, "high": 1.5}),
        Case("linear", {"x": inside(33, 3), "w": (3, 5, 1)}, {"order": 1}),
        Case("steps", {"x": inside(5, 1), "w": (1, 4, 3)}, {"order": 0}),
        Case("fourier", {"x": (2, 5, 3), "w": (3, 8, 4)}, {"basis": "fourier"}),
        Case("high-frequencies", {"x": (4, 2), "w": (2, 80, 3)}, {"basis": "fourier"}),
        Case("radial", {"x": (2, 9, 6), "w": (6, 8, 5)}, {"basis": "rbf", "low": -2.0, "high": 2.0}),
        Case("width", {"x": (65, 3), "w": (3, 4, 2)}, {"basis": "rbf", "width": 0.7}),
        Case(
            "learnt-centres",
            {"x": (2, 70, 5), "w": (5, 9, 3), "first": (5, 9), "second": widths(5, 9)},
            {"basis": "rbf"},
        ),
        Case("chebyshev", {"x": (2, 9, 6), "w": (6, 5, 5)}, {"basis": "chebyshev"}),
        Case("constant", {"x": (4, 2), "w": (2, 1, 3)}, {"basis": "chebyshev"}),
        Case(
            "relu",
            {"x": (2, 33, 4), "w": (4, 8, 3), "first": starts(4, 8), "second": ends(4, 8)},
            {"basis": "relu"},
        ),
        Case("silu", {"x": (2, 9, 6), "w": (6, 1, 5)}, {"basis": "silu"}),
        Case("many-inputs", {"x": (3, 130), "w": (130, 8, 33)}),
        Case("many-rows", {"x": (1025, 2), "w": (2, 8, 3)}, emulated=False, differences=False),
        Case("large", {"x": (300, 65), "w": (65, 8, 64)}, emulated=False, differences=False),
        Case("no-rows", {"x": (0, 3), "w": (3, 8, 2)}),
        Case("no-inputs", {"x": (4, 0), "w": (0, 8, 2)}),
        Case("no-outputs", {"x": (4, 3), "w": (3, 8, 0)}),
    ]


class TestKanContractWithKnots(OpSuite):
    op = ops.kan_contract
    constants = ("first",)
    cases = [
        Case("knots", {"x": (2, 9, 3), "w": (3, 7, 5), "first": knots(3, 11)}),
        Case("linear-knots", {"x": (33, 2), "w": (2, 5, 4), "first": knots(2, 7)}, {"order": 1}),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_bsplines_of_scipy(backend, order):
    """Direct evaluation by SciPy, inside, beside and outside the knots."""
    needs(backend)
    rng = numpy.random.default_rng(order)
    g, o = 7, 3
    t = numpy.sort(rng.uniform(-2, 2, (2, g + order + 1)), axis=1)
    x, w = rng.uniform(-3, 3, (50, 2)), rng.standard_normal((2, g, o))
    want, slope = numpy.zeros((50, o)), numpy.zeros((50, 2))
    dout = rng.standard_normal((50, o))
    for i in range(2):
        within = (t[i, 0] <= x[:, i]) & (x[:, i] < t[i, -1])
        for f in range(g):
            # one function on its own knots: what SciPy extrapolates is cut off
            element = BSpline.basis_element(t[i, f : f + order + 2], extrapolate=False)
            value = numpy.nan_to_num(element(x[:, i])) * within
            want += value[:, None] * w[i, f]
            if order:
                derivative = numpy.nan_to_num(element.derivative()(x[:, i])) * within
                slope[:, i] += derivative * (dout @ w[i, f])
    arguments = {"x": x, "w": w, "first": t, "order": order}
    (got,), gradients = run(ops.kan_contract, arguments, dout, backend)
    numpy.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
    numpy.testing.assert_allclose(gradients["x"], slope, rtol=1e-8, atol=1e-9)
    assert gradients["first"] is None


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_intervals_are_closed_on_the_left(backend):
    needs(backend)
    x = numpy.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
    arguments = {"x": x, "w": numpy.eye(4)[None], "order": 0}
    (got,), _ = run(ops.kan_contract, arguments, numpy.ones((5, 4)), backend)
    numpy.testing.assert_array_equal(got, [*numpy.eye(4), numpy.zeros(4)])


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("basis", ["bspline", "fourier", "rbf", "chebyshev", "relu"])
def test_nan_reaches_its_row_only(backend, basis):
    needs(backend)
    x = numpy.random.default_rng(0).standard_normal((40, 3)).astype("float32")
    x[7, 1] = numpy.nan
    arguments = {"x": x, "w": numpy.ones((3, 8, 2), "float32"), "basis": basis}
    if basis == "relu":
        arguments |= {"first": numpy.full((3, 8), -1.0, "float32"), "second": numpy.ones((3, 8), "float32")}
    (y,), gradients = run(ops.kan_contract, arguments, numpy.ones((40, 2), "float32"), backend)
    rows = numpy.isnan(y).any(axis=1)
    assert rows[7]
    assert rows.sum() == 1
    assert numpy.isnan(gradients["x"]).sum() == 1


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
def test_large_inputs_keep_their_phase(backend):
    """m x far beyond 2 pi: float32 must not lose the angle."""
    needs(backend)
    x = numpy.array([3.0, 50.25, -777.5, 4096.0, 15000.0, -20001.5, 1e6, 3e9], "float32")[:, None]
    w = numpy.random.default_rng(0).standard_normal((1, 40, 2)).astype("float32")
    arguments, dout = {"x": x, "w": w, "basis": "fourier"}, numpy.ones((8, 2), "float32")
    want, want_gradients = reference(ops.kan_contract, arguments, dout)
    (got,), gradients = run(ops.kan_contract, arguments, dout, backend)
    assert_close("y", got, want, FORWARD["float32"])
    assert_close("dx", gradients["x"], want_gradients.dx, BACKWARD["float32"])


def test_large_x_of_chebyshev_has_a_small_slope():
    """1 - tanh^2 must not cancel."""
    needs("cpu")
    x = numpy.array([[5.0], [8.0], [-12.0]], "float32")
    arguments = {"x": x, "w": numpy.ones((1, 4, 1), "float32"), "basis": "chebyshev"}
    dout = numpy.ones((3, 1), "float32")
    _, want = reference(ops.kan_contract, arguments, dout)
    _, got = run(ops.kan_contract, arguments, dout, "cpu")
    numpy.testing.assert_allclose(got["x"], want.dx, rtol=1e-5)


def test_the_expansion_is_never_stored():
    """The peak of forward and backward stays far below rows x inputs x functions."""
    needs("cpu")
    x = numpy.ones((8192, 64), "float32")
    w = numpy.ones((64, 16, 8), "float32")
    ops.kan_contract.backward(numpy.ones((4, 8), "float32"), ops.kan_contract.forward(x[:4], w)[1])
    tracemalloc.start()
    y, saved = ops.kan_contract.forward(x, w)
    ops.kan_contract.backward(y, saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # kept at the end: y and dx; the expansion would be 16 times x
    assert peak < 5 * x.nbytes


def needs(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": "sine"}, "kan_contract: basis must be one of 'bspline', 'fourier'"),
        ({"x": numpy.zeros((4, 2))}, r"kan_contract: x must have shape \(..., i\) with i = 3, got \(4, 2\)"),
        ({"w": numpy.zeros((3, 2))}, r"kan_contract: w must have shape \(i, g, o\)"),
        ({"order": -1}, "kan_contract: order must be an integer >= 0, got -1"),
        ({"order": 8}, "kan_contract: w must have g > order = 8 functions, got 8"),
        ({"low": 1.0}, "kan_contract: low must be < high, got 1.0 and 1.0"),
        ({"basis": "rbf", "width": 0.0}, "kan_contract: width must be > 0"),
        ({"basis": "fourier", "w": numpy.zeros((3, 5, 2))}, "kan_contract: w must have an even number g"),
        ({"basis": "relu"}, "kan_contract: first and second must be given with basis='relu'"),
        ({"basis": "rbf", "first": numpy.zeros((3, 8))}, "kan_contract: first and second must be given"),
        ({"second": numpy.zeros((3, 8))}, "kan_contract: second must not be given with basis='bspline'"),
        ({"first": numpy.zeros((3, 8))}, r"kan_contract: first must have shape \(i, g\) = \(3, 12\)"),
        ({"basis": "silu"}, "kan_contract: w must have g = 1 function with basis='silu', got 8"),
        ({"basis": "rbf", "w": numpy.zeros((3, 1, 2))}, "kan_contract: w must have g >= 2 functions"),
    ],
)
def test_errors(change, message):
    arguments = {"x": numpy.zeros((4, 3)), "w": numpy.zeros((3, 8, 2)), **change}
    with mixers.use_backend("reference"), pytest.raises(ValueError, match=message):
        ops.kan_contract(**arguments)


@pytest.mark.huge
def test_offsets_beyond_2_to_31():
    """The last rows of an x of more than 2^31 values, of which only the last pages are touched."""
    needs("emulated")
    end, rows = numpy.linspace(-1, 1, 64, dtype="float32")[:, None], 2**31 + 64
    w = numpy.random.default_rng(0).standard_normal((1, 8, 1)).astype("float32")
    with mixers.use_backend("reference"):
        want = ops.kan_contract(end, w)
    with cuda_emulator.activate(last_blocks=1) as device:
        x = device.zeros((rows, 1), numpy.float32)
        x[-64:] = device.to_device(end)
        y = ops.kan_contract(x, device.to_device(w))
        assert_close("y", device.to_host(y[-64:]), want, FORWARD["float32"])


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    rows=st.integers(1, 70),
    i=st.integers(1, 20),
    g=st.integers(2, 12),
    o=st.integers(1, 40),
    basis=st.sampled_from(["bspline", "fourier", "rbf", "chebyshev"]),
    order=st.integers(0, 4),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_shape(rows, i, g, o, basis, order, dtype):
    """Tiles and their rests on the CPU, against the reference."""
    needs("cpu")
    g += g % 2 if basis == "fourier" else 0
    order = min(order, g - 1)
    rng = numpy.random.default_rng(rows)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)
    arguments = {"x": draw(rows, i), "w": draw(i, g, o), "basis": basis, "order": order}
    dout = draw(rows, o)
    want, want_gradients = reference(ops.kan_contract, arguments, dout)
    (got,), gradients = run(ops.kan_contract, arguments, dout, "cpu")
    # sums of few terms may cancel: the size of the terms counts
    scale = (i * g) ** 0.5
    assert_close("y", got, want, FORWARD[dtype], floor=scale)
    assert_close("dx", gradients["x"], want_gradients.dx, BACKWARD[dtype], floor=g * o**0.5)
    assert_close("dw", gradients["w"], want_gradients.dw, BACKWARD[dtype], floor=rows**0.5)


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("g", "order", "o"), [(5, 1, 3), (7, 3, 33), (8, 3, 130), (24, 2, 17), (9, 7, 64)])
def test_both_forms_of_bsplines(monkeypatch, always, dtype, g, order, o):
    """The CPU has a dense form and one that looks at the non-zero functions only; which runs depends on sizes."""
    needs("cpu")
    monkeypatch.setattr("mixers.cpu.kan_spline.suits", lambda g, order: always)
    rng = numpy.random.default_rng(g)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)
    # rows beyond the knots, at the ends where functions are missing, and more than one block of rows
    t = knots(17, g + order + 1, -1.5, 1.0)(rng).astype(dtype)
    arguments = {"x": draw(300, 17), "w": draw(17, g, o), "first": t, "order": order}
    arguments["x"][:40, 3] = t[3, 0] + 1e-3
    dout = draw(300, o)
    want, want_gradients = reference(ops.kan_contract, arguments, dout)
    (got,), gradients = run(ops.kan_contract, arguments, dout, "cpu")
    assert_close("y", got, want, FORWARD[dtype])
    assert_close("dx", gradients["x"], want_gradients.dx, BACKWARD[dtype])
    assert_close("dw", gradients["w"], want_gradients.dw, BACKWARD[dtype])


@pytest.mark.parametrize(("g", "local"), [(7, False), (8, True), (53, True)])
def test_many_bsplines_take_the_local_form(monkeypatch, g, local):
    needs("cpu")
    taken = []
    monkeypatch.setattr("mixers.cpu.kan_spline.forward", lambda x, w, *_: taken.append(1) or x @ w[:, 0])
    ops.kan_contract(numpy.zeros((4, 3)), numpy.zeros((3, g, 2)))
    assert bool(taken) == local
