"""Fourier transforms with the channels in the lanes."""

import numpy
import pytest

from mixers.cpu import fft
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import BITS

# products of every pair of radices, powers, primes beyond them
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 21, 24, 25, 26, 27, 28, 32, 33, 35]
LENGTHS += [49, 56, 63, 64, 81, 97, 100, 105, 120, 125, 128, 187, 196, 224, 240, 343, 512, 840, 1000, 4096]
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@kernel
def there(Z, step, n, plan, counter):
    for _ in tasks(counter):
        fft.forward(Z, 0, step, n, plan, 0, len(plan[0]))


@kernel
def back(Z, step, n, plan, counter):
    for _ in tasks(counter):
        fft.inverse(Z, 0, step, n, plan, 0, len(plan[0]))


def width(dtype):
    return BITS // (8 * numpy.dtype(dtype).itemsize)


def points(n, dtype, gap=0, seed=0):
    """Points in memory, and the same as complex numbers (n, channels)."""
    lanes = width(dtype)
    Z = numpy.random.default_rng(seed).standard_normal((n, 2 * lanes + gap)).astype(dtype)
    return Z, Z[:, :lanes] + 1j * Z[:, lanes : 2 * lanes]


def error(got, wanted):
    return numpy.sqrt(numpy.mean(abs(got - wanted) ** 2) / numpy.mean(abs(wanted) ** 2))


@dtypes
@pytest.mark.parametrize("n", LENGTHS)
def test_transform(n, dtype):
    gap = 5 if n % 2 else 0
    Z, x = points(n, dtype, gap)
    original, lanes = Z.copy(), width(dtype)
    args = 2 * lanes + gap, n, tuple(fft.plan(n, dtype))
    run(there, 1, Z.reshape(-1), *args)
    got = numpy.empty((n, lanes), complex)
    got[fft.storage_order(n)] = Z[:, :lanes] + 1j * Z[:, lanes : 2 * lanes]
    bound = 4 * numpy.finfo(dtype).eps
    assert error(got, numpy.fft.fft(x, axis=0)) < bound
    run(back, 1, Z.reshape(-1), *args)
    assert error(Z[:, : 2 * lanes], n * original[:, : 2 * lanes]) < bound
    numpy.testing.assert_array_equal(Z[:, 2 * lanes :], original[:, 2 * lanes :])


def test_good_length():
    for n in [*range(1, 200), 1000, 2047, 8191, 16383, 100_000]:
        good = fft.good_length(n)
        assert n <= good <= 2 * n
        assert max(fft.factors(good), default=1) <= 8
        assert numpy.prod(fft.factors(good), dtype=int) == good


@pytest.mark.parametrize("n", LENGTHS)
def test_storage_order_holds_every_frequency(n):
    numpy.testing.assert_array_equal(numpy.sort(fft.storage_order(n)), numpy.arange(n))
