"""Training of a small model on the handwritten digits: what ``mixers train`` runs, and a loop to copy from.

The other task, recall, is in :mod:`mixers.recall` and shares the pieces below.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy

from mixers import _checks as check
from mixers import models, registry, samples
from mixers.backend import array_module
from mixers.files import replacing
from mixers.graph import to_host


class Images(NamedTuple):
    """Images (count, h, w, 1), zero mean and unit variance, and their labels."""

    x: numpy.ndarray
    labels: numpy.ndarray


class Digits(NamedTuple):
    """The 1797 digits of 8 x 8 pixels that scikit-learn bundles, in a fixed split."""

    train: Images
    validation: Images
    test: Images


class Progress(NamedTuple):
    """State of the training after a step; the accuracy is that on the validation images after an epoch."""

    step: int
    steps: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a training.

    The learning rate rises linearly over the first tenth of the steps and falls to zero on a cosine. Weight
    decay acts on matrices only.
    """

    task = "digits"

    mixer: str
    dim: int = 48
    depth: int = 2
    patch: int = 2
    epochs: int = 40
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    seed: int = 0
    config: dict = field(default_factory=dict)

    def __post_init__(self):
        check_settings(self, "dim", "depth", "patch", "epochs", "batch")


def check_settings(settings, *counts):
    """Check what the trainings of all tasks share; the counts are at least 1."""
    for name in counts:
        check.integer("train", name, getattr(settings, name), minimum=1)
    check.integer("train", "seed", settings.seed, minimum=0)
    check.number("train", "learning_rate", settings.learning_rate, above=0.0)
    check.number("train", "weight_decay", settings.weight_decay, minimum=0.0)


@dataclass
class Result:
    """A trained model."""

    settings: Settings
    params: dict
    losses: list
    accuracies: list
    test_accuracy: float


