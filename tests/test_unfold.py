"""Windows of an image."""

import numpy
import pytest
from harness import Case, OpSuite

import mixers
from mixers import ops


class TestUnfold2d(OpSuite):
    op = ops.unfold2d
    cases = [
        Case("plain", {"x": (2, 5, 6, 3)}, {"size": 3}),
        Case("padded", {"x": (2, 6, 5, 3)}, {"size": 3, "padding": 1}),
        Case("strides", {"x": (1, 7, 6, 33)}, {"size": 3, "stride": 2, "padding": 1}),
        Case("gaps", {"x": (1, 8, 7, 2)}, {"size": 2, "stride": 3}),
        Case("pixels", {"x": (1, 2, 3, 4)}, {"size": 1}),
        Case("all-padding", {"x": (1, 1, 1, 2)}, {"size": 3, "padding": 2}),
        Case("empty-batch", {"x": (0, 4, 4, 2)}, {"size": 2}),
        Case("no-channels", {"x": (1, 4, 4, 0)}, {"size": 2}),
    ]


def test_second_form():
    """One window after the other."""
    x = numpy.random.default_rng(0).standard_normal((2, 7, 6, 3))
    padded = numpy.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    with mixers.use_backend("reference"):
        y = ops.unfold2d(x, size=3, stride=2, padding=1)
    assert y.shape == (2, 4, 3, 27)
    for p in range(4):
        for q in range(3):
            window = padded[:, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
            numpy.testing.assert_array_equal(y[:, p, q], window.reshape(2, 27))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "unfold2d: size must be an integer >= 1, got 0"),
        ({"size": 2, "stride": 0}, "unfold2d: stride must be an integer >= 1, got 0"),
        ({"size": 2, "padding": -1}, "unfold2d: padding must be an integer >= 0, got -1"),
        ({"size": 7, "padding": 1}, r"unfold2d: size must be at most the padded image \(6, 7\), got 7"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ops.unfold2d(numpy.zeros((1, 4, 5, 2)), **options)
