"""Kolmogorov-Arnold layers on the windows of an image."""

import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, reference, run
from tolerances import BACKWARD, FORWARD

import mixers
from mixers import ops


class TestKanConv2d(OpSuite):
    op = ops.kan_conv2d
    cases = [
        Case("cubic", {"x": (2, 6, 5, 3), "w": (3, 3, 3, 8, 5)}),
        Case("padded", {"x": (2, 5, 6, 3), "w": (3, 3, 3, 8, 4)}, {"padding": 1}),
        Case(
            "strides",
            {"x": (1, 8, 7, 5), "w": (3, 3, 5, 6, 33)},
            {"stride": 2, "padding": 1, "order": 2, "low": -2.0},
        ),
        Case("gaps", {"x": (1, 8, 7, 2), "w": (2, 2, 2, 4, 3)}, {"stride": 3, "basis": "chebyshev"}),
        Case(
            "patches", {"x": (2, 8, 8, 3), "w": (4, 4, 3, 4, 5)}, {"stride": 4, "basis": "rbf", "low": -2.0}
        ),
        Case(
            "phases",
            {"x": (1, 9, 8, 2), "w": (5, 5, 2, 4, 3)},
            {"stride": 2, "padding": 2, "basis": "fourier"},
        ),
        Case("silu", {"x": (2, 4, 5, 3), "w": (3, 3, 3, 1, 4)}, {"basis": "silu", "padding": 1}),
        Case("width", {"x": (1, 4, 4, 2), "w": (2, 2, 2, 1, 3)}, {"basis": "rbf", "width": 0.7}),
        Case("pixels", {"x": (1, 2, 3, 4), "w": (1, 1, 4, 8, 3)}),
        Case("all-padding", {"x": (1, 1, 1, 2), "w": (3, 3, 2, 8, 3)}, {"padding": 2}),
        Case(
            "bands",
            {"x": (3, 40, 31, 3), "w": (3, 3, 3, 8, 40)},
            {"padding": 1},
            emulated=False,
            differences=False,
        ),
        Case(
            "many-channels", {"x": (1, 6, 20, 70), "w": (3, 3, 70, 8, 9)}, emulated=False, differences=False
        ),
        Case("no-images", {"x": (0, 4, 4, 2), "w": (2, 2, 2, 8, 3)}),
        Case("no-channels", {"x": (1, 4, 4, 0), "w": (2, 2, 0, 8, 3)}),
        Case("no-outputs", {"x": (1, 4, 4, 2), "w": (2, 2, 2, 8, 0)}),
    ]


