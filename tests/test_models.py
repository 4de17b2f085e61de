"""The MetaFormer around any mixer."""

from dataclasses import dataclass

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.models import MetaFormer


@dataclass(frozen=True)
class Centred(Mixer):
    """A mixer with running statistics, to see that a model hands their updates on."""

    dim: int

    def parameters(self):
        return {"mean": Parameter((self.dim,), initializers.zeros, trainable=False)}

    def mix(self, p, x):
        if p.training:
            p.updates["mean"] = p.mean + 1.0
        return x - p.mean


def small(name, depth=2, **config):
    """A model for images of 4 x 6 pixels with two channels, in patches of 2."""
    return MetaFormer(
        mixers.create(name, dim=4, **config), depth, image=(4, 6), channels=2, patch=2, classes=3, expansion=2
    )


@pytest.fixture(autouse=True)
def _reference():
    with mixers.use_backend("reference"):
        yield


@pytest.mark.parametrize(
    "model",
    [
        small("pool"),
        small("mlp_mixer", hidden=5, grid=(2, 3)),
        small("mlp_mixer", hidden=5, grid=(6,)),
        small("hyena", grid=(6,), depth=1),
    ],
    ids=["image", "tied-to-image", "tied-to-sequence", "sequence-only"],
)
def test_gradients_against_differences(model):
    rng = numpy.random.default_rng(0)
    drawn = model.init(rng, dtype="float64")
    specs = model.parameters()
    params = {n: a + 0.1 * rng.standard_normal(a.shape) for n, a in drawn.items() if specs[n].trainable}
    frozen = {n: a for n, a in drawn.items() if not specs[n].trainable}
    arrays = {**params, "x": rng.standard_normal((2, 4, 6, 2))}

    def function(arrays):
        return model({**{n: arrays[n] for n in params}, **frozen}, arrays["x"])

    def backward(arrays, dout):
        _, saved = model.forward({**{n: arrays[n] for n in params}, **frozen}, arrays["x"])
        dparams, dx = model.backward(dout, saved)
        return {**dparams, "x": dx}

    assert function(arrays).shape == (2, 3)
    check_differences(function, backward, arrays, directions=1)


def test_names_are_nested():
    model = small("mlp_mixer", hidden=5, grid=(2, 3))
    names = list(model.parameters())
    assert {"embedding.w", "positions", "blocks.1.norm_mixer.scale", "head.norm.bias", "head.b"} <= set(names)
    assert model.parameters()["blocks.1.mixer.w_in"].shape == (5, 6)
    assert model.parameters()["blocks.0.mlp.w_in"].shape == (4, 8)
    assert len(model.init(0)) == len(names) == 5 + 2 * (4 + 4 + 4) + 2


def test_blocks_are_what_the_docstring_says():
    model = small("pool", depth=1)
    p = model.init(3, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 4, 6, 2))
    norm = lambda name, t: ops.layer_norm(t, p[f"{name}.scale"], p[f"{name}.bias"])
    # one token is a patch read row by row
    tokens = numpy.stack(
        [x[:, i : i + 2, j : j + 2].reshape(2, 8) for i in (0, 2) for j in (0, 2, 4)], axis=1
    )
    t = tokens @ p["embedding.w"] + p["embedding.b"] + p["positions"]
    t = t + model.mixer({}, norm("blocks.0.norm_mixer", t).reshape(2, 2, 3, 4)).reshape(2, 6, 4)
    hidden = norm("blocks.0.norm_mlp", t) @ p["blocks.0.mlp.w_in"] + p["blocks.0.mlp.b_in"]
    t = t + ops.gelu(hidden) @ p["blocks.0.mlp.w_out"] + p["blocks.0.mlp.b_out"]
    want = norm("head.norm", t.mean(axis=1)) @ p["head.w"] + p["head.b"]
    numpy.testing.assert_allclose(model(p, x), want, rtol=1e-12)


def test_running_statistics_get_the_name_of_their_block():
    model = MetaFormer(Centred(dim=4), depth=2, image=(4, 4), patch=2)
    params = model.init(0)
    x = numpy.zeros((1, 4, 4, 1), "float32")
    (_, updates), saved = model.forward(params, x, training=True)
    assert sorted(updates) == ["blocks.0.mixer.mean", "blocks.1.mixer.mean"]
    dparams, _ = model.backward(numpy.ones((1, 10), "float32"), saved)
    assert dparams["blocks.0.mixer.mean"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mixer": "pool"}, TypeError, "MetaFormer: mixer must be a Mixer, got str"),
        ({"depth": 0}, ValueError, "MetaFormer: depth must be an integer >= 1, got 0"),
        ({"patch": 3}, ValueError, "MetaFormer: patch must divide the sides of image = 8, got 3"),
        ({"image": (8,)}, ValueError, r"MetaFormer: image must be \(h, w\), got \(8,\)"),
        (
            {"mixer": mixers.create("mlp_mixer", dim=4, hidden=3, grid=(4, 4))},
            ValueError,
            r"MetaFormer: mixer must be made for the token grid \(8, 8\), got \(4, 4\)",
        ),
    ],
)
def test_bad_configurations_are_rejected(arguments, error, message):
    with pytest.raises(error, match=message):
        MetaFormer(**{"mixer": mixers.create("pool", dim=4), **arguments})


def test_images_of_another_size_are_rejected():
    model = small("pool")
    with pytest.raises(ValueError, match=r"MetaFormer: x must have shape .*, got \(2, 4, 4, 2\)"):
        model(model.init(0), numpy.zeros((2, 4, 4, 2)))
