"""Train a small model around a token mixer, on one of three tasks.

digits: the 1797 handwritten digits that scikit-learn bundles. Blocks of the mixer and a channel MLP (a
MetaFormer) read the 8 x 8 images in patches. mqar: multi-query associative recall on sequences that are made up;
blocks have the mixer only. bytes: the next byte of Python's own sources, from which the model then writes some
lines. The run is repeatable bit for bit. It writes the trained parameters (.npz) and a
picture of the learning curve (.png), for the digits with the map of the trained mixer."""

import dataclasses
import pathlib
import time

from mixers import recall, text, training
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers train --mixer mamba
  mixers train --mixer hyena --epochs 10 --dim 48 --out runs/hyena
  mixers train --mixer mlp_mixer --config hidden=64 --seed 1
  mixers train --task mqar --mixer hyena --length 64 --pairs 8
  mixers train --task bytes --mixer mamba --steps 2000"""

TASKS = {settings.task: settings for settings in (training.Settings, recall.Settings, text.Settings)}

_OPTIONS = (
    ("epochs", int, "passes over the training data"),
    ("dim", int, "channels"),
    ("depth", int, "blocks"),
    ("patch", int, "side of the square patches: 1, 2 or 4"),
    ("length", int, "tokens of a sequence, even, or bytes of a piece of text"),
    ("pairs", int, "keys with a value per sequence, at most a quarter of its length"),
    ("vocabulary", int, "kinds of tokens, more than the length"),
    ("examples", int, "sequences to train on"),
    ("steps", int, "steps of training"),
    ("batch", int, "images or sequences per step"),
    ("seed", int, "of parameters, order and sequences"),
    ("learning_rate", float, "its peak"),
)


def add_arguments(parser):
    parser.add_argument("--mixer", required=True, metavar="NAME", help="`mixers list` names all")
    parser.add_argument("--task", choices=TASKS, default="digits", help="default: %(default)s")
    shared.add_backend(parser)
    for name, kind, meaning in _OPTIONS:
        defaults = {task: getattr(cls, name) for task, cls in TASKS.items() if hasattr(cls, name)}
        shown = ", ".join(f"{task} {value}" for task, value in defaults.items())
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{meaning} (default: {shown})")
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="where to write PATH.npz and PATH.png (default: digits runs/NAME, others runs/NAME-TASK)",
    )
    shared.add_config(parser)


def run(arguments):
    from mixers import plots

    plots.require()
    settings = _settings(arguments)
    run_task = {"digits": _run_digits, "mqar": _run_mqar, "bytes": _run_bytes}[arguments.task]
    result, draw = run_task(settings, arguments.backend)
    # the same mixer may be trained on every task
    name = settings.mixer if settings.task == "digits" else f"{settings.mixer}-{settings.task}"
    out = pathlib.Path(arguments.out or f"runs/{name}").with_suffix("")
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


def _run_bytes(settings, backend):
    from mixers import plots

    data, model = text.load_text(), text.build_model(settings)
    print(
        f"{model.mixers[-1]}: {model.parameter_count} parameters in {settings.depth} blocks, "
        f"{len(data.train)} bytes to train on"
    )
    columns = "bits per byte {task.fields[loss]:.3f}", "validation {task.fields[accuracy]:.3f}"
    train = lambda report: text.train(settings, data, backend, report)
    result, seconds = _timed(settings, backend, train, columns, scale=1)
    print(
        f"{result.test_bits:.3f} bits per byte of the test text after {settings.steps} steps in {seconds:.1f} s, "
        f"{100 * result.test_accuracy:.1f} % of its bytes foreseen"
    )
    if all(mixer.metadata.recurrent for mixer in model.mixers):
        prompt = b"def "
        drawn = text.sample(model, result.params, prompt, 200, seed=settings.seed)
        print((prompt + drawn).decode("utf-8", errors="replace"))
    return result, plots.save_bits


_COLUMNS = "loss {task.fields[loss]:.3f}", "validation {task.fields[accuracy]:.1f} %"


def _timed(settings, backend, train, columns=_COLUMNS, scale=100):
    """Result of a training with a progress bar, and its seconds; `scale` turns accuracies into what is shown."""
    start = time.perf_counter()
    with shared.chosen_backend(backend), shared.progress(*columns) as bar:
        task = bar.add_task(settings.mixer, total=None, loss=float("nan"), accuracy=float("nan"))

        def report(progress):
            bar.update(task, total=progress.steps, completed=progress.step, loss=progress.loss)
            if progress.accuracy is not None:
                bar.update(task, accuracy=scale * progress.accuracy)

        return train(report), time.perf_counter() - start
