"""Bands of frequencies."""

import numpy
import pytest
from harness import Case, OpSuite

from mixers import ops, orders


class TestBandMean(OpSuite):
    op = ops.band_mean
    cases = [
        Case("sequence", {"x": (2, 13, 6)}, {"bands": 4}),
        Case("image", {"x": (2, 6, 8, 5)}, {"bands": 8}),
        Case("odd-image", {"x": (3, 7, 5, 33)}, {"bands": 16}),
        Case("one-band", {"x": (1, 4, 4, 8)}, {"bands": 1}),
        Case("all-bands", {"x": (2, 3, 4, 3)}, {"bands": 12}),
        Case("wide", {"x": (1, 5, 9, 100)}, {"bands": 7}),
        Case("large", {"x": (2, 40, 33, 3)}, {"bands": 16}, differences=False),
        Case("empty-batch", {"x": (0, 4, 4, 3)}, {"bands": 2}),
        Case("no-channels", {"x": (2, 4, 0)}, {"bands": 2}),
    ]


def scaled(name, shape, bands, **options):
    return Case(name, {"x": shape, "gain": (shape[0], shape[-1], bands)}, **options)


class TestBandScale(OpSuite):
    op = ops.band_scale
    cases = [
        scaled("sequence", (2, 13, 6), 4),
        scaled("image", (2, 6, 8, 5), 8),
        scaled("odd-image", (3, 7, 5, 33), 16),
        scaled("one-band", (1, 4, 4, 8), 1),
        scaled("all-bands", (2, 3, 4, 3), 12),
        scaled("wide", (1, 5, 9, 100), 7),
        scaled("large", (2, 40, 33, 3), 16, differences=False),
        scaled("empty-batch", (0, 4, 4, 3), 2),
        scaled("no-channels", (2, 4, 0), 2),
    ]


def test_zigzag():
    """The first cells of a coefficient block of JPEG, and the ends of other grids."""
    row, column = numpy.divmod(orders.zigzag(8, 8), 8)
    assert list(zip(row[:7], column[:7])) == [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3)]
    assert orders.zigzag(2, 3).tolist() == [0, 1, 3, 4, 2, 5]
    assert orders.zigzag(1, 4).tolist() == [0, 1, 2, 3]
    assert orders.zigzag(4, 1).tolist() == [0, 1, 2, 3]


def test_band_sizes():
    """Coefficient p belongs to band k if floor(k n / bands) <= p < floor((k + 1) n / bands)."""
    y = ops.band_mean(numpy.arange(7.0).reshape(1, 7, 1), bands=3)
    assert y.tolist() == [[[0.5, 2.5, 5.0]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.band_mean(numpy.zeros((2, 3)), bands=1), "band_mean: x must have 3 or 4 axes"),
        (
            lambda: ops.band_mean(numpy.zeros((2, 3, 4)), bands=4),
            r"band_mean: there must be at most as many bands as coefficients \(3\), and one at least, got 4",
        ),
        (lambda: ops.band_mean(numpy.zeros((2, 3, 4)), bands=0), "bands must be an integer >= 1, got 0"),
        (
            lambda: ops.band_scale(numpy.zeros((2, 3, 4)), numpy.zeros((2, 4, 5))),
            "band_scale: there must be at most",
        ),
        (
            lambda: ops.band_scale(numpy.zeros((2, 3, 4)), numpy.zeros((2, 3, 2))),
            r"band_scale: gain must have shape \(b, c, k\) with b = 2, c = 4, got \(2, 3, 2\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
