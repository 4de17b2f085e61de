"""Sums over rows."""

import numpy
import pytest
from numpy.testing import assert_array_equal

from mixers.cpu.reduction import sum_rows, sum_to_shape


@pytest.mark.parametrize("rows", [0, 1, 2, 255, 256, 257, 70000])
@pytest.mark.parametrize("columns", [1, 3, 8, 33, 150])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum_rows(rows, columns, dtype):
    # whole numbers, so that the sum is exact
    x = numpy.random.default_rng(0).integers(-9, 10, (rows, columns)).astype(dtype)
    result = sum_rows(x)
    assert result.dtype == dtype
    assert_array_equal(result, x.sum(0, dtype="float64"))
    assert not numpy.shares_memory(result, x)


def test_many_columns():
    x = numpy.random.default_rng(0).integers(-9, 10, (70, 70001)).astype("float32")
    assert_array_equal(sum_rows(x), x.sum(0, dtype="float64"))


def test_rounding_does_not_pile_up():
    x = numpy.full((1_000_000, 4), 0.1, "float32")
    numpy.testing.assert_allclose(sum_rows(x), 1e5, rtol=2e-6)


@pytest.mark.parametrize(
    "shape, wanted",
    [
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4), (4,)),
        ((2, 3, 4), (1, 3, 4)),
        ((2, 3, 4), (1, 1, 4)),
        ((2, 3, 4), (2, 1, 4)),
        ((2, 3, 4), (2, 3, 1)),
        ((2, 3, 4), (1,)),
        ((2, 3, 4), ()),
        ((2, 0, 4), (4,)),
        ((0, 3), (0, 1)),
        ((2, 1, 4), (1, 4)),
        ((1, 1), (1, 1)),
        ((), ()),
    ],
)
def test_sum_to_shape(shape, wanted):
    array = numpy.random.default_rng(0).integers(-9, 10, shape).astype("float32")
    result = sum_to_shape(array, wanted)
    assert result.shape == wanted and result.dtype == array.dtype
    # the adjoint of broadcasting
    weights = numpy.random.default_rng(1).integers(-9, 10, wanted)
    assert (result * weights).sum() == (array * numpy.broadcast_to(weights, shape)).sum()
    assert not numpy.shares_memory(result, array)
