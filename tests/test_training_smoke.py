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
