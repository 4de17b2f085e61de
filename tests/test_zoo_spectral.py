"""Spectral token mixers."""

import numpy
import pytest
import scipy.fft
from test_zoo_mlp import check_mixer

import mixers
from mixers import zoo


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (zoo.DctMixer(dim=3, grid=(7,)), (2, 7, 3)),
        (zoo.DctMixer(dim=2, grid=(4, 5)), (2, 4, 5, 2)),
        (zoo.DctMixer(dim=1, grid=(1,)), (3, 1, 1)),
        (zoo.DctMixer(dim=3, grid=(1, 6)), (1, 1, 6, 3)),
    ],
    ids=["sequence", "image", "one-of-each", "one-row"],
)
def test_gradients(mixer, shape):
    check_mixer(mixer, shape)


def test_gains_of_one_are_the_identity():
    x = numpy.random.default_rng(0).standard_normal((2, 5, 6, 3))
    y = zoo.DctMixer(dim=3, grid=(5, 6))({"w": numpy.ones((5, 6, 3))}, x)
    numpy.testing.assert_allclose(y, x, atol=1e-14)


def test_equals_scipy():
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((2, 9, 3)), rng.standard_normal((9, 3))
    F = scipy.fft.dct(x, type=2, norm="ortho", axis=1)
    numpy.testing.assert_allclose(
        zoo.DctMixer(dim=3, grid=(9,))({"w": w}, x),
        scipy.fft.idct(w * F, type=2, norm="ortho", axis=1),
        atol=1e-14,
    )


def test_operator_is_symmetric():
    rng = numpy.random.default_rng(0)
    mixer = zoo.DctMixer(dim=2, grid=(4, 3))
    params = {"w": rng.standard_normal((4, 3, 2))}
    x, z = rng.standard_normal((2, 1, 4, 3, 2))
    assert numpy.vdot(z, mixer(params, x)) == pytest.approx(numpy.vdot(mixer(params, z), x), rel=1e-12)


def test_parameters():
    mixer = mixers.create("dct_mixer", dim=8, grid=[16, 16])
    w = mixer.init(0, dtype="float64")["w"]
    assert w.shape == (16, 16, 8)
    assert abs(w.mean() - 1) < 0.002
    assert 0.015 < w.std() < 0.025


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dct_mixer: dim must be an integer >= 1, got 0"),
        ({"grid": (1, 2, 3)}, ValueError, r"dct_mixer: grid must be \(l,\) or \(h, w\), got \(1, 2, 3\)"),
        ({"grid": (0,)}, ValueError, "dct_mixer: grid size must be an integer >= 1, got 0"),
        ({"grid": 4}, TypeError, r"dct_mixer: grid must be \(l,\) or \(h, w\), got 4"),
    ],
)
def test_rejected_options(config, error, message):
    with pytest.raises(error, match=message):
        zoo.DctMixer(**{"dim": 3, "grid": (4,)} | config)


def test_wider_gains_leave_the_dtype_alone():
    mixer = zoo.DctMixer(dim=3, grid=(4,))
    params = mixer.init(0, dtype="float32")
    x = numpy.ones((1, 4, 3), numpy.float16)
    assert mixer(params, x).dtype == mixer.forward(params, x)[0].dtype == numpy.float16


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 2, 2, 3)])
def test_rejected_grids(shape):
    mixer = zoo.DctMixer(dim=3, grid=(4,))
    with pytest.raises(ValueError, match=r"dct_mixer: x must have the token grid \(4,\)"):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))
