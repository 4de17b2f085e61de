"""Elementwise ops: every function on every backend, arithmetic with all forms of broadcasting."""

import numpy
import pytest
from harness import Case, OpSuite

from mixers import ops


def spread(scale):
    """Values over the whole curved part of an activation, zero among them."""

    def draw(rng):
        x = scale * rng.standard_normal((3, 7, 33))
        x[0, 0, 0] = 0.0
        return x

    return draw


UNARY = (
    Case("one", {"x": (1,)}),
    Case("tail", {"x": (2, 5, 33)}),
    # the kinks of relu and absolute are no place for difference quotients
    Case("spread", {"x": spread(4.0)}, differences=False),
    Case("empty", {"x": (0, 3)}, differences=False),
)


class TestGelu(OpSuite):
    op = ops.gelu
    cases = UNARY


class TestGeluTanh(OpSuite):
    op = ops.gelu_tanh
    cases = UNARY


class TestSilu(OpSuite):
    op = ops.silu
    cases = UNARY


class TestRelu(OpSuite):
    op = ops.relu
    cases = UNARY


class TestSigmoid(OpSuite):
    op = ops.sigmoid
    cases = UNARY


class TestTanh(OpSuite):
    op = ops.tanh
    cases = UNARY


class TestSoftplus(OpSuite):
    op = ops.softplus
    cases = UNARY


class TestSin(OpSuite):
    op = ops.sin
    cases = UNARY


class TestExp(OpSuite):
    op = ops.exp
    # the spread of the others leaves the range of float16
    cases = tuple(case for case in UNARY if case.name != "spread")


class TestAbsolute(OpSuite):
    op = ops.absolute
    cases = UNARY


def away_from_zero(*shape):
    return lambda rng: rng.uniform(0.5, 2.0, shape)


BROADCASTS = tuple(
    Case(name, {"a": away_from_zero(*a), "b": away_from_zero(*b)}, differences=bool(numpy.prod(a)))
    for name, a, b in (
        ("same", (2, 5, 3), (2, 5, 3)),
        ("channels", (2, 5, 3), (3,)),
        ("column_and_row", (5, 1), (1, 4)),
        ("axes_of_one", (2, 1, 3), (5, 1)),
        ("first_is_smaller", (3,), (2, 5, 3)),
        ("empty", (0, 3), (3,)),
    )
)


class TestAdd(OpSuite):
    op = ops.add
    cases = BROADCASTS


class TestSub(OpSuite):
    op = ops.sub
    cases = BROADCASTS


class TestMul(OpSuite):
    op = ops.mul
    cases = BROADCASTS


class TestDiv(OpSuite):
    op = ops.div
    cases = BROADCASTS


@pytest.mark.parametrize("op", [ops.add, ops.sub, ops.mul, ops.div])
def test_shapes_must_broadcast(op):
    message = rf"{op.name}: b must have a shape that broadcasts with a \(2, 3\), got \(2,\)"
    with pytest.raises(ValueError, match=message):
        op(numpy.zeros((2, 3)), numpy.zeros(2))
