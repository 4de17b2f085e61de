"""Linear maps over channels and along a token axis."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


class TestLinear(OpSuite):
    op = ops.linear
    cases = [
        Case("sequence", {"x": (2, 5, 3), "w": (3, 8), "b": (8,)}),
        Case("image", {"x": (3, 2, 4, 8), "w": (8, 33), "b": (33,)}),
        Case("no-bias", {"x": (2, 31, 33), "w": (33, 3)}),
        Case("one-token", {"x": (1, 1, 1), "w": (1, 1), "b": (1,)}),
        Case("vector", {"x": (8,), "w": (8, 3), "b": (3,)}),
        Case("wide", {"x": (1, 33, 65), "w": (65, 127), "b": (127,)}),
        Case("long-sum", {"x": (1, 2, 1000), "w": (1000, 3), "b": (3,)}, differences=False),
        Case("many-tokens", {"x": (3, 1025, 8), "w": (8, 8), "b": (8,)}, emulated=False, differences=False),
        Case("no-tokens", {"x": (2, 0, 3), "w": (3, 4), "b": (4,)}),
        Case("empty-batch", {"x": (0, 4, 3), "w": (3, 4)}),
    ]


class TestAxisLinear(OpSuite):
    op = ops.axis_linear
    cases = [
        Case("sequence", {"x": (2, 5, 3), "w": (8, 5), "b": (8,)}),
        Case("rows", {"x": (3, 4, 2, 8), "w": (3, 4), "b": (3,)}, {"axis": 1}),
        Case("columns", {"x": (2, 3, 5, 33), "w": (5, 5), "b": (5,)}, {"axis": 2}),
        Case("axis-from-the-end", {"x": (1, 3, 7, 3), "w": (1, 7)}, {"axis": -2}),
        Case("no-bias", {"x": (2, 31, 8), "w": (33, 31)}),
        Case("one-of-each", {"x": (1, 1, 1), "w": (1, 1), "b": (1,)}),
        Case("three-token-axes", {"x": (2, 2, 3, 4, 3), "w": (2, 3), "b": (2,)}, {"axis": 2}),
        Case("square", {"x": (1, 65, 33), "w": (64, 65), "b": (64,)}),
        Case("long", {"x": (3, 1025, 8), "w": (7, 1025), "b": (7,)}, emulated=False, differences=False),
        Case("other-axis-empty", {"x": (2, 3, 0, 3), "w": (4, 3), "b": (4,)}),
        Case("axis-empty", {"x": (2, 0, 3), "w": (4, 0), "b": (4,)}),
        Case("empty-batch", {"x": (0, 4, 3), "w": (5, 4), "b": (5,)}),
    ]


class TestTokenMlp(OpSuite):
    op = ops.token_mlp
    biases = {"b_in": (7,), "b_out": (3,)}
    cases = [
        Case("plain", {"x": (2, 5, 3), "w_in": (7, 5), "w_out": (3, 7), **biases}),
        Case("no-bias", {"x": (3, 31, 8), "w_in": (33, 31), "w_out": (31, 33)}),
        Case("one-bias", {"x": (1, 4, 33), "w_in": (7, 4), "w_out": (3, 7), "b_out": (3,)}),
        Case(
            "gelu-tanh",
            {"x": (1, 3, 65), "w_in": (7, 3), "w_out": (3, 7), **biases},
            {"activation": "gelu_tanh"},
        ),
        Case("relu", {"x": (2, 3, 3), "w_in": (7, 3), "w_out": (3, 7), **biases}, {"activation": "relu"}),
        Case("silu", {"x": (2, 3, 3), "w_in": (7, 3), "w_out": (3, 7), **biases}, {"activation": "silu"}),
        Case("one-of-each", {"x": (1, 1, 1), "w_in": (1, 1), "w_out": (1, 1), "b_in": (1,), "b_out": (1,)}),
        Case(
            "wide",
            {"x": (3, 65, 127), "w_in": (64, 65), "w_out": (65, 64), "b_in": (64,), "b_out": (65,)},
            emulated=False,
            differences=False,
        ),
        Case("no-tokens", {"x": (2, 0, 3), "w_in": (7, 0), "w_out": (3, 7), **biases}),
        Case("empty-batch", {"x": (0, 4, 3), "w_in": (7, 4), "w_out": (3, 7), **biases}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*[st.integers(0, 5)] * 2, *[st.integers(1, 70)] * 2),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
    bias=st.booleans(),
)
def test_any_shape(sizes, dtype, bias):
    b, l, c, n = sizes
    case = Case("any", {"x": (b, l, c), "w": (c, n), "b": (n,) if bias else None})
    check_backend(ops.linear, case, "cpu", dtype)
    case = Case("any", {"x": (b, c, l), "w": (n, c), "b": (n,) if bias else None})
    check_backend(ops.axis_linear, case, "cpu", dtype)


def test_token_mlp_is_its_three_steps():
    rng = numpy.random.default_rng(0)
    shapes = {"x": (2, 6, 5), "w_in": (4, 6), "w_out": (3, 4), "b_in": (4,), "b_out": (3,)}
    a = {n: rng.standard_normal(s) for n, s in shapes.items()}
    steps = ops.axis_linear(ops.gelu(ops.axis_linear(a["x"], a["w_in"], a["b_in"])), a["w_out"], a["b_out"])
    numpy.testing.assert_allclose(ops.token_mlp(**a), steps, rtol=1e-12)


def test_second_form():
    """Both maps written as loops over tokens."""
    rng = numpy.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 5)), rng.standard_normal(5)
    v, d = rng.standard_normal((6, 4)), rng.standard_normal(6)
    with mixers.use_backend("reference"):
        y, z = ops.linear(x, w, b), ops.axis_linear(x, v, d)
    for i, j in numpy.ndindex(2, 4):
        numpy.testing.assert_allclose(y[i, j], w.T @ x[i, j] + b, rtol=1e-12)
    for i, k in numpy.ndindex(2, 3):
        numpy.testing.assert_allclose(z[i, :, k], v @ x[i, :, k] + d, rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_nan_stays_in_its_token(backend):
    """A bad value reaches exactly the outputs that depend on it."""
    x = numpy.ones((2, 3, 4), numpy.float32)
    x[1, 2, 0] = numpy.nan
    with mixers.use_backend(backend):
        bad = numpy.isnan(ops.linear(x, numpy.ones((4, 2), numpy.float32)))
        bad_axis = numpy.isnan(ops.axis_linear(x, numpy.ones((5, 3), numpy.float32)))
    assert bad.sum() == 2
    assert bad[1, 2].all()
    assert bad_axis.sum() == 5
    assert bad_axis[1, :, 0].all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_results_are_fresh(backend):
    """Gradients never share memory with the inputs, even if nothing had to be computed."""
    x, w, b = numpy.ones((1, 4)), numpy.ones((4, 4)), numpy.ones(4)
    with mixers.use_backend(backend):
        y, saved = ops.linear.forward(x, w, b)
        gradients = ops.linear.backward(y, saved)
    for gradient in gradients:
        assert not any(numpy.shares_memory(gradient, given) for given in (x, w, b, y))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (4, 3)), r"linear: w must have shape \(c_in, c_out\) with c_in = 3, got \(4, 3\)"),
        (((2, 3), (3,)), r"linear: w must have shape \(c_in, c_out\) with c_in = 3, got \(3,\)"),
        (((2, 3), (3, 4), (3,)), r"linear: b must have shape \(c_out,\) = \(4,\), got \(3,\)"),
        (((), (3, 4)), r"linear: x must have at least 1 axis, got shape \(\)"),
    ],
)
def test_linear_errors(shapes, message):
    with pytest.raises(ValueError, match=message):
        ops.linear(*map(numpy.zeros, shapes))


@pytest.mark.parametrize(
    ("shapes", "axis", "message"),
    [
        (((2, 3), (3, 3)), 1, r"axis_linear: x must have at least 3 axes \(b, ..., c\), got shape \(2, 3\)"),
        (((2, 3, 4), (3, 4)), 1, r"w must have shape \(n_out, n_in\) with n_in = 3, got \(3, 4\)"),
        (((2, 3, 4), (5, 3), (3,)), 1, r"axis_linear: b must have shape \(n_out,\) = \(5,\), got \(3,\)"),
        (((2, 3, 4), (3, 3)), 2, r"axis must be a token axis of x with shape \(2, 3, 4\), got 2"),
        (((2, 3, 4), (3, 3)), 0, r"axis must be a token axis of x with shape \(2, 3, 4\), got 0"),
        (((2, 3, 4), (3, 3)), 4, r"axis must be a token axis of x with shape \(2, 3, 4\), got 4"),
    ],
)
def test_axis_linear_errors(shapes, axis, message):
    with pytest.raises(ValueError, match=message):
        ops.axis_linear(*map(numpy.zeros, shapes), axis=axis)


def test_axis_must_be_an_integer():
    with pytest.raises(TypeError, match=r"axis_linear: axis must be an integer, got 1\.0"):
        ops.axis_linear(numpy.zeros((2, 3, 4)), numpy.zeros((3, 3)), axis=1.0)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (4, 3), (3, 4)), {}, r"token_mlp: x must have shape \(b, l, c\), got \(2, 3\)"),
        (((2, 3, 4), (4, 2), (3, 4)), {}, r"w_in must have shape \(h, l\) with l = 3, got \(4, 2\)"),
        (((2, 3, 4), (5, 3), (3, 4)), {}, r"w_out must have shape \(n, h\) with h = 5, got \(3, 4\)"),
        (((2, 3, 4), (5, 3), (3, 5), (3,)), {}, r"b_in must have shape \(h,\) = \(5,\), got \(3,\)"),
        (((2, 3, 4), (5, 3), (3, 5), (5,), (5,)), {}, r"b_out must have shape \(n,\) = \(3,\), got \(5,\)"),
        (
            ((2, 3, 4), (5, 3), (3, 5)),
            {"activation": "sin"},
            "activation must be one of 'gelu', .* got 'sin'",
        ),
    ],
)
def test_token_mlp_errors(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        ops.token_mlp(*map(numpy.zeros, shapes), **options)
