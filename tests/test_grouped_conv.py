"""Grouped convolutions."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend
from scipy import signal

import mixers
from mixers import ops


class TestGroupedConv1d(OpSuite):
    op = ops.grouped_conv1d
    cases = [
        Case("dense", {"x": (2, 9, 6), "w": (3, 6, 4), "b": (4,)}),
        Case("groups", {"x": (3, 7, 8), "w": (5, 4, 6), "b": (6,)}, {"groups": 2}),
        Case("depthwise", {"x": (2, 5, 33), "w": (7, 1, 33)}, {"groups": 33}),
        Case("kernel-one", {"x": (1, 4, 3), "w": (1, 3, 8)}),
        # a single tap: products of matrices, with tails of rows and columns
        Case("products", {"x": (3, 43, 12), "w": (1, 3, 140), "b": (140,)}, {"groups": 4}),
        Case("products-of-one", {"x": (2, 9, 3), "w": (1, 1, 99)}, {"groups": 3}),
        Case("single-tap-depthwise", {"x": (2, 9, 5), "w": (1, 1, 10)}, {"groups": 5}),
        Case(
            "many-rows", {"x": (2, 700, 6), "w": (1, 3, 66)}, {"groups": 2}, emulated=False, differences=False
        ),
        Case("deep", {"x": (1, 9, 1100), "w": (1, 550, 6)}, {"groups": 2}, emulated=False, differences=False),
        Case("products-of-nothing", {"x": (2, 0, 4), "w": (1, 2, 4), "b": (4,)}, {"groups": 2}),
        Case("kernel-over-tokens", {"x": (1, 2, 4), "w": (7, 2, 4)}, {"groups": 2}),
        Case("long", {"x": (1, 1025, 16), "w": (3, 16, 8), "b": (8,)}, emulated=False, differences=False),
        Case("no-tokens", {"x": (2, 0, 4), "w": (3, 2, 4), "b": (4,)}, {"groups": 2}),
        Case("empty-batch", {"x": (0, 4, 4), "w": (3, 4, 2)}),
    ]


class TestGroupedConv2d(OpSuite):
    op = ops.grouped_conv2d
    cases = [
        Case("dense", {"x": (2, 5, 4, 6), "w": (3, 3, 6, 4), "b": (4,)}),
        Case("groups", {"x": (3, 3, 5, 8), "w": (3, 5, 4, 6), "b": (6,)}, {"groups": 2}),
        Case("cheap", {"x": (2, 5, 4, 5), "w": (3, 3, 1, 15)}, {"groups": 5}),
        Case("kernel-one", {"x": (1, 3, 2, 3), "w": (1, 1, 3, 33)}),
        Case("kernel-over-grid", {"x": (1, 2, 3, 4), "w": (5, 7, 2, 4)}, {"groups": 2}),
        Case(
            "large", {"x": (2, 33, 31, 16), "w": (3, 3, 16, 8), "b": (8,)}, emulated=False, differences=False
        ),
        Case("no-tokens", {"x": (2, 0, 3, 4), "w": (3, 3, 2, 4), "b": (4,)}, {"groups": 2}),
        Case("empty-batch", {"x": (0, 4, 3, 4), "w": (3, 3, 4, 2)}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 9, 9))),
    groups=st.integers(1, 5),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 20),
    reach=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_any_groups(sizes, groups, inputs, outputs, reach):
    kernel = tuple(2 * r + 1 for r in reach)
    arrays = {
        "x": (*sizes, groups * inputs),
        "w": (*kernel, inputs, groups * outputs),
        "b": (groups * outputs,),
    }
    check_backend(ops.grouped_conv2d, Case("any", arrays, {"groups": groups}), "cpu", "float32")


def test_second_form():
    """Each output channel is a sum of scipy's correlations with the input channels of its group."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((1, 6, 5, 4)), rng.standard_normal((3, 5, 2, 6))
    with mixers.use_backend("reference"):
        y = ops.grouped_conv2d(x, w, groups=2)
        row = ops.grouped_conv1d(x[:, 0], w[1], groups=2)
    for o in range(6):
        inputs = [2 * (o // 3) + m for m in range(2)]
        want = sum(signal.correlate2d(x[0, ..., i], w[..., m, o], "same") for m, i in enumerate(inputs))
        numpy.testing.assert_allclose(y[0, ..., o], want, rtol=1e-12, atol=1e-13)
        want = sum(signal.correlate2d(x[0, :1, :, i], w[1:2, :, m, o], "same") for m, i in enumerate(inputs))
        numpy.testing.assert_allclose(row[0, :, o], want[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("w", "groups", "message"),
    [
        ((2, 4, 4), 1, r"grouped_conv1d: w must have odd kernel sizes, got shape \(2, 4, 4\)"),
        (
            (3, 2, 4),
            1,
            r"grouped_conv1d: w must have c_in / groups = 4 input channels, got shape \(3, 2, 4\)",
        ),
        ((3, 2, 4), 3, "grouped_conv1d: groups must divide c_in = 4, got 3"),
        ((3, 2, 5), 2, "grouped_conv1d: groups must divide c_out = 5, got 2"),
        ((3, 4, 4), 0, "grouped_conv1d: groups must be an integer >= 1, got 0"),
    ],
)
def test_errors(w, groups, message):
    with pytest.raises(ValueError, match=message):
        ops.grouped_conv1d(numpy.zeros((1, 5, 4)), numpy.zeros(w), groups=groups)
