"""Kolmogorov-Arnold layers whose edge functions have shapes of their own."""

import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, run

import mixers
from mixers import ops


def scales(*shape):
    return lambda rng: rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def wavelet(m, i, o, function):
    arrays = {"x": (*m, i), "first": (i, o), "second": scales(i, o), "third": (i, o)}
    return arrays, {"function": function}


def rational(m, i, above, below, o):
    arrays = {"x": (*m, i), "first": (i, above + 1, o), "second": (i, below, o)}
    return arrays, {"function": "rational"}


class TestKanEdges(OpSuite):
    op = ops.kan_edges
    cases = [
        Case("mexican-hat", *wavelet((2, 9), 6, 5, "mexican_hat")),
        Case("morlet", *wavelet((33,), 3, 33, "morlet")),
        Case("dog", *wavelet((2, 3, 2), 1, 1, "dog")),
        Case("meyer", *wavelet((2, 9), 5, 7, "meyer")),
        Case("shannon", *wavelet((2, 9), 4, 3, "shannon")),
        Case("shannon-one-input", *wavelet((5,), 1, 3, "shannon")),
        Case("rational", *rational((2, 9), 4, 5, 4, 3)),
        Case("polynomial", *rational((9,), 2, 2, 0, 17)),
        Case("reciprocal", *rational((3,), 2, 0, 1, 2)),
        Case("many-rows", *wavelet((1025,), 2, 3, "dog"), emulated=False, differences=False),
        Case("slices", *rational((600,), 2, 1, 1, 2), differences=False),
        Case("no-rows", *wavelet((0,), 2, 3, "dog")),
        Case("no-inputs", *wavelet((4,), 0, 3, "morlet")),
    ]


def needs(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_special_points(backend):
    """sin(z) / z at and near 0, the Meyer window at its ends, |Q| at 0."""
    needs(backend)
    x = numpy.array([0.0, 1e-6, -1e-6, 0.5, 1.0, 2.0, -1.0])[:, None]
    one, zero = numpy.ones((1, 1)), numpy.zeros((1, 1))
    dout = numpy.ones((7, 1))
    wavelets = {"first": one, "second": one, "third": zero}
    (y,), gradients = run(ops.kan_edges, {"x": x, **wavelets, "function": "shannon"}, dout, backend)
    numpy.testing.assert_allclose(y, numpy.sinc(x / numpy.pi), rtol=1e-12)
    assert gradients["x"][0] == 0.0
    (y,), gradients = run(ops.kan_edges, {"x": x, **wavelets, "function": "meyer"}, dout, backend)
    numpy.testing.assert_allclose(y.ravel()[[0, 3, 4, 5, 6]], [0.0, 1.0, 0.0, 0.0, 0.0], atol=1e-12)
    numpy.testing.assert_allclose(gradients["x"].ravel()[[0, 4, 5]], 0.0, atol=1e-12)
    fraction = {"x": x, "first": one[None], "second": one[None], "function": "rational"}
    (y,), gradients = run(ops.kan_edges, fraction, dout, backend)
    numpy.testing.assert_allclose(y, 1 / (1 + abs(x)), rtol=1e-12)
    assert gradients["x"][0] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": "haar"}, "kan_edges: function must be one of 'mexican_hat'"),
        ({"x": numpy.zeros((4, 2))}, r"kan_edges: x must have shape \(..., i\) with i = 3"),
        ({"second": numpy.zeros((2, 5))}, r"kan_edges: second must have shape \(i, o\) = \(3, 5\)"),
        ({"third": None}, "kan_edges: third must be given with function='dog'"),
        ({"function": "rational"}, r"kan_edges: first must have shape \(i, m, o\)"),
    ],
)
def test_errors(change, message):
    edge = numpy.ones((3, 5))
    arguments = {"x": numpy.zeros((4, 3)), "first": edge, "second": edge, "third": edge, "function": "dog"}
    with mixers.use_backend("reference"), pytest.raises(ValueError, match=message):
        ops.kan_edges(**{**arguments, **change})


def test_a_rational_function_has_two_arrays():
    fraction = numpy.ones((3, 2, 5))
    with pytest.raises(ValueError, match="kan_edges: third must not be given with function='rational'"):
        ops.kan_edges(numpy.zeros((4, 3)), fraction, fraction, fraction, function="rational")
