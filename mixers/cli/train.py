"""Train a small model on the 1797 handwritten digits that scikit-learn bundles.

Blocks of the chosen token mixer and a channel MLP (a MetaFormer) read the 8 x 8 images in patches. The
run is repeatable bit for bit. It writes the trained parameters (.npz) and a picture of the learning
curve and of the map of the trained mixer (.png)."""

import pathlib
import time

from mixers import training
from mixers.cli import shared
from mixers.training import Settings

EXAMPLES = """\
examples:
  mixers train --mixer mamba
  mixers train --mixer hyena --epochs 10 --dim 48 --out runs/hyena
  mixers train --mixer mlp_mixer --config hidden=64 --seed 1"""


def add_arguments(parser):
    parser.add_argument("--mixer", required=True, metavar="NAME", help="`mixers list` names all")
    shared.add_backend(parser)
    for name, text in (
        ("epochs", "passes over the training images"),
        ("dim", "channels"),
        ("depth", "blocks"),
        ("patch", "side of the square patches: 1, 2 or 4"),
        ("batch", "images per step"),
        ("seed", "of parameters and order of the images"),
    ):
        default = getattr(Settings, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=Settings.learning_rate,
        help=f"its peak (default: {Settings.learning_rate})",
    )
    parser.add_argument(
        "--out", metavar="PATH", help="where to write PATH.npz and PATH.png (default: runs/NAME)"
    )
    shared.add_config(parser)


def run(arguments):
    from mixers import plots

    plots.require()
    names = ("mixer", "dim", "depth", "patch", "epochs", "batch", "learning_rate", "seed")
    settings = Settings(
        **{name: getattr(arguments, name) for name in names}, config=shared.parse_config(arguments.config)
    )
    data = training.load_digits()
    model = training.build_model(settings)
    print(f"{model.mixer}: {model.parameter_count} parameters in {settings.depth} blocks")
    start = time.perf_counter()
    with shared.chosen_backend(arguments.backend):
        result = _train(settings, data, arguments.backend)
        print(
            f"test accuracy {100 * result.test_accuracy:.2f} % on {len(data.test.labels)} images "
            f"after {settings.epochs} epochs in {time.perf_counter() - start:.1f} s"
        )
    out = pathlib.Path(arguments.out or f"runs/{settings.mixer}").with_suffix("")
    training.save(out.with_suffix(".npz"), result)
    plots.save_training(out.with_suffix(".png"), result, data.test.x[:16])
    print(f"wrote {out.with_suffix('.npz')} and {out.with_suffix('.png')}")


def _train(settings, data, backend):
    with shared.progress("loss {task.fields[loss]:.3f}", "validation {task.fields[accuracy]:.1f} %") as bar:
        task = bar.add_task(settings.mixer, total=None, loss=float("nan"), accuracy=float("nan"))

        def report(progress):
            bar.update(task, total=progress.steps, completed=progress.step, loss=progress.loss)
            if progress.accuracy is not None:
                bar.update(task, accuracy=100 * progress.accuracy)

        return training.train(settings, data, backend, report)
