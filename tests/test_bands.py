"""Bands of frequencies."""

import numpy
import pytest
from harness import Case, OpSuite
from scipy import special

import mixers
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
    return Case(name, {"x": shape, "gain": (shape[0], bands, shape[-1])}, **options)


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


def network(name, shape, v, bias=True, options=None, **flags):
    """A case with the weights that fit the shape."""
    k = shape[1]
    # so that the softmax does not put all weight on one band
    small = lambda *size: lambda rng: rng.standard_normal(size) / size[0] ** 0.5
    arrays = {"z": shape, "scale": (k,), "bias": (k,), "w1": small(k, v), "w2": small(v, k)}
    if bias:
        arrays |= {"b1": (v,), "b2": (k,)}
    return Case(name, arrays, options or {}, **flags)


class TestBandWeights(OpSuite):
    op = ops.band_weights
    cases = [
        network("common", (2, 16, 6), 8),
        network("no-bias", (2, 5, 7), 4, bias=False),
        network("eps", (1, 4, 33), 3, options={"eps": 0.5}),
        network("few-bands", (3, 3, 65), 1),
        network("odd", (1, 7, 40), 15),
        network("large", (2, 33, 100), 64, emulated=False, differences=False),
        network("empty-batch", (0, 4, 3), 2),
        network("no-channels", (2, 4, 0), 2),
    ]


def test_one_band_has_all_the_weight():
    y = ops.band_weights(numpy.ones((2, 1, 3)), *(numpy.ones(s) for s in ((1,), (1,), (1, 2), (2, 1))))
    numpy.testing.assert_array_equal(y, numpy.ones((2, 1, 3)))


def test_second_form_of_band_weights():
    """By the ops that it is made of, with SciPy's softmax."""
    rng = numpy.random.default_rng(0)
    z = rng.standard_normal((2, 6, 5))
    scale, bias, w1, w2, b1, b2 = (rng.standard_normal(s) for s in ((6,), (6,), (6, 4), (4, 6), (4,), (6,)))
    hidden = ops.gelu(ops.linear(ops.layer_norm(z.swapaxes(1, 2), scale, bias), w1, b1))
    want = special.softmax(ops.linear(hidden, w2, b2), axis=-1).swapaxes(1, 2)
    for backend in ("reference", "cpu"):
        with mixers.use_backend(backend):
            got = ops.band_weights(z, scale, bias, w1, w2, b1, b2)
        numpy.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_large_logits_do_not_overflow(backend):
    """The softmax leaves out the common part of its arguments."""
    one, w2 = numpy.ones(2, numpy.float32), numpy.array([[0.0, 1e4]], numpy.float32)
    with mixers.use_backend(backend):
        y = ops.band_weights(numpy.zeros((1, 2, 1), numpy.float32), one, one, one[:, None], w2)
    assert y[0, :, 0].tolist() == [0.0, 1.0]


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
    assert y.tolist() == [[[0.5], [2.5], [5.0]]]


def weighed(eps=1e-5, **shapes):
    shapes = {"z": (2, 4, 3), "scale": (4,), "bias": (4,), "w1": (4, 5), "w2": (5, 4)} | shapes
    return ops.band_weights(**{name: numpy.zeros(shape) for name, shape in shapes.items()}, eps=eps)


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
            lambda: ops.band_scale(numpy.zeros((2, 3, 4)), numpy.zeros((2, 5, 4))),
            "band_scale: there must be at most",
        ),
        (
            lambda: weighed(z=(2, 0, 3), scale=(0,), bias=(0,), w1=(0, 5), w2=(5, 0)),
            r"band_weights: z must have at least one band, got shape \(2, 0, 3\)",
        ),
        (
            lambda: weighed(scale=(3,)),
            r"band_weights: scale must have shape \(k,\) = \(4,\), got \(3,\)",
        ),
        (
            lambda: weighed(w2=(5, 3)),
            r"band_weights: w2 must have shape \(v, k\) = \(5, 4\), got \(5, 3\)",
        ),
        (lambda: weighed(b1=(4,)), r"band_weights: b1 must have shape \(v,\) = \(5,\), got \(4,\)"),
        (lambda: weighed(b2=(5,)), r"band_weights: b2 must have shape \(k,\) = \(4,\), got \(5,\)"),
        (lambda: weighed(eps=-1.0), "band_weights: eps must be"),
        (
            lambda: ops.band_scale(numpy.zeros((2, 3, 4)), numpy.zeros((2, 3, 2))),
            r"band_scale: gain must have shape \(b, k, c\) with b = 2, c = 4, got \(2, 3, 2\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