def load_digits():
    """Load and split the digits: 1257 train, 180 validation, 360 test.

    Raises
    ------
    RuntimeError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise RuntimeError('training needs scikit-learn: pip install "token-mixers[train]"') from None
    bunch = load_digits()
    order = numpy.random.default_rng(0).permutation(len(bunch.target))
    x = bunch.images[order, :, :, None].astype(numpy.float32)
    x, labels = (x - x[:1257].mean()) / x[:1257].std(), bunch.target[order]
    return Digits(*(Images(x[a:b], labels[a:b]) for a, b in ((0, 1257), (1257, 1437), (1437, 1797))))


def build_model(settings):
    """The model that the settings describe."""
    cls = registry.mixer_class(settings.mixer)
    side = 8 // settings.patch
    grid = (side, side) if 2 in cls.metadata.ranks else (side * side,)
    mixer = cls(**samples.fitting_options(cls, "digits", settings.dim, grid) | settings.config)
    return models.MetaFormer(mixer, depth=settings.depth, image=(8, 8), patch=settings.patch)


def train(settings, data, backend="cpu", report=lambda progress: None):
    """Train on the digits.

    Two runs with the same settings on the same machine give the same bits.

    Parameters
    ----------
    settings : Settings
    data : Digits
    backend : {"reference", "cpu", "gpu"}
        Only decides whether the arrays are CuPy ones; see :func:`mixers.use_backend`.
    report : callable
        Called with a :class:`Progress` after every step.

    Returns
    -------
    Result
    """
    model = build_model(settings)
    rng = numpy.random.default_rng(settings.seed)
    params = samples.on_backend(model.init(rng), backend)
    optimizer = AdamW(params, settings.weight_decay)
    per_epoch = math.ceil(len(data.train.labels) / settings.batch)
    steps = settings.epochs * per_epoch
    losses, accuracies = [], []
    for epoch in range(settings.epochs):
        order = rng.permutation(len(data.train.labels))
        for start in range(0, len(order), settings.batch):
            chosen = order[start : start + settings.batch]
            x = samples.on_backend(data.train.x[chosen], backend)
            labels = data.train.labels[chosen]
            rate = learning_rate(settings.learning_rate, len(losses), steps)
            loss = step(
                model, params, optimizer, x, lambda out, labels=labels: cross_entropy(out, labels), rate
            )
            losses.append(loss)
            last = len(losses) == (epoch + 1) * per_epoch
            if last:
                accuracies.append(accuracy(model, params, data.validation, backend))
            report(Progress(len(losses), steps, loss, accuracies[-1] if last else None))
    found = {name: to_host(array) for name, array in params.items()}
    return Result(settings, found, losses, accuracies, accuracy(model, params, data.test, backend))


def step(model, params, optimizer, x, cost, rate):
    """One step of training, which changes the parameters in place.

    Parameters
    ----------
    model : Mixer
    params : dict
        Batch norms get their running statistics from the batch; parameters that are marked frozen stay.
    optimizer : AdamW
    x : array
    cost : callable
        Takes the output; returns the loss and its gradient with respect to the output.
    rate : float

    Returns
    -------
    float
        The loss.
    """
    (out, updates), saved = model.forward(params, x, training=True)
    loss, dout = cost(out)
    gradients, _ = model.backward(dout, saved)
    frozen = {name for name, spec in model.parameters().items() if spec.frozen}
    optimizer.update(params, {n: g for n, g in gradients.items() if n not in frozen}, rate)
    params.update(updates)
    return loss


def cross_entropy(logits, labels):
    """Mean cross entropy of softmax(logits), and its gradient with respect to the logits.

    >>> import numpy
    >>> loss, dlogits = cross_entropy(numpy.zeros((1, 2)), numpy.array([0]))
    >>> round(loss, 4), dlogits
    (0.6931, array([[-0.5,  0.5]]))
    """
    xp = array_module(logits)
    shifted = logits.astype(xp.float64) - logits.max(axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    target = xp.eye(logits.shape[1])[xp.asarray(labels)]
    loss = ((xp.log(sums) - shifted) * target).sum() / len(labels)
    return float(loss), ((exponentials / sums - target) / len(labels)).astype(logits.dtype)


def learning_rate(peak, step, steps):
    """Linear warm-up over the first tenth of the steps, then a cosine down to zero."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2)."""

    def __init__(self, params, weight_decay, betas=(0.9, 0.999), eps=1e-8):
        self.weight_decay, self.betas, self.eps, self.step = weight_decay, betas, eps, 0
        self.moments = {n: (p * 0, p * 0) for n, p in params.items()}

    def update(self, params, gradients, rate):
        """Change the parameters in place; those without a gradient stay."""
        self.step += 1
        (first, second), xp = self.betas, array_module(next(iter(params.values())))
        for name, g in gradients.items():
            if g is None:
                continue
            p, (m, v) = params[name], self.moments[name]
            m += (1 - first) * (g - m)
            v += (1 - second) * (g * g - v)
            if p.ndim > 1:
                p *= 1 - rate * self.weight_decay
            corrected = m / (1 - first**self.step)
            p -= rate * corrected / (xp.sqrt(v / (1 - second**self.step)) + self.eps)


def accuracy(model, params, images, backend="cpu"):
    """Fraction of images whose largest logit is that of their label."""
    logits = to_host(model(params, samples.on_backend(images.x, backend)))
    return float((logits.argmax(axis=1) == images.labels).mean())


def save(path, result):
    """Write the trained parameters and the settings as one .npz file, in one step."""
    settings = numpy.array(json.dumps({"task": result.settings.task, **asdict(result.settings)}))
    with replacing(path) as partial, open(partial, "wb") as file:
        numpy.savez(file, settings=settings, **result.params)


def load(path):
    """Model and parameters from a file of :func:`save`.

    Raises
    ------
    ValueError
        If the file is no result of a training on the digits.
    """
    settings, arrays = read(path, Settings)
    return build_model(settings), arrays


def read(path, kind):
    """Settings of a kind, that of one task, and parameters from a file of :func:`save`."""
    with numpy.load(path) as data:
        arrays = dict(data)
    if "settings" not in arrays:
        raise ValueError(f"load: {os.fspath(path)} must be a file that `mixers train` wrote")
    settings = json.loads(str(arrays.pop("settings")))
    if (task := settings.pop("task")) != kind.task:
        raise ValueError(f"load: {os.fspath(path)} must be of the task {kind.task}, got one of {task}")
    return kind(**settings), arrays
