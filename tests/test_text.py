"""The byte-level language model."""

import numpy
import pytest
from harness import BACKENDS

import mixers
from mixers import models, text, training, zoo

pytestmark = pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not among MIXERS_TEST_BACKENDS")


@pytest.fixture(scope="module")
def corpus():
    return text.load_text()


def test_the_text_is_pythons_own(corpus):
    assert b"def " in corpus.train.tobytes()[:100_000]
    assert all(len(part) > 50_000 for part in corpus)


@pytest.mark.parametrize(
    ("name", "config"), [("mamba", {}), ("mamba2", {}), ("mamba2", {"learnable_init_states": True})]
)
def test_steps_give_the_logits_of_the_whole(name, config, corpus):
    settings = text.Settings(name, dim=16, depth=2, length=24, config=config)
    model = text.build_model(settings)
    rng = numpy.random.default_rng(0)
    params = {n: p + 0.1 * rng.standard_normal(p.shape) for n, p in model.init(rng, dtype="float64").items()}
    row = corpus.test[:24].astype(int)
    x = models.one_hot(row[None], 256).astype("float64")
    whole = model(params, x)[0]
    state = model.initial_state(1, dtype="float64", params=params)
    for t in range(24):
        logits, state = model.step(params, x[:, t], state)
        numpy.testing.assert_allclose(logits[0], whole[t], rtol=1e-9, atol=1e-11)


def test_sampling_draws_from_the_logits_of_the_whole(corpus):
    """Almost without temperature every drawn byte is the most probable one after all bytes before it."""
    settings = text.Settings("mamba", dim=16, depth=1, length=16, steps=30, batch=8)
    result = text.train(settings, corpus)
    model = text.build_model(settings)
    drawn = text.sample(model, result.params, b"import ", 12, temperature=1e-6)
    sequence = numpy.frombuffer(b"import " + drawn, numpy.uint8).astype(int)
    logits = model(result.params, models.one_hot(sequence[None], 256))[0]
    assert logits[6:-1].argmax(axis=1).tolist() == list(drawn)


def test_training_lowers_the_bits_and_repeats(corpus):
    settings = text.Settings("mamba", dim=16, depth=1, length=32, steps=40, batch=8)
    first, second = (text.train(settings, corpus) for _ in range(2))
    assert first.bits[-1] < 5.5 < 7.0 < first.losses[0] / numpy.log(2.0)
    assert first.losses == second.losses
    assert len(first.bits) == len(first.accuracies) == 8


def test_train_bytes_on_the_command_line(tmp_path, capsys, monkeypatch):
    from mixers.cli.main import main

    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs/mamba-bytes"
    arguments = ("train", "--task", "bytes", "--mixer", "mamba", "--steps", "8", "--dim", "8", "--depth", "1")
    assert main([*arguments, "--length", "16"]) in (0, None)
    printed = capsys.readouterr().out
    assert "bits per byte of the test text after 8 steps" in printed
    assert "def " in printed
    assert out.with_suffix(".png").stat().st_size > 1000
    model, params = text.load(out.with_suffix(".npz"))
    assert model(params, models.one_hot(numpy.zeros((1, 3), int), 256)).shape == (1, 3, 256)
    with pytest.raises(ValueError, match="must be of the task digits, got one of bytes"):
        training.load(out.with_suffix(".npz"))


def test_rejections(tmp_path):
    with pytest.raises(ValueError, match="mixer must be causal and for sequences in the task bytes, got vim"):
        text.build_model(text.Settings("vim"))
    with pytest.raises(ValueError, match="mixer must be causal"):
        text.build_model(text.Settings("ss2d"))
    with pytest.raises(RuntimeError, match="needs the sources of Python's modules"):
        text.load_text(tmp_path)
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        text.Settings("mamba", steps=0)
    model = models.SequenceModel((zoo.MlpMixer(dim=4, grid=(6,), hidden=4),), 256)
    with pytest.raises(NotImplementedError, match="has no state"):
        model.initial_state(1)


def test_mixers_without_states_train_too(corpus):
    assert mixers.describe("hyena").causal
    result = text.train(text.Settings("hyena", dim=8, depth=1, length=16, steps=3, batch=4), corpus)
    assert numpy.isfinite(result.losses).all()
