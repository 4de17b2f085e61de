"""Every mixer that keeps its shape trains: the loss on the digits falls within a few steps."""

import numpy
import pytest

import mixers
from mixers import samples, training

pytest.importorskip("sklearn")

STEPS = 24


def trainable():
    """Mixers of one input and one output of the same width."""
    for name in mixers.list_mixers():
        mixer, params, inputs = samples.mixer_sample(name)
        if len(inputs) > 1:
            continue
        with mixers.use_backend("reference"):
            out = mixer(params, *inputs)
        if not isinstance(out, tuple) and out.shape == inputs[0].shape:
            yield name


@pytest.mark.parametrize("name", list(trainable()))
def test_loss_falls(name):
    data = training.load_digits()
    model = training.build_model(training.Settings(mixer=name, dim=16, depth=1))
    rng = numpy.random.default_rng(0)
    params = model.init(rng)
    optimizer = training.AdamW(params, 0.0)
    losses = []
    for _ in range(STEPS):
        chosen = rng.integers(len(data.train.labels), size=64)
        logits, saved = model.forward(params, data.train.x[chosen])
        loss, dlogits = training.cross_entropy(logits, data.train.labels[chosen])
        optimizer.update(params, model.backward(dlogits, saved)[0], 1e-2)
        losses.append(loss)
    assert numpy.isfinite(losses).all()
    assert numpy.mean(losses[-4:]) < 0.8 * numpy.mean(losses[:4]), losses
