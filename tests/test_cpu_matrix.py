"""Matrix products."""

import itertools

import numpy
import pytest
import scipy.special
from numpy.testing import assert_array_equal

from mixers.cpu import matrix, runner

# around the numbers of lanes, of rows in a tile and of values in a panel
SIZES = [1, 2, 3, 7, 13, 14, 16, 31, 33, 65, 130]
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def combinations():
    """Each size once in each place, in changing company, and the smallest and largest together."""
    n = len(SIZES)
    yield from (tuple(SIZES[(i * step + i) % n] for step in (0, 2, 6)) for i in range(n))
    yield from itertools.product([1, 130], repeat=3)


shapes = pytest.mark.parametrize("m, k, n", list(combinations()))


def whole_numbers(shape, dtype, seed=0):
    """Values whose products and sums are exact, so that any order of summation gives the same."""
    return numpy.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


@dtypes
@shapes
def test_linear(m, k, n, dtype):
    x, w, bias = (whole_numbers(shape, dtype, i) for i, shape in enumerate([(m, k), (k, n), (n,)]))
    for got, wanted in ((matrix.linear(x, w), x @ w), (matrix.linear(x, w, bias), x @ w + bias)):
        assert got.dtype == dtype
        assert_array_equal(got, wanted)
    # transposed weights, as in the gradient of x
    assert_array_equal(matrix.linear(x, w.T.copy().T), x @ w)


@dtypes
@shapes
def test_linear_weights(m, k, n, dtype):
    x, dy = whole_numbers((m, k), dtype), whole_numbers((m, n), dtype, 1)
    assert_array_equal(matrix.linear_weights(x, dy), x.T @ dy)


@dtypes
@pytest.mark.parametrize("r", [511, 513, 2000])
def test_linear_weights_of_many_rows(r, dtype):
    x, dy = whole_numbers((r, 130), dtype), whole_numbers((r, 35), dtype, 1)
    assert_array_equal(matrix.linear_weights(x, dy), x.T @ dy)


@dtypes
@shapes
def test_axis_linear(m, k, n, dtype):
    w, x, bias = (whole_numbers(shape, dtype, i) for i, shape in enumerate([(m, k), (3, k, n), (m,)]))
    wanted = numpy.einsum("mk,bkn->bmn", w, x)
    assert_array_equal(matrix.axis_linear(w, x), wanted)
    assert_array_equal(matrix.axis_linear(w, x, bias), wanted + bias[:, None])
    assert_array_equal(matrix.axis_linear(w.T.copy().T, x), wanted)
    assert_array_equal(matrix.axis_linear(numpy.repeat(w, 2, 1)[:, ::2], x), wanted)


@dtypes
@shapes
def test_axis_weights(m, k, n, dtype):
    dy, x = whole_numbers((3, m, n), dtype), whole_numbers((3, k, n), dtype, 1)
    assert_array_equal(matrix.axis_weights(dy, x), numpy.einsum("bmn,bkn->mk", dy, x))


@dtypes
@pytest.mark.parametrize("b, c", [(1, 513), (40, 33), (200, 1), (3, 1100)])
def test_axis_weights_of_long_sums(b, c, dtype):
    dy, x = whole_numbers((b, 17, c), dtype), whole_numbers((b, 35, c), dtype, 1)
    assert_array_equal(matrix.axis_weights(dy, x), numpy.einsum("bmc,bkc->mk", dy, x))


@dtypes
def test_activation(dtype):
    generator = numpy.random.default_rng(0)
    x, w, bias = (generator.standard_normal(shape).astype(dtype) for shape in [(50, 19), (19, 45), (45,)])
    tolerance = {"rtol": 30 * numpy.finfo(dtype).eps, "atol": 30 * numpy.finfo(dtype).eps}
    inner = x @ w + bias
    wanted = inner * scipy.special.ndtr(inner)
    numpy.testing.assert_allclose(matrix.linear(x, w, bias, "gelu"), wanted, **tolerance)
    inner = w.T @ x.T[None] + bias[:, None]
    wanted = inner * scipy.special.expit(inner)
    got = matrix.axis_linear(w.T, x.T[None], bias, "silu")
    numpy.testing.assert_allclose(got, wanted, **tolerance)


@dtypes
def test_error_of_long_sums(dtype):
    generator = numpy.random.default_rng(0)
    x, w = (
        generator.standard_normal((60, 4000)).astype(dtype),
        generator.standard_normal((4000, 60)).astype(dtype),
    )
    y = generator.standard_normal((4000, 60)).astype(dtype)
    for got, (left, right) in ((matrix.linear(x, w), (x, w)), (matrix.linear_weights(w, y), (w.T, y))):
        exact = left.astype(numpy.longdouble) @ right.astype(numpy.longdouble)
        ratio = numpy.sqrt(numpy.mean((got - exact) ** 2) / numpy.mean(exact**2))
        assert ratio < 5 * numpy.finfo(dtype).eps


@dtypes
def test_nothing_to_sum(dtype):
    empty = numpy.zeros
    assert_array_equal(matrix.linear(empty((3, 0), dtype), empty((0, 2), dtype)), empty((3, 2)))
    assert matrix.linear(empty((0, 4), dtype), empty((4, 2), dtype)).shape == (0, 2)
    assert_array_equal(matrix.linear_weights(empty((0, 4), dtype), empty((0, 2), dtype)), empty((4, 2)))
    assert matrix.axis_linear(empty((2, 4), dtype), empty((0, 4, 5), dtype)).shape == (0, 2, 5)
    assert_array_equal(matrix.axis_weights(empty((0, 4, 5), dtype), empty((0, 3, 5), dtype)), empty((4, 3)))
    bias = whole_numbers(2, dtype)
    assert_array_equal(matrix.linear(empty((3, 0), dtype), empty((0, 2), dtype), bias), [bias] * 3)


@dtypes
def test_threads_do_not_matter_and_memory_is_not_read(dtype, monkeypatch):
    generator = numpy.random.default_rng(0)
    x, w = (generator.standard_normal(shape).astype(dtype) for shape in [(700, 150), (150, 90)])
    dy = generator.standard_normal((700, 90)).astype(dtype)

    def results():
        return [
            matrix.linear(x, w),
            matrix.linear_weights(x, dy),
            matrix.axis_linear(w.T, x.reshape(7, 100, 150).swapaxes(1, 2)),
            matrix.axis_weights(dy.reshape(7, 100, 90), x.reshape(7, 100, 150)[..., :90]),
        ]

    before = runner.get_num_threads()
    empty = numpy.empty
    try:
        runner.set_num_threads(1)
        first = results()
        runner.set_num_threads(3)
        monkeypatch.setattr(numpy, "empty", lambda *args: numpy.full_like(empty(*args), 255))
        second = results()
    finally:
        runner.set_num_threads(before)
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()
