"""Pooling and MLP token mixers."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import zoo


def check_mixer(mixer, shape):
    """Gradients of parameters and input against central differences, on a grid."""
    rng = numpy.random.default_rng(0)
    drawn = mixer.init(rng, dtype="float64")
    # biases start at nearly zero: move everything off special values
    arrays = {n: a + 0.1 * rng.standard_normal(a.shape) for n, a in drawn.items()}
    arrays["x"] = rng.standard_normal(shape)

    def function(arrays):
        return mixer({n: arrays[n] for n in drawn}, arrays["x"])

    def backward(arrays, dout):
        _, saved = mixer.forward({n: arrays[n] for n in drawn}, arrays["x"])
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        assert function(arrays).shape == shape
        check_differences(function, backward, arrays)


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 5, 4, 3)])
@pytest.mark.parametrize("pool_size", [1, 3, 5])
def test_pool(shape, pool_size):
    check_mixer(zoo.Pool(dim=3, pool_size=pool_size), shape)


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (zoo.MlpMixer(dim=3, grid=(7,), hidden=5), (2, 7, 3)),
        (zoo.MlpMixer(dim=3, grid=(2, 4), hidden=9), (2, 2, 4, 3)),
        (zoo.MlpMixer(dim=2, grid=(6,), hidden=1, activation="gelu_tanh"), (1, 6, 2)),
        (zoo.MlpMixer(dim=4, grid=(3, 3), hidden=4, bias=False), (2, 3, 3, 4)),
        (zoo.MlpMixer(dim=1, grid=(1,), hidden=2), (3, 1, 1)),
    ],
    ids=["sequence", "image", "gelu_tanh", "no-bias", "one-of-each"],
)
def test_mlp_mixer(mixer, shape):
    check_mixer(mixer, shape)


def test_pool_of_a_constant_is_zero():
    """Only tokens inside the grid are counted, so nothing is lost at the border."""
    y = zoo.Pool(dim=2, pool_size=5)({}, numpy.ones((1, 4, 6, 2)))
    numpy.testing.assert_allclose(y, 0.0, atol=1e-15)


def test_mlp_mixer_reads_images_row_by_row():
    """A sequence and an image with as many tokens give the same, whatever grid the mixer was made for."""
    mixer = zoo.MlpMixer(dim=3, grid=(2, 4), hidden=5)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 2, 4, 3))
    y = mixer(params, x)
    numpy.testing.assert_array_equal(mixer(params, x.reshape(2, 8, 3)), y.reshape(2, 8, 3))


def test_mlp_mixer_treats_channels_alike():
    mixer = zoo.MlpMixer(dim=3, grid=(8,), hidden=5)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 8, 3))
    swapped = mixer(params, numpy.ascontiguousarray(x[:, :, ::-1]))
    numpy.testing.assert_allclose(swapped[:, :, ::-1], mixer(params, x), rtol=1e-12, atol=1e-15)


def test_mlp_mixer_parameters():
    mixer = mixers.create("mlp_mixer", dim=3, grid=[4, 4], hidden=5)
    params = mixer.init(0)
    assert {n: a.shape for n, a in params.items()} == {
        "w_in": (5, 16),
        "b_in": (5,),
        "w_out": (16, 5),
        "b_out": (16,),
    }
    bound = (6 / 21) ** 0.5
    assert 0.9 * bound < numpy.abs(params["w_in"]).max() <= bound
    assert 0 < numpy.abs(params["b_out"]).max() < 1e-5
    assert mixer.parameter_count == 2 * 5 * 16 + 5 + 16
    assert list(zoo.MlpMixer(dim=3, grid=(4,), hidden=5, bias=False).parameters()) == ["w_in", "w_out"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": 0}, "mlp_mixer: hidden must be an integer >= 1, got 0"),
        ({"grid": ()}, r"mlp_mixer: grid must be \(l,\) or \(h, w\), got \(\)"),
        ({"grid": (2, 0)}, "mlp_mixer: grid size must be an integer >= 1, got 0"),
        ({"activation": "relu"}, "mlp_mixer: activation must be one of 'gelu', 'gelu_tanh', got 'relu'"),
        ({"dim": 0}, "mlp_mixer: dim must be an integer >= 1, got 0"),
    ],
)
def test_mlp_mixer_rejects_options(config, message):
    with pytest.raises(ValueError, match=message):
        zoo.MlpMixer(**{"dim": 3, "grid": (4,), "hidden": 2} | config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"grid": 4}, r"mlp_mixer: grid must be \(l,\) or \(h, w\), got 4"),
        ({"hidden": 2.0}, r"mlp_mixer: hidden must be an integer >= 1, got 2\.0"),
        ({"bias": 1}, "mlp_mixer: bias must be True or False, got 1"),
    ],
)
def test_mlp_mixer_rejects_types(config, message):
    with pytest.raises(TypeError, match=message):
        zoo.MlpMixer(**{"dim": 3, "grid": (4,), "hidden": 2} | config)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 5, 3),
            r"mlp_mixer: x must have the token grid \(4,\) .* got \(5,\); create the mixer with grid=\(5,\)",
        ),
        ((2, 2, 3, 3), r"mlp_mixer: x must have the token grid \(4,\) .* got \(2, 3\)"),
        (
            (2, 4, 4),
            r"mlp_mixer: x must have shape \(b, l, c\) or \(b, h, w, c\) with c = 3, got \(2, 4, 4\)",
        ),
    ],
)
def test_mlp_mixer_rejects_inputs(shape, message):
    mixer = zoo.MlpMixer(dim=3, grid=(4,), hidden=2)
    with pytest.raises(ValueError, match=message):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))


@pytest.mark.parametrize("pool_size", [0, 2, -3])
def test_pool_rejects_sizes(pool_size):
    with pytest.raises(ValueError, match=f"pool: pool_size must be an odd integer >= 1, got {pool_size}"):
        zoo.Pool(dim=3, pool_size=pool_size)


def test_pool_rejects_inputs():
    with pytest.raises(ValueError, match=r"pool: x must have shape .* with c = 3, got \(2, 3\)"):
        zoo.Pool(dim=3)({}, numpy.zeros((2, 3)))
