"""Changes of the token grid."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


class TestAvgPool2x2(OpSuite):
    op = ops.avg_pool_2x2
    cases = [
        Case("even", {"x": (2, 4, 6, 3)}),
        Case("odd", {"x": (3, 5, 7, 33)}),
        Case("smallest", {"x": (1, 2, 3, 1)}),
        Case("large", {"x": (2, 65, 64, 16)}, emulated=False, differences=False),
        Case("empty-batch", {"x": (0, 4, 4, 3)}),
    ]


class TestNearestUpsample(OpSuite):
    op = ops.nearest_upsample
    cases = [
        Case("double", {"x": (2, 3, 4, 3)}, {"grid": (6, 8)}),
        Case("odd", {"x": (3, 3, 4, 33)}, {"grid": (7, 9)}),
        Case("same", {"x": (1, 2, 3, 8)}, {"grid": (2, 3)}),
        Case("uneven", {"x": (1, 3, 5, 1)}, {"grid": (31, 13)}),
        Case("large", {"x": (2, 33, 16, 16)}, {"grid": (65, 64)}, emulated=False, differences=False),
        Case("empty-batch", {"x": (0, 2, 2, 3)}, {"grid": (4, 4)}),
    ]


class TestTokenMean(OpSuite):
    op = ops.token_mean
    cases = [
        Case("sequence", {"x": (2, 9, 3)}),
        Case("image", {"x": (3, 5, 7, 33)}),
        Case("rows", {"x": (2, 5, 7, 8)}, {"axes": (2,)}),
        Case("columns", {"x": (2, 5, 7, 8)}, {"axes": (1,)}),
        Case("from-the-end", {"x": (1, 3, 4, 5)}, {"axes": (-2, -3)}),
        Case("one-token", {"x": (1, 1, 1)}),
        Case("long", {"x": (3, 1025, 17)}, emulated=False, differences=False),
        Case("empty-batch", {"x": (0, 4, 4, 3)}, {"axes": (1,)}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(2, n) for n in (3, 9, 9, 40))),
    more=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_any_grid(sizes, more):
    grid = tuple(n + m for n, m in zip(sizes[1:3], more))
    check_backend(ops.avg_pool_2x2, Case("any", {"x": sizes}), "cpu", "float32")
    check_backend(ops.nearest_upsample, Case("any", {"x": sizes}, {"grid": grid}), "cpu", "float32")
    for axes in (None, (1,), (2,)):
        check_backend(ops.token_mean, Case("any", {"x": sizes}, {"axes": axes}), "cpu", "float32")


def test_second_form():
    """Upsampling by two undoes pooling of blocks; each covered cell is read floor(i H / h) .. times."""
    x = numpy.random.default_rng(0).standard_normal((2, 3, 4, 5))
    with mixers.use_backend("reference"):
        large = ops.nearest_upsample(x, grid=(6, 8))
        numpy.testing.assert_allclose(ops.avg_pool_2x2(large), x)
        numpy.testing.assert_array_equal(large, x.repeat(2, axis=1).repeat(2, axis=2))
        odd, saved = ops.nearest_upsample.forward(x, grid=(7, 9))
        numpy.testing.assert_array_equal(
            odd[:, 2:5], x[:, 0:2].repeat([1, 2], axis=1)[:, :, [0, 0, 0, 1, 1, 2, 2, 3, 3]]
        )
        counts = ops.nearest_upsample.backward(numpy.ones_like(odd), saved).dx[0, :, :, 0]
    numpy.testing.assert_array_equal(counts, numpy.outer([3, 2, 2], [3, 2, 2, 2]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: ops.avg_pool_2x2(x[:, :1]),
            r"avg_pool_2x2: x must have h, w >= 2, got shape \(1, 1, 4, 2\)",
        ),
        (
            lambda x: ops.nearest_upsample(x, grid=(2, 8)),
            r"nearest_upsample: grid must be at least the grid of x .* got \(2, 8\)",
        ),
        (
            lambda x: ops.nearest_upsample(x, grid=6),
            "nearest_upsample: grid must be a pair of integers, got 6",
        ),
        (lambda x: ops.token_mean(x, axes=(3,)), "token_mean: axes must be token axes of x"),
        (lambda x: ops.token_mean(x, axes=(1, 1)), "token_mean: axes must differ"),
        (lambda x: ops.token_mean(x, axes=1), "token_mean: axes must be a tuple of token axes, got 1"),
        (lambda x: ops.token_mean(x[:, :0]), "token_mean: x must have at least one token to average over"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(numpy.zeros((1, 3, 4, 2)))
