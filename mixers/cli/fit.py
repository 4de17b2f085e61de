"""Fit a small Kolmogorov-Arnold network to a function: an expression, or a CSV file whose last column is the value.

Prints the error on samples that were kept out of the fit, and writes the learnt parameters (.npz) and a picture
of the function on every edge (.png)."""

import pathlib
import time

from mixers import fitting
from mixers.cli import shared
from mixers.fitting import Settings

EXAMPLES = """\
examples:
  mixers fit "exp(sin(pi * x) + y**2)"
  mixers fit "x1 * x2 / (1 + x3**2)" --hidden 4 --range -2 2 --layer kan_rbf
  mixers fit measurements.csv --hidden 8 3 --steps 3000 --out runs/measurements"""


def add_arguments(parser):
    parser.add_argument(
        "function", metavar="EXPRESSION|FILE", help="of x, y, z or x1 ... x9; a name in .csv is a file"
    )
    parser.add_argument(
        "--layer",
        choices=fitting.LAYERS,
        default=Settings.layer,
        help="kind of all layers (default: %(default)s)",
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=list(Settings.hidden),
        metavar="N",
        help="widths between input and output, none for one layer (default: 5)",
    )
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        default=(-1.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="of the variables of an expression (default: -1 1)",
    )
    parser.add_argument(
        "--samples", type=int, default=2000, help="points of an expression (default: %(default)s)"
    )
    for name, text in (("steps", "of the fit"), ("batch", "samples of a step"), ("seed", "of everything")):
        default = getattr(Settings, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=Settings.learning_rate,
        help=f"its peak (default: {Settings.learning_rate})",
    )
    parser.add_argument(
        "--out", metavar="PATH", help="where to write PATH.npz and PATH.png (default: runs/fit)"
    )


def run(arguments):
    from mixers import plots

    plots.require()
    samples = _samples(arguments)
    names = ("layer", "steps", "batch", "learning_rate", "seed")
    settings = Settings(hidden=tuple(arguments.hidden), **{n: getattr(arguments, n) for n in names})
    network = fitting.build_network(settings, samples.x.shape[1])
    widths = " -> ".join(str(n) for n in (samples.x.shape[1], *settings.hidden, 1))
    print(f"{settings.layer} {widths}: {network.parameter_count} parameters, {len(samples.x)} samples")
    start = time.perf_counter()
    found = _fit(samples, settings)
    print(
        f"root mean square error {found.test_error:.3g} on the samples kept out, {found.train_error:.3g} on the "
        f"others, where the values spread by {found.std:.3g}, after {time.perf_counter() - start:.1f} s"
    )
    out = pathlib.Path(arguments.out or "runs/fit").with_suffix("")
    fitting.save(out.with_suffix(".npz"), found, settings)
    edges = fitting.edge_functions(found, samples.x)
    plots.save_edges(out.with_suffix(".png"), samples.names, edges, found.predict(samples.x), samples.y)
    print(f"wrote {out.with_suffix('.npz')} and {out.with_suffix('.png')}")


def _samples(arguments):
    if arguments.function.lower().endswith(".csv"):
        return fitting.read_csv(arguments.function)
    if arguments.samples < 10:
        raise ValueError(f"--samples must be at least 10, got {arguments.samples}")
    low, high = arguments.range
    if not low < high:
        raise ValueError(f"--range must be LOW < HIGH, got {low} {high}")
    return fitting.sample_expression(arguments.function, arguments.samples, low, high, arguments.seed)


def _fit(samples, settings):
    with shared.progress("loss {task.fields[loss]:.2e}") as bar:
        task = bar.add_task("fit", total=settings.steps, loss=float("nan"))
        report = lambda step, steps, loss: bar.update(task, completed=step, total=steps, loss=loss)
        return fitting.fit(samples, settings, report)
