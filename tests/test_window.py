"""Token linears inside and across windows."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


def window(name, shape, size, across, bias=True, **kwargs):
    n = size[0] * size[1]
    arrays = {"x": shape, "w": (n, n), "b": (n,) if bias else None}
    return Case(name, arrays, {"size": size, "across": across}, **kwargs)


class TestWindowLinear(OpSuite):
    op = ops.window_linear
    cases = [
        window("inside", (2, 6, 8, 5), (3, 2), False),
        window("across", (2, 6, 8, 5), (3, 2), True),
        window("no-bias", (1, 4, 4, 33), (2, 2), False, bias=False),
        window("no-bias-across", (3, 4, 6, 33), (2, 3), True, bias=False),
        window("whole-image", (2, 3, 4, 8), (3, 4), False),
        window("single-tokens", (1, 3, 5, 3), (1, 1), False),
        window("one-channel", (1, 4, 2, 1), (2, 1), True),
        window("large", (2, 32, 32, 17), (8, 8), False, emulated=False, differences=False),
        window("empty-batch", (0, 4, 4, 3), (2, 2), True),
        window("no-tokens", (2, 0, 4, 3), (2, 2), False),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    times=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 70),
    across=st.booleans(),
)
def test_any_windows(batch, size, times, channels, across):
    grid = tuple(s * t for s, t in zip(size, times))
    n = size[0] * size[1]
    arrays = {"x": (batch, *grid, channels), "w": (n, n), "b": (n,)}
    case = Case("any", arrays, {"size": size, "across": across})
    check_backend(ops.window_linear, case, "cpu", "float32")


def test_second_form():
    """Inside is axis_linear on each window cut out; across is inside after the lattice is brought together."""
    rng = numpy.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 6, 8, 3)), rng.standard_normal((6, 6)), rng.standard_normal(6)
    with mixers.use_backend("reference"):
        inside = ops.window_linear(x, w, b, size=(3, 2))
        across = ops.window_linear(x, w, b, size=(3, 2), across=True)
        for p in range(2):
            for q in range(4):
                cut = (slice(None), slice(3 * p, 3 * p + 3), slice(2 * q, 2 * q + 2))
                want = ops.axis_linear(x[cut].reshape(2, 6, 3), w, b).reshape(2, 3, 2, 3)
                numpy.testing.assert_allclose(inside[cut], want)
        for i in range(2):
            for j in range(4):
                lattice = (slice(None), slice(i, None, 2), slice(j, None, 4))
                want = ops.axis_linear(x[lattice].reshape(2, 6, 3), w, b).reshape(2, 3, 2, 3)
                numpy.testing.assert_allclose(across[lattice], want)


@pytest.mark.parametrize(
    ("size", "w", "message"),
    [
        ((4, 2), (8, 8), r"window_linear: size must divide the grid \(6, 8\), got \(4, 2\)"),
        ((3, 2), (6, 5), r"window_linear: w must have shape \(n_out, n_in\) = \(6, 6\), got \(6, 5\)"),
        (3, (3, 3), "window_linear: size must be a pair of integers, got 3"),
        ((0, 1), (1, 1), "window_linear: size must be an integer >= 1, got 0"),
    ],
)
def test_errors(size, w, message):
    with pytest.raises(ValueError, match=message):
        ops.window_linear(numpy.zeros((1, 6, 8, 2)), numpy.zeros(w), size=size)
