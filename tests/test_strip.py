"""Token linears along strips, and biases by the distance to the diagonal."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


def strip(name, shape, shared, k, axis, bias=True, **options):
    """A case with the weights that fit the shape."""
    n = shape[2] if axis == "w" else shape[1]
    arrays = {"x": shape, "w": (shared, k, n, n), "b": (shared, n) if bias else None}
    return Case(name, arrays, {"axis": axis}, **options)


class TestStripLinear(OpSuite):
    op = ops.strip_linear
    cases = [
        strip("rows", (2, 5, 4, 6), 3, 3, "w"),
        strip("columns", (2, 5, 4, 6), 2, 3, "h", bias=False),
        strip("one-tap", (1, 3, 7, 8), 4, 1, "w"),
        strip("more-taps-than-strips", (2, 2, 3, 5), 5, 7, "w"),
        strip("one-strip", (1, 1, 9, 4), 2, 3, "w"),
        strip("one-position", (3, 4, 1, 3), 1, 3, "w"),
        strip("one-group", (2, 3, 4, 33), 33, 3, "h"),
        strip("shared-by-all", (2, 3, 4, 9), 1, 3, "w"),
        strip("many-groups", (1, 3, 5, 21), 3, 5, "h"),
        strip("wide", (2, 14, 13, 72), 18, 3, "w", emulated=False, differences=False),
        strip("long", (1, 3, 65, 8), 4, 3, "w", emulated=False, differences=False),
        strip("empty-batch", (0, 3, 4, 6), 3, 3, "w"),
        strip("no-strips", (2, 0, 4, 6), 3, 3, "w"),
        strip("no-positions", (2, 3, 0, 6), 3, 3, "w"),
    ]


class TestRelativeBias(OpSuite):
    op = ops.relative_bias
    cases = [
        Case("square", {"x": (2, 4, 4, 3), "table": (9, 3)}),
        Case("high", {"x": (3, 7, 2, 33), "table": (15, 33)}),
        Case("wide-and-clipped", {"x": (2, 2, 9, 8), "table": (5, 8)}),
        Case("one-row-table", {"x": (2, 3, 3, 1), "table": (1, 1)}),
        Case("one-token", {"x": (1, 1, 1, 3), "table": (3, 3)}),
        Case("large", {"x": (3, 31, 33, 17), "table": (63, 17)}, emulated=False, differences=False),
        Case("empty-batch", {"x": (0, 3, 4, 3), "table": (7, 3)}),
        Case("no-tokens", {"x": (2, 0, 4, 3), "table": (7, 3)}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 16, 16))),
    shared=st.integers(1, 20),
    groups=st.integers(1, 6),
    reach=st.integers(0, 3),
    axis=st.sampled_from(["w", "h"]),
)
def test_any_strip(sizes, shared, groups, reach, axis):
    case = strip("any", (*sizes, shared * groups), shared, 2 * reach + 1, axis)
    check_backend(ops.strip_linear, case, "cpu", "float32")


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(sizes=st.tuples(*(st.integers(1, n) for n in (3, 20, 20, 40))), reach=st.integers(0, 25))
def test_any_relative_bias(sizes, reach):
    case = Case("any", {"x": sizes, "table": (2 * reach + 1, sizes[3])})
    check_backend(ops.relative_bias, case, "cpu", "float32")


def test_strip_linear_is_a_convolution_with_neighbours():
    """With one channel, a strip linear is a convolution whose channels are the positions of a strip."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4, 1)), rng.standard_normal((1, 3, 4, 4))
    with mixers.use_backend("reference"):
        got = ops.strip_linear(x, w, axis="w")[..., 0]
        # (b, strips, positions) with a kernel (taps, in, out)
        want = ops.grouped_conv1d(x[..., 0], w[0].swapaxes(1, 2))
    numpy.testing.assert_allclose(got, want, rtol=1e-12)


def test_strip_linear_of_one_tap_is_axis_linear():
    rng = numpy.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in ((2, 5, 4, 6), (1, 1, 5, 5), (1, 5)))
    with mixers.use_backend("reference"):
        got = ops.strip_linear(x, w, b, axis="h")
        want = ops.axis_linear(x, w[0, 0], b[0], axis=1)
    numpy.testing.assert_allclose(got, want, rtol=1e-12)


def test_relative_bias_counts_its_readers():
    """The table's gradient of ones is the number of tokens on each diagonal, zero for rows nobody reads."""
    x, table = numpy.zeros((1, 3, 5, 1)), numpy.zeros((7, 1))
    with mixers.use_backend("reference"):
        _, saved = ops.relative_bias.forward(x, table)
        counts = ops.relative_bias.backward(numpy.ones_like(x), saved).dtable[:, 0]
    # distances -3 .. 3, those beyond 3 clipped
    numpy.testing.assert_array_equal(counts, [0, 1, 2, 3, 3, 3, 3])


@pytest.mark.parametrize(
    ("shapes", "axis", "message"),
    [
        (
            ((2, 5, 4, 6), (3, 3, 5, 5)),
            "w",
            r"strip_linear: w must have shape \(J, k, n_out, n_in\) with n_out = 4",
        ),
        (
            ((2, 5, 4, 6), (3, 2, 4, 4)),
            "w",
            r"strip_linear: w must read an odd number of strips, got shape \(3, 2",
        ),
        (
            ((2, 5, 4, 6), (4, 3, 4, 4)),
            "w",
            "strip_linear: w must have a first size that divides the 6 channels",
        ),
        (((2, 5, 4, 6), (3, 3, 4, 4)), "x", "strip_linear: axis must be one of 'w', 'h', got 'x'"),
        (((2, 5, 4), (3, 3, 4, 4)), "w", r"strip_linear: x must have shape \(b, h, w, c\)"),
        (
            ((2, 5, 4, 6), (3, 3, 4, 4), (4,)),
            "w",
            r"strip_linear: b must have shape \(J, n\) = \(3, 4\), got \(4,\)",
        ),
    ],
)
def test_strip_linear_errors(shapes, axis, message):
    with pytest.raises(ValueError, match=message):
        ops.strip_linear(*map(numpy.zeros, shapes), axis=axis)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 6), r"relative_bias: table must have an odd number of rows, got shape \(4, 6\)"),
        ((5, 7), r"relative_bias: table must have shape \(2 m \+ 1, c\) with c = 6, got \(5, 7\)"),
    ],
)
def test_relative_bias_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        ops.relative_bias(numpy.zeros((2, 5, 4, 6)), numpy.zeros(shape))
