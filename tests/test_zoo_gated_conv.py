"""Gated and plain convolutional mixers."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import zoo


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 6, "kernel_size": 3},
        {"dim": 6, "kernel_size": 1, "expansion_ratio": 1.0},
        {"dim": 4, "kernel_size": 5, "expansion_ratio": 2.0, "conv_ratio": 0.5},
    ],
)
def test_gated_cnn_gradients(config):
    mixer = zoo.GatedCnn(**config)
    rng = numpy.random.default_rng(0)
    arrays = {n: a + 0.3 * rng.standard_normal(a.shape) for n, a in mixer.init(rng, dtype="float64").items()}
    names = list(arrays)
    arrays["x"] = rng.standard_normal((2, 4, 3, config["dim"]))

    def function(arrays):
        return mixer({n: arrays[n] for n in names}, arrays["x"])

    def backward(arrays, dout):
        _, saved = mixer.forward({n: arrays[n] for n in names}, arrays["x"])
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        check_differences(function, backward, arrays)


@pytest.mark.parametrize(
    ("dim", "ratio", "hidden"), [(12, 8 / 3, 32), (10, 8 / 3, 26), (96, 8 / 3, 256), (8, 1.5, 12)]
)
def test_gated_cnn_widths(dim, ratio, hidden):
    """The width is the truncated product in double precision, as the released weights have it."""
    mixer = zoo.GatedCnn(dim=dim, expansion_ratio=ratio, conv_ratio=0.5)
    shapes = {n: p.shape for n, p in mixer.parameters().items()}
    assert shapes == {
        "w_in": (dim, 2 * hidden),
        "b_in": (2 * hidden,),
        "w_dw": (7, 7, dim // 2),
        "b_dw": (dim // 2,),
        "w_out": (hidden, dim),
        "b_out": (dim,),
    }


def test_gated_cnn_passes_the_first_channels():
    """With a kernel that keeps the pixel, convolved and passed channels are the same stream."""
    full = zoo.GatedCnn(dim=4, expansion_ratio=2.0, kernel_size=3, conv_ratio=2.0)
    part = zoo.GatedCnn(dim=4, expansion_ratio=2.0, kernel_size=3, conv_ratio=0.75)
    params = full.init(0, dtype="float64")
    params["w_dw"][:] = 0.0
    params["w_dw"][1, 1] = 1.0
    x = numpy.random.default_rng(1).standard_normal((1, 5, 5, 4))
    fewer = {**params, "w_dw": params["w_dw"][..., :3], "b_dw": params["b_dw"][:3]}
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(part(fewer, x), full(params, x), rtol=1e-12)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kernel_size": 4}, "gated_cnn: kernel_size must be an odd integer >= 1, got 4"),
        ({"conv_ratio": 0.1}, "gated_cnn: conv_ratio must give 1 to 10 convolved channels, got 0.1 for 0"),
        ({"conv_ratio": 3.0}, r"gated_cnn: conv_ratio must give 1 to 10 convolved channels, got 3\.0 for 12"),
        ({"expansion_ratio": 0.0}, r"gated_cnn: expansion_ratio must be > 0, got 0\.0"),
    ],
)
def test_gated_cnn_rejects_options(config, message):
    with pytest.raises(ValueError, match=message):
        zoo.GatedCnn(**{"dim": 4} | config)
