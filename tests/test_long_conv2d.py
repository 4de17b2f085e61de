"""Long convolutions of images."""

import numpy
import pytest
import scipy.signal
from harness import Case, OpSuite

import mixers
from mixers import ops


def convolution(name, shape, taps=None, D=True, reverse=(False, False), **options):
    c = shape[-1]
    arrays = {"x": shape, "h": (*(taps or shape[1:3]), c), "D": (c,) if D else None}
    return Case(name, arrays, {"reverse": reverse}, **options)


class TestLongConv2d(OpSuite):
    op = ops.long_conv2d
    cases = [
        convolution("square", (2, 7, 7, 5)),
        convolution("no-skip", (3, 6, 4, 33), D=False),
        convolution("both", (2, 5, 6, 3), reverse=(True, True)),
        convolution("rows", (1, 5, 6, 8), reverse=(True, False)),
        convolution("columns", (3, 4, 7, 3), reverse=(False, True), D=False),
        convolution("few-taps", (2, 8, 9, 4), (3, 2)),
        convolution("surplus-taps", (1, 3, 4, 3), (5, 6), reverse=(False, True)),
        convolution("point", (3, 1, 1, 3), (1, 1)),
        convolution("row", (2, 1, 13, 3)),
        convolution("33x32", (1, 33, 32, 2), differences=False),
        convolution("130x129", (1, 130, 129, 1), (20, 10), D=False, emulated=False, differences=False),
        convolution("empty-batch", (0, 4, 4, 3)),
        convolution("no-tokens", (2, 0, 4, 3), (2, 2)),
        convolution("no-channels", (2, 4, 4, 0), D=False),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_is_a_convolution(backend):
    rng = numpy.random.default_rng(0)
    x, h = rng.standard_normal((1, 6, 9, 1)), rng.standard_normal((6, 9, 1))
    with mixers.use_backend(backend):
        y = ops.long_conv2d(x, h)
    wanted = scipy.signal.convolve2d(x[0, ..., 0], h[..., 0])[:6, :9]
    numpy.testing.assert_allclose(y[0, ..., 0], wanted, atol=1e-13)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("reverse", [(True, False), (False, True), (True, True)])
def test_reversal_is_a_flip(backend, reverse):
    rng = numpy.random.default_rng(0)
    x, h = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((5, 6, 3))
    axes = [axis for axis, r in zip((1, 2), reverse) if r]
    with mixers.use_backend(backend):
        y = ops.long_conv2d(x, h, reverse=reverse)
        flipped = numpy.flip(ops.long_conv2d(numpy.flip(x, axes), h), axes)
    numpy.testing.assert_allclose(y, flipped, atol=1e-13)


@pytest.mark.parametrize(
    ("h", "options", "message"),
    [
        ((4, 4, 2), {}, "h must have shape"),
        ((0, 4, 3), {}, "h must have at least one tap"),
        ((4, 4, 3), {"D": numpy.zeros(2)}, r"D must have shape \(c,\) = \(3,\)"),
        ((4, 4, 3), {"reverse": True}, "reverse must be a pair of True or False, got True"),
        ((4, 4, 3), {"reverse": (True,)}, "reverse must be a pair"),
    ],
)
def test_errors(h, options, message):
    with pytest.raises(ValueError, match=f"long_conv2d: {message}"):
        ops.long_conv2d(numpy.zeros((2, 4, 4, 3)), numpy.zeros(h), **options)


def test_direction_type():
    with pytest.raises(TypeError, match="long_conv2d: reverse must be True or False, got 1"):
        ops.long_conv2d(numpy.zeros((2, 4, 4, 3)), numpy.zeros((4, 4, 3)), reverse=(1, 0))
