"""Every mixer that keeps its shape trains: the loss on some digits falls within a few steps."""

import numpy
import pytest

import mixers
from mixers import samples, training

pytest.importorskip("sklearn")

STEPS = 40


@pytest.fixture(scope="module")
def images():
    return training.load_digits().train


@pytest.mark.parametrize("name", mixers.list_mixers())
def test_loss_falls(name, images):
    mixer, params, inputs = samples.mixer_sample(name)
    with mixers.use_backend("reference"):
        out = mixer(params, *inputs)
    if isinstance(out, tuple) or out.shape != inputs[0].shape:
        pytest.skip("a block of the model needs one input and one output of its shape")
    model = training.build_model(training.Settings(mixer=name, dim=16, depth=1))
    rng = numpy.random.default_rng(0)
    params = model.init(rng)
    optimizer = training.AdamW(params, 0.0)
    x, labels = images.x[:64], images.labels[:64]
    losses = []
    for _ in range(STEPS):
        logits, saved = model.forward(params, x)
        loss, dlogits = training.cross_entropy(logits, labels)
        optimizer.update(params, model.backward(dlogits, saved)[0], 1e-2)
        losses.append(loss)
    assert numpy.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0], losses


def test_loss_of_two_streams_falls(images):
    """Cross gating has two inputs and two outputs: both outputs, pooled, name the digit."""
    mixer = mixers.create("cross_gating", dim=16, block_size=(2, 2), grid_size=(4, 4), upsample_g=False)
    rng = numpy.random.default_rng(0)
    params, labels = mixer.init(rng), images.labels[:64]
    x, g = (images.x[:64] @ rng.standard_normal((1, 16)).astype("float32") for _ in range(2))
    optimizer = training.AdamW(params, 0.0)
    losses = []
    for _ in range(STEPS):
        out, saved = mixer.forward(params, x, g)
        loss, dlogits = training.cross_entropy((out.y + out.g).mean((1, 2))[:, :10], labels)
        dy = numpy.zeros_like(out.y)
        dy[..., :10] = dlogits[:, None, None] / 64
        optimizer.update(params, mixer.backward((dy, dy), saved)[0], 1e-2)
        losses.append(loss)
    assert losses[-1] < 0.7 * losses[0], losses
