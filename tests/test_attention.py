"""Attention with softmax."""

import numpy
import pytest
from harness import Case, OpSuite

import mixers
from mixers import ops


def arrays(b, h, w, n, d, window):
    grid = (b, h, w, n, d)
    return {"q": grid, "k": grid, "v": grid, "table": ((2 * window - 1) ** 2, n)}


class TestShiftedWindowAttention(OpSuite):
    op = ops.shifted_window_attention
    cases = [
        Case("plain", arrays(2, 4, 6, 2, 3, 2), {"window": 2}),
        Case("shifted", arrays(2, 6, 9, 2, 3, 3), {"window": 3, "shift": 1}),
        Case("shift-2", arrays(1, 8, 4, 1, 5, 4), {"window": 4, "shift": 2}),
        Case("one-window", arrays(2, 5, 5, 3, 4, 5), {"window": 5, "shift": 4}),
        Case("one-token", arrays(1, 2, 3, 2, 2, 1), {"window": 1}),
        Case("scale", arrays(1, 4, 4, 2, 33, 4), {"window": 4, "scale": 0.1}),
        Case("many-windows", arrays(3, 8, 8, 2, 2, 2), {"window": 2, "shift": 1}),
        Case("empty-batch", arrays(0, 4, 4, 2, 3, 2), {"window": 2}),
    ]


def test_pairs_across_the_roll_do_not_meet():
    """With a shift, a token attends to the neighbours in its window only, not to the opposite edge."""
    rng = numpy.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 4, 4, 1, 2)) for _ in range(3))
    table = rng.standard_normal((9, 1))
    with mixers.use_backend("reference"):
        y = ops.shifted_window_attention(q, k, v, table, window=2, shift=1)
    # the corner is alone, the tokens (1, 1) to (2, 2) are one window
    numpy.testing.assert_allclose(y[0, 0, 0], v[0, 0, 0], rtol=1e-12)
    own = [(i, j) for i in (1, 2) for j in (1, 2)]
    scores = [q[0, 1, 2, 0] @ k[0, i, j, 0] / 2**0.5 + table[(1 - i + 1) * 3 + 2 - j + 1, 0] for i, j in own]
    weights = numpy.exp(scores) / numpy.exp(scores).sum()
    want = sum(weight * v[0, i, j, 0] for weight, (i, j) in zip(weights, own))
    numpy.testing.assert_allclose(y[0, 1, 2, 0], want, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 3}, "window must divide h = 4, got 3"),
        ({"shift": 2}, "shift must be below window = 2, got 2"),
        ({"shift": -1}, "shift must be an integer >= 0"),
        ({"table": numpy.zeros((4, 2))}, r"table must have shape \(\(2 m - 1\)\^2, n\) = \(9, 2\)"),
        ({"k": numpy.zeros((1, 4, 4, 2, 4))}, "k must have shape"),
    ],
)
def test_errors(change, message):
    drawn = Case("drawn", arrays(1, 4, 4, 2, 3, 2), {"window": 2}).draw() | change
    with pytest.raises(ValueError, match=f"shifted_window_attention: {message}"):
        ops.shifted_window_attention(**drawn)