def needs(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


@pytest.mark.parametrize("basis", ["bspline", "fourier", "rbf", "chebyshev"])
def test_second_form(basis):
    """The layer on the windows: what the convolution is defined as."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((2, 7, 6, 3)), rng.standard_normal((3, 3, 3, 8, 5))
    with mixers.use_backend("reference"):
        y, saved = ops.kan_conv2d.forward(x, w, basis=basis, stride=2, padding=1)
        windows, cut = ops.unfold2d.forward(x, size=3, stride=2, padding=1)
        want, expanded = ops.kan_contract.forward(windows, w.reshape(27, 8, 5), basis=basis)
        numpy.testing.assert_allclose(y, want, atol=1e-12)
        dy = rng.standard_normal(y.shape)
        gradients, by_window = ops.kan_conv2d.backward(dy, saved), ops.kan_contract.backward(dy, expanded)
        numpy.testing.assert_allclose(gradients.dw.reshape(27, 8, 5), by_window.dw, atol=1e-12)
        numpy.testing.assert_allclose(gradients.dx, ops.unfold2d.backward(by_window.dx, cut).dx, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_zeros_of_the_padding_go_through_the_functions(backend):
    needs(backend)
    arguments = {"x": numpy.zeros((1, 2, 2, 1)), "w": numpy.ones((3, 3, 1, 8, 1)), "padding": 1}
    (y,), _ = run(ops.kan_conv2d, arguments, numpy.ones((1, 2, 2, 1)), backend)
    # B-splines add up to one at 0
    numpy.testing.assert_allclose(y, 9.0)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_nan_reaches_its_windows_only(backend):
    needs(backend)
    x = numpy.random.default_rng(0).standard_normal((2, 6, 7, 2)).astype("float32")
    x[0, 3, 0, 1] = numpy.nan
    arguments = {"x": x, "w": numpy.ones((3, 3, 2, 8, 3), "float32"), "padding": 1}
    (y,), gradients = run(ops.kan_conv2d, arguments, numpy.ones((2, 6, 7, 3), "float32"), backend)
    want = numpy.zeros(y.shape, bool)
    want[0, 2:5, :2] = True
    numpy.testing.assert_array_equal(numpy.isnan(y), want)
    assert numpy.isnan(gradients["x"]).sum() == 1


def test_neither_windows_nor_expansion_are_stored():
    needs("cpu")
    x, w = numpy.ones((2, 128, 96, 16), "float32"), numpy.ones((3, 3, 16, 8, 16), "float32")
    few = x[:, :4, :4]
    ops.kan_conv2d.backward(few, ops.kan_conv2d.forward(few, w, padding=1)[1])
    tracemalloc.start()
    y, saved = ops.kan_conv2d.forward(x, w, padding=1)
    ops.kan_conv2d.backward(y, saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # kept at the end: y and dx; the windows would be 9 times x, their expansion 72 times
    assert peak < 5 * x.nbytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": "relu"}, "kan_conv2d: basis must be one of 'bspline', 'fourier'"),
        ({"x": numpy.zeros((4, 2))}, r"kan_conv2d: x must have shape \(b, h, w, c\)"),
        (
            {"w": numpy.zeros((3, 3, 1, 8, 2))},
            r"kan_conv2d: w must have shape \(kh, kw, c, g, o\) with c = 2",
        ),
        ({"w": numpy.zeros((3, 2, 2, 8, 2))}, r"kan_conv2d: w must have a square kernel of side k >= 1"),
        ({"w": numpy.zeros((3, 3, 2, 3, 2))}, "kan_conv2d: w must have g > order = 3 functions, got 3"),
        ({"basis": "silu"}, "kan_conv2d: w must have g = 1 function with basis='silu', got 8"),
        ({"basis": "rbf", "w": numpy.zeros((3, 3, 2, 1, 2))}, "kan_conv2d: w must have g >= 2 functions"),
        ({"stride": 0}, "kan_conv2d: stride must be an integer >= 1, got 0"),
        ({"padding": -1}, "kan_conv2d: padding must be an integer >= 0, got -1"),
        (
            {"w": numpy.zeros((7, 7, 2, 8, 2)), "padding": 1},
            r"kan_conv2d: w must have a side k of at most the padded image \(6, 7\), got 7",
        ),
    ],
)
def test_errors(change, message):
    arguments = {"x": numpy.zeros((1, 4, 5, 2)), "w": numpy.zeros((3, 3, 2, 8, 2)), **change}
    with mixers.use_backend("reference"), pytest.raises(ValueError, match=message):
        ops.kan_conv2d(**arguments)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    b=st.integers(1, 3),
    h=st.integers(1, 12),
    w=st.integers(1, 40),
    c=st.integers(1, 20),
    o=st.integers(1, 40),
    k=st.integers(1, 4),
    stride=st.integers(1, 5),
    padding=st.integers(0, 2),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_shape(b, h, w, c, o, k, stride, padding, dtype):
    """Bands, phases and tiles and their rests on the CPU, against the reference."""
    needs("cpu")
    h, w = max(h, k - 2 * padding), max(w, k - 2 * padding)
    rng = numpy.random.default_rng(h)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)
    arguments = {"x": draw(b, h, w, c), "w": draw(k, k, c, 5, o), "stride": stride, "padding": padding}
    dout = draw(b, *((n + 2 * padding - k) // stride + 1 for n in (h, w)), o)
    want, want_gradients = reference(ops.kan_conv2d, arguments, dout)
    (got,), gradients = run(ops.kan_conv2d, arguments, dout, "cpu")
    # sums of few terms may cancel: the size of the terms counts
    assert_close("y", got, want, FORWARD[dtype], floor=(k * k * c) ** 0.5)
    assert_close("dx", gradients["x"], want_gradients.dx, BACKWARD[dtype], floor=k * o**0.5)
    assert_close("dw", gradients["w"], want_gradients.dw, BACKWARD[dtype], floor=dout[..., 0].size ** 0.5)
