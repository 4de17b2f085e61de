"""Training on multi-query associative recall: what ``mixers train --task mqar`` runs.

How well a mixer recalls tells those whose way of mixing depends on the input from those that convolve and
multiply (Arora et al. 2023, arXiv:2312.04927).
"""

import math
from dataclasses import dataclass, field

import numpy

from mixers import _checks as check
from mixers import models, registry, samples, tasks, training
from mixers.backend import array_module
from mixers.graph import to_host
from mixers.training import AdamW, Progress, Result, check_settings

# options that the blocks of a model have in turn, in the authors' study
_BLOCKS = {"base_conv": ({"kernel_size": 3}, {"kernel_size": -1})}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a training.

    `length`, `pairs` and `vocabulary` are those of the task, `examples` is the number of sequences to train on. A
    validation and a test set have a sixteenth of that each. Training ends early once all validation answers are right.
    """

    task = "mqar"

    mixer: str
    dim: int = 32
    depth: int = 2
    length: int = 16
    pairs: int = 4
    vocabulary: int = 32
    examples: int = 16384
    epochs: int = 12
    batch: int = 32
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    seed: int = 0
    config: dict = field(default_factory=dict)

    def __post_init__(self):
        check_settings(self, "dim", "depth", "length", "pairs", "vocabulary", "epochs", "batch")
        check.integer("train", "examples", self.examples, minimum=16)


def build_model(settings):
    """The model that the settings describe."""
    cls = registry.mixer_class(settings.mixer)
    if 1 not in cls.metadata.ranks:
        raise ValueError(f"train: mixer must be for sequences in the task mqar, got {settings.mixer}")
    given = samples.fitting_options(cls, "digits", settings.dim, (settings.length,))
    turns = _BLOCKS.get(settings.mixer, ({},))
    blocks = tuple(cls(**given | turns[i % len(turns)] | settings.config) for i in range(settings.depth))
    return models.SequenceModel(blocks, settings.vocabulary)


def draw(settings):
    """Sequences for training, validation and test, from seeds of their own."""
    few = settings.examples // 16
    return tuple(
        tasks.mqar(
            vocab_size=settings.vocabulary,
            input_seq_len=settings.length,
            num_kv_pairs=settings.pairs,
            num_examples=count,
            random_non_queries=False,
            seed=3 * settings.seed + i,
        )
        for i, count in enumerate((settings.examples, few, few))
    )


def train(settings, backend="cpu", report=lambda progress: None):
    """Train on the recall task.

    Two runs with the same settings on the same machine give the same bits.

    Parameters
    ----------
    settings : Settings
    backend : {"reference", "cpu", "gpu"}
        Only decides whether the arrays are CuPy ones; see :func:`mixers.use_backend`.
    report : callable
        Called with a :class:`mixers.training.Progress` after every step.

    Returns
    -------
    mixers.training.Result
    """
    model, (data, validation, test) = build_model(settings), draw(settings)
    rng = numpy.random.default_rng(settings.seed)
    params = samples.on_backend(model.init(rng), backend)
    optimizer = AdamW(params, settings.weight_decay)
    per_epoch = math.ceil(settings.examples / settings.batch)
    steps = settings.epochs * per_epoch
    losses, accuracies = [], []
    while len(accuracies) < settings.epochs and (not accuracies or accuracies[-1] < 1.0):
        order = rng.permutation(settings.examples)
        for start in range(0, len(order), settings.batch):
            chosen = order[start : start + settings.batch]
            x = _as_input(data.inputs[chosen], settings.vocabulary, backend)
            labels = data.labels[chosen]
            rate = training.learning_rate(settings.learning_rate, len(losses), steps)
            cost = lambda logits, labels=labels: cross_entropy(logits, labels)
            losses.append(training.step(model, params, optimizer, x, cost, rate))
            last = len(losses) % per_epoch == 0
            if last:
                accuracies.append(accuracy(model, params, validation, settings.batch, backend))
            report(Progress(len(losses), steps, losses[-1], accuracies[-1] if last else None))
    found = {name: to_host(array) for name, array in params.items()}
    return Result(settings, found, losses, accuracies, accuracy(model, params, test, settings.batch, backend))


def cross_entropy(logits, labels):
    """Mean cross entropy over the places that are asked for, and its gradient with respect to the logits."""
    xp = array_module(logits)
    places = tuple(map(xp.asarray, numpy.nonzero(labels != tasks.IGNORED)))
    loss, dasked = training.cross_entropy(logits[places], labels[labels != tasks.IGNORED])
    dlogits = xp.zeros_like(logits)
    dlogits[places] = dasked
    return loss, dlogits


def accuracy(model, params, data, batch=64, backend="cpu"):
    """Part of the questions whose largest logit is that of the right value."""
    right = 0
    for start in range(0, len(data.inputs), batch):
        inputs, labels = data.inputs[start : start + batch], data.labels[start : start + batch]
        logits = to_host(model(params, _as_input(inputs, model.vocabulary, backend)))
        right += int((logits.argmax(axis=-1) == labels).sum())
    return right / int((data.labels != tasks.IGNORED).sum())


def load(path):
    """Model and parameters from a file that ``mixers train --task mqar`` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    settings, arrays = training.read(path, Settings)
    return build_model(settings), arrays


def _as_input(tokens, vocabulary, backend):
    return samples.on_backend(models.one_hot(tokens, vocabulary), backend)
