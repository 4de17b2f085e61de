"""Average pooling."""

import numpy
import pytest
from harness import Case, OpSuite
from scipy import ndimage

import mixers
from mixers import ops


class TestAvgPool(OpSuite):
    op = ops.avg_pool
    cases = [
        Case("sequence", {"x": (2, 9, 3)}, {"size": 3}),
        Case("one-token", {"x": (1, 1, 8)}, {"size": 3}),
        Case("image", {"x": (2, 5, 7, 33)}, {"size": 3}),
        Case("image-minus-identity", {"x": (3, 7, 4, 8)}, {"size": 3, "minus_identity": True}),
        Case("window-over-grid", {"x": (1, 3, 5, 3)}, {"size": 7, "minus_identity": True}),
        Case("size-one", {"x": (1, 2, 3, 1)}, {"size": 1}),
        Case("size-five", {"x": (2, 65, 3)}, {"size": 5, "minus_identity": True}),
        Case("one-row", {"x": (1, 1, 31, 16)}, {"size": 3, "minus_identity": True}),
        Case("long", {"x": (1, 1025, 3)}, {"size": 9}, emulated=False, differences=False),
        # several blocks of columns, in tasks of any order
        Case("wide", {"x": (2, 3, 5000, 33)}, {"size": 5}, emulated=False, differences=False),
        Case("wide-three", {"x": (1, 3, 5000, 33)}, emulated=False, differences=False),
        Case("no-tokens", {"x": (2, 0, 3)}, {"size": 3}),
        Case("empty-batch", {"x": (0, 4, 4, 3)}, {"size": 3, "minus_identity": True}),
    ]


def test_second_form():
    """A normalised uniform filter, as scipy.ndimage computes it."""
    x = numpy.random.default_rng(0).standard_normal((6, 7))
    total = ndimage.uniform_filter(x, 3, mode="constant")
    counts = ndimage.uniform_filter(numpy.ones_like(x), 3, mode="constant")
    with mixers.use_backend("reference"):
        y = ops.avg_pool(x[None, :, :, None], size=3)[0, :, :, 0]
    numpy.testing.assert_allclose(y, total / counts, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 4), {"size": 2}, "avg_pool: size must be an odd integer >= 1, got 2"),
        ((2, 3, 4), {"size": -1}, "avg_pool: size must be an odd integer >= 1, got -1"),
        ((2, 3), {}, r"avg_pool: x must have 3 or 4 axes, got shape \(2, 3\)"),
    ],
)
def test_errors(shape, options, message):
    with pytest.raises(ValueError, match=message):
        ops.avg_pool(numpy.zeros(shape), **options)
