"""Train a small model around a token mixer, on one of two tasks.

digits: the 1797 handwritten digits that scikit-learn bundles. Blocks of the mixer and a channel MLP (a
MetaFormer) read the 8 x 8 images in patches. mqar: multi-query associative recall on sequences that are made up;
blocks have the mixer only. The run is repeatable bit for bit. It writes the trained parameters (.npz) and a
picture of the learning curve (.png), for the digits with the map of the trained mixer."""

import dataclasses
import pathlib
import time

from mixers import recall, training
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers train --mixer mamba
  mixers train --mixer hyena --epochs 10 --dim 48 --out runs/hyena
  mixers train --mixer mlp_mixer --config hidden=64 --seed 1
  mixers train --task mqar --mixer hyena --length 64 --pairs 8"""

TASKS = {settings.task: settings for settings in (training.Settings, recall.Settings)}

_OPTIONS = (
    ("epochs", int, "passes over the training data"),
    ("dim", int, "channels"),
    ("depth", int, "blocks"),
    ("patch", int, "side of the square patches: 1, 2 or 4"),
    ("length", int, "tokens of a sequence, even"),
    ("pairs", int, "keys with a value per sequence, at most a quarter of its length"),
    ("vocabulary", int, "kinds of tokens, more than the length"),
    ("examples", int, "sequences to train on"),
    ("batch", int, "images or sequences per step"),
    ("seed", int, "of parameters, order and sequences"),
    ("learning_rate", float, "its peak"),
)


def add_arguments(parser):
    parser.add_argument("--mixer", required=True, metavar="NAME", help="`mixers list` names all")
    parser.add_argument("--task", choices=TASKS, default="digits", help="default: %(default)s")
    shared.add_backend(parser)
    for name, kind, text in _OPTIONS:
        defaults = {task: getattr(cls, name) for task, cls in TASKS.items() if hasattr(cls, name)}
        shown = ", ".join(f"{task} {value}" for task, value in defaults.items())
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{text} (default: {shown})")
    parser.add_argument(
        "--out", metavar="PATH", help="where to write PATH.npz and PATH.png (default: runs/NAME)"
    )
    shared.add_config(parser)


def run(arguments):
    from mixers import plots

    plots.require()
    settings = _settings(arguments)
    run_task = {"digits": _run_digits, "mqar": _run_mqar}[arguments.task]
    result, draw = run_task(settings, arguments.backend)
    out = pathlib.Path(arguments.out or f"runs/{settings.mixer}").with_suffix("")
    training.save(out.with_suffix(".npz"), result)
    draw(out.with_suffix(".png"), result)
    print(f"wrote {out.with_suffix('.npz')} and {out.with_suffix('.png')}")


def _settings(arguments):
    """The settings of the task, with the options that were given."""
    kind = TASKS[arguments.task]
    known = {f.name for f in dataclasses.fields(kind)}
    given = {name: value for name, _, _ in _OPTIONS if (value := getattr(arguments, name)) is not None}
    for name in given:
        if name not in known:
            raise ValueError(f"--{name} is no option of the task {arguments.task}")
    return kind(mixer=arguments.mixer, config=shared.parse_config(arguments.config), **given)


def _run_digits(settings, backend):
    from mixers import plots

    data = training.load_digits()
    model = training.build_model(settings)
    print(f"{model.mixer}: {model.parameter_count} parameters in {settings.depth} blocks")
    train = lambda report: training.train(settings, data, backend, report)
    result, seconds = _timed(settings, backend, train)
    print(
        f"test accuracy {100 * result.test_accuracy:.2f} % on {len(data.test.labels)} images "
        f"after {settings.epochs} epochs in {seconds:.1f} s"
    )
    return result, lambda path, result: plots.save_training(path, result, data.test.x[:16])


def _run_mqar(settings, backend):
    from mixers import plots

    model = recall.build_model(settings)
    print(f"{model.mixers[-1]}: {model.parameter_count} parameters in {settings.depth} blocks")
    result, seconds = _timed(settings, backend, lambda report: recall.train(settings, backend, report))
    print(
        f"recall accuracy {100 * result.test_accuracy:.2f} % of {settings.examples // 16 * settings.pairs} answers "
        f"after {len(result.accuracies)} epochs in {seconds:.1f} s"
    )
    return result, plots.save_curve


def _timed(settings, backend, train):
    """Result of a training with a progress bar, and its seconds."""
    start = time.perf_counter()
    columns = "loss {task.fields[loss]:.3f}", "validation {task.fields[accuracy]:.1f} %"
    with shared.chosen_backend(backend), shared.progress(*columns) as bar:
        task = bar.add_task(settings.mixer, total=None, loss=float("nan"), accuracy=float("nan"))

        def report(progress):
            bar.update(task, total=progress.steps, completed=progress.step, loss=progress.loss)
            if progress.accuracy is not None:
                bar.update(task, accuracy=100 * progress.accuracy)

        return train(report), time.perf_counter() - start
