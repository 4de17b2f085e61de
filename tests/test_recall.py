"""Training on multi-query associative recall."""

import numpy
import pytest
from harness import check_differences
from test_cli import cli, fails  # noqa: F401

import mixers
from mixers import models, recall, tasks, training

SMALL = {"dim": 8, "length": 16, "pairs": 2, "vocabulary": 24, "examples": 64, "epochs": 2, "batch": 16}


def test_model_gradients():
    model = models.SequenceModel(
        (mixers.create("hyena", dim=4, grid=(8,)), mixers.create("mamba", dim=4)), vocabulary=10
    )
    rng = numpy.random.default_rng(0)
    params = {n: a + 0.1 * rng.standard_normal(a.shape) for n, a in model.init(rng, "float64").items()}
    trained = [n for n, spec in model.parameters().items() if spec.trainable]
    tokens = models.one_hot(rng.integers(10, size=(2, 8)), 10).astype("float64")

    def backward(arrays, dout):
        _, saved = model.forward(params | arrays, tokens)
        return model.backward(dout, saved)[0]

    with mixers.use_backend("reference"):
        check_differences(
            lambda arrays: model(params | arrays, tokens),
            backward,
            {n: params[n] for n in trained},
            directions=1,
        )


def test_only_the_asked_places_count():
    rng = numpy.random.default_rng(0)
    logits = rng.standard_normal((2, 5, 7))
    labels = numpy.full((2, 5), tasks.IGNORED)
    labels[0, 3], labels[1, 1] = 2, 6
    loss, dlogits = recall.cross_entropy(logits, labels)
    want, dwant = training.cross_entropy(numpy.stack([logits[0, 3], logits[1, 1]]), numpy.array([2, 6]))
    assert loss == want
    assert numpy.count_nonzero(dlogits.any(axis=-1)) == 2
    numpy.testing.assert_array_equal([dlogits[0, 3], dlogits[1, 1]], dwant)


def test_accuracy_counts_answers():
    settings = recall.Settings("mamba", **SMALL)
    model, (data, _, _) = recall.build_model(settings), recall.draw(settings)
    params = model.init(0)
    guesses = model(params, models.one_hot(data.inputs, 24)).argmax(axis=-1)
    asked = data.labels != tasks.IGNORED
    assert recall.accuracy(model, params, data, batch=48) == (guesses == data.labels)[asked].mean()


def test_two_trainings_agree_and_seeds_differ():
    runs = [recall.train(recall.Settings("hyena", **SMALL, seed=seed)) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].losses != runs[2].losses
    assert len(runs[0].losses) == 8
    assert len(runs[0].accuracies) == 2


@pytest.mark.slow
def test_mamba_learns_to_recall():
    settings = recall.Settings(
        "mamba", dim=32, length=16, pairs=2, vocabulary=24, examples=4096, epochs=24, learning_rate=1e-2
    )
    assert recall.train(settings).test_accuracy > 0.95


def test_command(cli, tmp_path):  # noqa: F811
    pytest.importorskip("matplotlib")
    options = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    status, out, err = cli("train", "--task", "mqar", "--mixer", "hyena", *options)
    assert (status, err) == (0, "")
    assert "of 8 answers after 2 epochs" in out
    assert (tmp_path / "runs" / "hyena-mqar.png").read_bytes().startswith(b"\x89PNG")
    model, params = recall.load(tmp_path / "runs" / "hyena-mqar.npz")
    assert list(params) == list(model.parameters())
    _, _, test = recall.draw(recall.Settings("hyena", **SMALL))
    assert f"recall accuracy {100 * recall.accuracy(model, params, test):.2f} %" in out
    with pytest.raises(ValueError, match="must be of the task digits, got one of mqar"):
        training.load(tmp_path / "runs" / "hyena-mqar.npz")


def test_command_rejects(cli):  # noqa: F811
    pytest.importorskip("matplotlib")
    assert fails(
        cli("train", "--task", "mqar", "--mixer", "hyena", "--patch", "2"), "--patch is no option of the task"
    )
    assert fails(cli("train", "--mixer", "pool", "--pairs", "2"), "--pairs is no option of the task digits")
    assert fails(cli("train", "--task", "mqar", "--mixer", "lka"), "mixer must be for sequences")
    assert fails(
        cli("train", "--task", "mqar", "--mixer", "mamba", "--pairs", "17"), "num_kv_pairs must be at most"
    )


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((), "mixers must hold at least one"),
        ((mixers.create("lka", dim=4),), "mixers must be for sequences and of one width"),
        (
            (mixers.create("mamba", dim=4), mixers.create("mamba", dim=8)),
            "mixers must be for sequences and of one width",
        ),
    ],
)
def test_models_reject(blocks, message):
    with pytest.raises(ValueError, match=message):
        models.SequenceModel(blocks, vocabulary=9)
