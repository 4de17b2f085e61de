"""A language model of bytes on text that every machine has: what ``mixers train --task bytes`` runs.

The text is the Python standard library's own sources. Bits per byte, the base-2 cross entropy of the next byte, say
how well a model predicts it: 8 for a guess, about 2 for a good compressor of such text.
"""

import math
import pathlib
import sysconfig
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy

from mixers import models, registry, samples, training
from mixers.graph import to_host
from mixers.training import AdamW, Progress, Result, check_settings

VOCABULARY = 256

# how often a training is held against the validation text, and of every so many files one is for that
_EVALUATIONS = 8
_HELD_OUT = 16


class Text(NamedTuple):
    """Bytes as arrays of uint8; no file is in two of them."""

    train: numpy.ndarray
    validation: numpy.ndarray
    test: numpy.ndarray


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a training, besides the text.

    A step sees `batch` pieces of `length` bytes, drawn at random places.
    """

    task = "bytes"

    mixer: str
    dim: int = 96
    depth: int = 2
    length: int = 128
    steps: int = 400
    batch: int = 16
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    seed: int = 0
    config: dict = field(default_factory=dict)

    def __post_init__(self):
        check_settings(self, "dim", "depth", "length", "steps", "batch")


@dataclass
class TextResult(Result):
    """A trained model; the accuracies are those of the most probable byte, `bits` are bits per byte beside them."""

    bits: list = field(default_factory=list)
    test_bits: float = math.nan


def load_text(folder=None):
    """The sources of the standard library's modules, or of another folder.

    Parameters
    ----------
    folder : path, optional

    Returns
    -------
    Text
        Of every 16 files in order of their names one is for validation and one for the test.

    Raises
    ------
    RuntimeError
        If there are fewer than 16 source files.
    """
    folder = pathlib.Path(folder or sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    if len(files) < _HELD_OUT:
        raise RuntimeError(
            f"training on text needs the sources of Python's modules, which {folder} does not hold"
        )
    held_out = {0: 1, 1: 2}
    parts = [[], [], []]
    for i, file in enumerate(files):
        parts[held_out.get(i % _HELD_OUT, 0)].append(file.read_bytes())
    return Text(*(numpy.frombuffer(b"".join(part), numpy.uint8) for part in parts))


def build_model(settings):
    """The model that the settings describe."""
    cls = registry.mixer_class(settings.mixer)
    if 1 not in cls.metadata.ranks or not cls.metadata.causal:
        raise ValueError(
            f"train: mixer must be causal and for sequences in the task bytes, got {settings.mixer}; "
            f"`mixers list --causal` names those"
        )
    given = samples.fitting_options(cls, "digits", settings.dim, (settings.length,))
    mixer = cls(**given | settings.config)
    return models.SequenceModel((mixer,) * settings.depth, VOCABULARY)


def train(settings, text, backend="cpu", report=lambda progress: None):
    """Train on a text.

    Two runs with the same settings on the same machine give the same bits.

    Parameters
    ----------
    settings : Settings
    text : Text
    backend : {"reference", "cpu", "gpu"}
        Only decides whether the arrays are CuPy ones; see :func:`mixers.use_backend`.
    report : callable
        Called with a :class:`mixers.training.Progress` after every step; its loss is in bits per byte, and so is its
        `accuracy`, that on the validation text.

    Returns
    -------
    TextResult
    """
    model = build_model(settings)
    rng = numpy.random.default_rng(settings.seed)
    params = samples.on_backend(model.init(rng), backend)
    optimizer = AdamW(params, settings.weight_decay)
    losses, accuracies, bits = [], [], []
    every = -(-settings.steps // _EVALUATIONS)
    for i in range(settings.steps):
        starts = rng.integers(len(text.train) - settings.length, size=settings.batch)
        x, labels = _pieces(text.train, starts, settings.length, backend)
        rate = training.learning_rate(settings.learning_rate, i, settings.steps)
        loss = training.step(
            model, params, optimizer, x, lambda out, labels=labels: cross_entropy(out, labels), rate
        )
        losses.append(loss)
        last = (i + 1) % every == 0 or i + 1 == settings.steps
        if last:
            found = evaluate(model, params, text.validation, settings, backend)
            bits.append(found[0])
            accuracies.append(found[1])
        report(Progress(i + 1, settings.steps, loss / math.log(2.0), bits[-1] if last else None))
    test_bits, test_accuracy = evaluate(model, params, text.test, settings, backend)
    found = {name: to_host(array) for name, array in params.items()}
    return TextResult(settings, found, losses, accuracies, test_accuracy, bits, test_bits)


def cross_entropy(logits, labels):
    """Mean cross entropy of the bytes (b, l), and its gradient with respect to the logits (b, l, 256)."""
    loss, dlogits = training.cross_entropy(logits.reshape(-1, VOCABULARY), labels.reshape(-1))
    return loss, dlogits.reshape(logits.shape)


def evaluate(model, params, text, settings, backend="cpu", pieces=64):
    """Bits per byte and accuracy on pieces of a text, evenly spread."""
    starts = numpy.linspace(0, len(text) - settings.length - 1, pieces).astype(int)
    x, labels = _pieces(text, starts, settings.length, backend)
    logits = model(params, x)
    loss, _ = cross_entropy(logits, labels)
    return loss / math.log(2.0), float((to_host(logits).argmax(axis=2) == labels).mean())


def sample(model, params, prompt, count, temperature=0.7, seed=0):
    """Continue a text byte by byte, with the model's states.

    Parameters
    ----------
    model : mixers.models.SequenceModel
        Of mixers with ``step``.
    params : dict
    prompt : bytes
        At least one.
    count : int
        Bytes to draw.
    temperature : float
        What the logits are divided by; close to 0 always draws the most probable byte.
    seed : int

    Returns
    -------
    bytes
        Without the prompt.
    """
    rng = numpy.random.default_rng(seed)
    state, drawn = model.initial_state(1, params=params), []
    given = list(prompt)
    for i in range(len(prompt) + count - 1):
        row = models.one_hot(numpy.array([given[i]]), VOCABULARY)
        logits, state = model.step(params, row, state)
        if i + 1 >= len(prompt):
            scores = logits[0].astype(numpy.float64) / temperature
            weights = numpy.exp(scores - scores.max())
            drawn.append(int(rng.choice(VOCABULARY, p=weights / weights.sum())))
            given.append(drawn[-1])
    return bytes(drawn)


def load(path):
    """Model and parameters from a file that ``mixers train --task bytes`` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    settings, arrays = training.read(path, Settings)
    return build_model(settings), arrays


def _pieces(text, starts, length, backend):
    """Rows of the text at these places as inputs, and the bytes that follow each."""
    rows = text[starts[:, None] + numpy.arange(length + 1)].astype(numpy.int64)
    return samples.on_backend(models.one_hot(rows[:, :-1], VOCABULARY), backend), rows[:, 1:]
