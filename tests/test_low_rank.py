"""Values weighted by a matrix of low rank."""

import numpy
import pytest
from harness import Case, OpSuite

from mixers import ops


def arrays(b, n, h, r, c, e, o, biases=True):
    """Shapes of the arguments; weights of a size that keeps the output of order one."""
    small = lambda *shape: lambda rng: rng.standard_normal(shape) / max(1, shape[-2]) ** 0.5
    given = {
        "z": (b, n, h, r),
        "x": (b, n, c),
        "w_up": small(h, n, r),
        "w_v": small(c, e),
        "w_out": small(e, o),
    }
    return given | ({"b_v": (e,), "b_out": (o,)} if biases else {})


class TestLowRankValues(OpSuite):
    op = ops.low_rank_values
    cases = [
        Case("plain", arrays(2, 13, 2, 4, 8, 8, 8)),
        Case("no-biases", arrays(2, 9, 3, 2, 5, 6, 7, biases=False)),
        Case("one-of-each", arrays(1, 1, 1, 1, 1, 1, 1)),
        Case("odd-sizes", arrays(3, 33, 2, 7, 33, 10, 35)),
        Case("one-head", arrays(2, 17, 1, 33, 3, 4, 65)),
        Case("vision", arrays(2, 197, 3, 12, 192, 192, 96), emulated=False, differences=False),
        Case("deep", arrays(1, 600, 2, 3, 520, 6, 5), emulated=False, differences=False),
        Case("no-ranks", arrays(1, 5, 2, 0, 3, 4, 3)),
        Case("no-tokens", arrays(2, 0, 2, 3, 3, 4, 5)),
        Case("empty-batch", arrays(0, 5, 2, 3, 3, 4, 5)),
    ]


def test_what_it_is_short_for():
    """The weights written out, head by head."""
    arguments = Case("second", arrays(1, 6, 2, 3, 4, 10, 5)).draw()
    z, x, w_up = arguments["z"][0], arguments["x"][0], arguments["w_up"]
    v = (x @ arguments["w_v"] + arguments["b_v"]).reshape(6, 2, 5)
    o = [z[:, head] @ w_up[head].T @ v[:, head] for head in range(2)]
    want = numpy.concatenate(o, axis=1) @ arguments["w_out"] + arguments["b_out"]
    numpy.testing.assert_allclose(ops.low_rank_values(**arguments)[0], want, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": numpy.zeros((2, 4, 4))}, r"low_rank_values: x must have shape \(b, n, c\)"),
        ({"w_up": numpy.zeros((2, 5, 2))}, r"low_rank_values: w_up must have shape \(h, n, r\)"),
        ({"w_v": numpy.zeros((4, 7))}, "low_rank_values: h must divide e = 7, got 2"),
        ({"w_out": numpy.zeros((7, 3))}, r"low_rank_values: w_out must have shape \(e, o\)"),
        ({"b_v": numpy.zeros(3)}, r"low_rank_values: b_v must have shape \(e,\)"),
        ({"b_out": numpy.zeros(2)}, r"low_rank_values: b_out must have shape \(o,\)"),
    ],
)
def test_errors(change, message):
    arguments = Case("error", arrays(2, 5, 2, 3, 4, 6, 3)).draw()
    with pytest.raises(ValueError, match=message):
        ops.low_rank_values(**{**arguments, **change})
