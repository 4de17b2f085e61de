"""Fourier transforms of real arrays."""

import numpy
import pytest
from harness import Case, OpSuite

import mixers
from mixers import ops


class TestFourierReal(OpSuite):
    op = ops.fourier_real
    cases = [
        Case("even", {"x": (2, 16, 8)}),
        Case("odd", {"x": (3, 13, 7)}),
        Case("one-token", {"x": (3, 1, 8)}),
        Case("one-channel", {"x": (2, 9, 1)}),
        Case("two", {"x": (1, 2, 2)}),
        Case("wide", {"x": (1, 6, 33)}),
        Case("65-tokens", {"x": (1, 65, 33)}),
        Case("long", {"x": (1, 600, 5)}, differences=False),
        Case("longer", {"x": (1, 1025, 3)}, emulated=False, differences=False),
        Case("empty-batch", {"x": (0, 4, 3)}),
        Case("no-tokens", {"x": (2, 0, 3)}),
        Case("no-channels", {"x": (2, 4, 0)}),
    ]


class TestRfft(OpSuite):
    op = ops.rfft
    cases = [
        Case("sequence", {"x": (2, 12, 5)}),
        Case("odd-sequence", {"x": (3, 13, 6)}, {"columns": 4}),
        Case("one-token", {"x": (2, 1, 3)}),
        Case("image", {"x": (2, 6, 8, 5)}),
        Case("odd-image", {"x": (3, 7, 5, 33)}),
        Case("columns", {"x": (1, 4, 6, 3)}, {"columns": 2}),
        Case("rows-and-columns", {"x": (2, 8, 4, 3)}, {"rows": (2, 7), "columns": 3}),
        Case("no-columns", {"x": (2, 5, 4, 3)}, {"columns": 0}),
        Case("no-rows", {"x": (2, 5, 4, 3)}, {"rows": (2, 2)}),
        Case("65x66", {"x": (1, 65, 66, 2)}, differences=False),
        Case("empty-batch", {"x": (0, 4, 6, 3)}),
        Case("no-channels", {"x": (2, 4, 0)}),
    ]


def half_spectrum(name, shape, **options):
    return Case(name, {"re": shape, "im": shape}, options)


class TestIrfft(OpSuite):
    op = ops.irfft
    cases = [
        half_spectrum("sequence", (2, 7, 5), grid=(12,)),
        half_spectrum("odd-sequence", (3, 7, 6), grid=(13,)),
        half_spectrum("few-columns", (3, 4, 6), grid=(13,)),
        half_spectrum("one-token", (2, 1, 3), grid=(1,)),
        half_spectrum("image", (2, 6, 5, 5), grid=(6, 8)),
        half_spectrum("odd-image", (3, 7, 3, 33), grid=(7, 5)),
        half_spectrum("columns", (1, 4, 2, 3), grid=(4, 6)),
        half_spectrum("rows-and-columns", (2, 5, 3, 3), grid=(8, 4), rows=(2, 7)),
        half_spectrum("no-columns", (2, 5, 0, 3), grid=(5, 4)),
        half_spectrum("no-rows", (2, 0, 3, 3), grid=(5, 4), rows=(2, 2)),
        half_spectrum("65x66", (1, 65, 34, 2), grid=(65, 66)),
        half_spectrum("empty-batch", (0, 4, 4, 3), grid=(4, 6)),
        half_spectrum("no-channels", (2, 3, 0), grid=(4,)),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("grid", [(7, 6), (6, 7)])
def test_as_numpy_does(backend, grid):
    """Also for spectra that no real signal has."""
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((2, *grid, 3))
    X = numpy.fft.rfft2(x, axes=(1, 2), norm="ortho")
    odd = rng.standard_normal(X.shape) + 1j * rng.standard_normal(X.shape)
    with mixers.use_backend(backend):
        got = ops.rfft(x)
        back = ops.irfft(odd.real, odd.imag, grid=grid)
        y = ops.fourier_real(x[0])
    numpy.testing.assert_allclose(got.re + 1j * got.im, X, atol=1e-13)
    numpy.testing.assert_allclose(back, numpy.fft.irfft2(odd, s=grid, axes=(1, 2), norm="ortho"), atol=1e-13)
    numpy.testing.assert_allclose(y, numpy.fft.fft2(x[0], axes=(1, 2)).real, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.fourier_real(numpy.zeros((2, 3))), "fourier_real: x must have 3 axes, got shape"),
        (lambda: ops.rfft(numpy.zeros((2, 3))), "rfft: x must have 3 or 4 axes"),
        (lambda: ops.rfft(numpy.zeros((2, 0, 3))), "rfft: x must have at least one token"),
        (lambda: ops.rfft(numpy.zeros((2, 6, 3)), columns=5), "rfft: columns must be at most 4, got 5"),
        (
            lambda: ops.rfft(numpy.zeros((2, 6, 3)), rows=(0, 1)),
            "rfft: rows must be a range of the rows of an image",
        ),
        (
            lambda: ops.rfft(numpy.zeros((2, 4, 4, 3)), rows=(3, 5)),
            "rfft: rows must be a range of the rows of an image",
        ),
        (
            lambda: ops.irfft(numpy.zeros((2, 4, 3)), numpy.zeros((2, 4, 4)), grid=(6,)),
            r"irfft: im must have shape \(b, k, c\) = \(2, 4, 3\)",
        ),
        (
            lambda: ops.irfft(numpy.zeros((2, 4, 3)), numpy.zeros((2, 4, 3)), grid=(5,)),
            "irfft: re must have at most 3 columns",
        ),
        (
            lambda: ops.irfft(numpy.zeros((2, 4, 2, 3)), numpy.zeros((2, 4, 2, 3)), grid=(5, 2)),
            "irfft: re must have 5 rows",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
