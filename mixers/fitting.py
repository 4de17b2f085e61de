"""Fit a small Kolmogorov-Arnold network to a function of a few variables: what ``mixers fit`` does."""

import ast
import csv
import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy

from mixers import _checks as check
from mixers import registry, training
from mixers.mixer import Mixer, Params

LAYERS = ("kan_bspline", "kan_fourier", "kan_rbf")
# options of the layers, where their defaults do not suit inputs in [-1, 1]
_OPTIONS = {
    "kan_bspline": {"grid_range": (-1.25, 1.25)},
    "kan_fourier": {"grid_size": 4},
    "kan_rbf": {"use_layernorm": False, "grid_min": -1.25, "grid_max": 1.25},
}
_FUNCTIONS = {
    name: getattr(numpy, name)
    for name in "sin cos tan arcsin arccos arctan sinh cosh tanh exp log sqrt abs sign minimum maximum".split()
}
# numbers beyond have no float
_LARGEST = int(1e308)
_CONSTANTS = {"pi": math.pi, "e": math.e}
_VARIABLES = ("x", "y", "z", *(f"x{i}" for i in range(1, 10)))
_SYNTAX = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Load, ast.Constant),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd),
)


@dataclass(frozen=True)
class KanNetwork(Mixer):
    """Kolmogorov-Arnold layers one after the other.

    Parameters
    ----------
    layers : tuple of Mixer
        Each along the channels, with as many in_features as the one before has out_features.

    Raises
    ------
    ValueError
        If there is no layer or two do not fit.

    Examples
    --------
    >>> from mixers import zoo
    >>> network = KanNetwork((zoo.KanBspline(2, 5), zoo.KanBspline(5, 1)))
    >>> network(network.init(0), numpy.ones((4, 2), "float32")).shape
    (4, 1)
    """

    layers: tuple

    def __post_init__(self):
        if not self.layers:
            raise ValueError(f"{self.name}: layers must hold one layer or more")
        for first, second in zip(self.layers, self.layers[1:]):
            if first.out_features != second.in_features:
                raise ValueError(
                    f"{self.name}: layers must fit together, got {first.out_features} features "
                    f"for {second.in_features}"
                )

    def check_input(self, x):
        """Check the features."""
        self.layers[0].check_input(x)

    def parameters(self):
        return {
            f"layers.{i}.{name}": spec
            for i, layer in enumerate(self.layers)
            for name, spec in layer.parameters().items()
        }

    def mix(self, p, x):
        for i, layer in enumerate(self.layers):
            x = layer.mix(self.part(p, i), x)
        return x

    def part(self, p, i):
        """The parameters of layer i by its own names."""
        prefix = f"layers.{i}."
        return Params({n.removeprefix(prefix): a for n, a in p.items() if n.startswith(prefix)})


@dataclass(frozen=True)
class Settings:
    """What a fit is determined by, besides the samples."""

    layer: str = "kan_bspline"
    hidden: tuple = (5,)
    steps: int = 1000
    batch: int = 256
    learning_rate: float = 2e-2
    seed: int = 0


class Samples(NamedTuple):
    """Points (n, i) and values (n, 1), float64, and the names of the columns."""

    x: numpy.ndarray
    y: numpy.ndarray
    names: tuple


class Fit(NamedTuple):
    """What came of a fit. Inputs go to the network as (x - centre) / half, its output is (y - mean) / std."""

    network: KanNetwork
    params: dict
    centre: numpy.ndarray
    half: numpy.ndarray
    mean: float
    std: float
    losses: list
    train_error: float
    test_error: float

    def predict(self, x):
        """Values (n, 1) at the points x (n, i)."""
        z = ((x - self.centre) / self.half).astype(numpy.float32)
        return self.network(self.params, z).astype(numpy.float64) * self.std + self.mean


def sample_expression(text, count=2000, low=-1.0, high=1.0, seed=0):
    """Values of an expression such as ``"sin(pi * x) + y**2"`` at even random points of a cube.

    Parameters
    ----------
    text : str
        Arithmetic of the variables x, y, z or x1 ... x9, numbers, pi, e and functions of NumPy by name.
    count : int
    low, high : float
        Of all variables.
    seed : int

    Returns
    -------
    Samples

    Raises
    ------
    ValueError
        If the text is no such expression, or a value is not finite.

    Examples
    --------
    >>> sample_expression("x * y", count=3).x.shape
    (3, 2)
    """
    tree = _parse(text)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used = tuple(name for name in _VARIABLES if name in names)
    if not used:
        raise ValueError(f"sample_expression: {text!r} must have a variable: {', '.join(_VARIABLES[:4])} ...")
    x = numpy.random.default_rng(seed).uniform(low, high, (count, len(used)))
    scope = {**_FUNCTIONS, **_CONSTANTS, **dict(zip(used, x.T))}
    try:
        with numpy.errstate(all="ignore"):
            y = eval(compile(tree, "<expression>", "eval"), {"__builtins__": {}}, scope)
        y = numpy.broadcast_to(numpy.asarray(y, numpy.float64), (count,))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"sample_expression: {text!r} must have a value, got: {error}") from None
    if not numpy.isfinite(y).all():
        raise ValueError(f"sample_expression: {text!r} must be finite for all variables in [{low}, {high}]")
    return Samples(x, y[:, None].astype(numpy.float64), (*used, text))


def _parse(text):
    """The syntax tree of an expression that holds nothing but arithmetic of known names."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        raise ValueError(f"sample_expression: {text!r} must be an expression like sin(x) + y**2") from None
    for node in ast.walk(tree):
        known = {*_FUNCTIONS, *_CONSTANTS, *_VARIABLES}
        if not isinstance(node, _SYNTAX) or (isinstance(node, ast.Name) and node.id not in known):
            part = node.id if isinstance(node, ast.Name) else type(node).__name__
            part += "; a power is x**2" if isinstance(node, ast.BitXor) else ""
            raise ValueError(
                f"sample_expression: {text!r} must consist of arithmetic, x, y, z, x1 ... x9, pi, e and "
                f"{', '.join(_FUNCTIONS)}; got {part}"
            )
        if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.keywords):
            raise ValueError(f"sample_expression: {text!r} must call functions by name")
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
            raise ValueError(f"sample_expression: {text!r} must hold numbers only, got {node.value!r}")
        if isinstance(node, ast.Constant):
            # powers of whole numbers would grow without end
            node.value = float(min(max(node.value, -_LARGEST), _LARGEST))
    return tree


def read_csv(path):
    """Samples from a file of numbers separated by commas: inputs first, the value in the last column.

    Raises
    ------
    ValueError
        If the file holds anything else; a first line of names is fine.
    """
    # spreadsheets begin a file with a mark of the byte order
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        rows = [(reader.line_num, row) for row in reader if row]
    names = ()
    if rows and not any(map(_is_number, rows[0][1])):
        names, rows = tuple(cell.strip() for cell in rows[0][1]), rows[1:]
    if not rows:
        raise ValueError(f"read_csv: {path} must hold rows of numbers, got none")
    columns = len(names or rows[0][1])
    if columns < 2:
        raise ValueError(
            f"read_csv: {path} must have two columns or more, separated by commas: inputs, and last the value; "
            f"line {rows[0][0]} is {','.join(rows[0][1])[:60]!r}"
        )
    names = names or (*(f"x{i + 1}" for i in range(columns - 1)), "y")
    for line, row in rows:
        if len(row) != columns:
            raise ValueError(f"read_csv: {path}, line {line}: must have {columns} columns, got {len(row)}")
        for name, cell in zip(names, row):
            if not (_is_number(cell) and math.isfinite(float(cell))):
                raise ValueError(
                    f"read_csv: {path}, line {line}: {name} must be a finite number, got {cell[:60]!r}; "
                    f"fill it in or leave out the line"
                )
    table = numpy.array([row for _, row in rows], numpy.float64)
    return Samples(table[:, :-1], table[:, -1:], names)


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def build_network(settings, features):
    """The network that the settings describe, from so many features to one."""
    check.choice("fit", "layer", settings.layer, LAYERS)
    widths = (features, *settings.hidden, 1)
    cls, options = registry.mixer_class(settings.layer), _OPTIONS[settings.layer]
    return KanNetwork(
        tuple(cls(in_features=i, out_features=o, **options) for i, o in zip(widths, widths[1:]))
    )


def fit(samples, settings=None, report=lambda step, steps, loss: None):
    """Fit a network to samples by AdamW on the squared error; a fifth of the samples is kept for the test.

    Parameters
    ----------
    samples : Samples
        At least 10.
    settings : Settings, optional
    report : callable
        Called with the number of the step, of all steps, and the loss.

    Returns
    -------
    Fit
        Its errors are root mean squares in the units of the values.

    Raises
    ------
    ValueError
        If there are too few samples or a setting is out of its range.
    """
    settings = settings or Settings()
    for name in ("steps", "batch"):
        check.integer("fit", name, getattr(settings, name), minimum=1)
    for width in settings.hidden:
        check.integer("fit", "hidden", width, minimum=1)
    if len(samples.x) < 10:
        raise ValueError(f"fit: there must be at least 10 samples, got {len(samples.x)}")
    rng = numpy.random.default_rng(settings.seed)
    order = rng.permutation(len(samples.x))
    held = len(order) // 5
    train, test = order[held:], order[:held]
    network = build_network(settings, samples.x.shape[1])
    params = network.init(rng)
    low, high = samples.x[train].min(axis=0), samples.x[train].max(axis=0)
    half = numpy.where(high > low, (high - low) / 2, 1.0)
    std = float(samples.y[train].std()) or 1.0
    found = Fit(network, params, (low + high) / 2, half, float(samples.y[train].mean()), std, [], 0.0, 0.0)
    z = ((samples.x - found.centre) / half).astype(numpy.float32)
    target = ((samples.y - found.mean) / std).astype(numpy.float32)
    optimizer = training.AdamW(params, 0.0)
    for step in range(settings.steps):
        chosen = rng.choice(train, min(settings.batch, len(train)), replace=False)
        rate = training.learning_rate(settings.learning_rate, step, settings.steps)
        cost = lambda out, chosen=chosen: _squared_error(out, target[chosen])
        found.losses.append(training.step(network, params, optimizer, z[chosen], cost, rate))
        report(step + 1, settings.steps, found.losses[-1])
    error = lambda rows: float(
        numpy.sqrt(numpy.mean((found.predict(samples.x[rows]) - samples.y[rows]) ** 2))
    )
    return found._replace(train_error=error(train), test_error=error(test))


def _squared_error(out, target):
    """Mean square of the difference, and its gradient."""
    difference = out - target
    return float((difference.astype(numpy.float64) ** 2).mean()), 2.0 * difference / difference.size


class Edges(NamedTuple):
    """The functions of one layer: points (n, i), values (n, i, o)."""

    points: numpy.ndarray
    values: numpy.ndarray


def edge_functions(found, x, count=101):
    """The learnt function of every edge, over the range that the points x (n, i) make its input take.

    Returns
    -------
    list of Edges
        One per layer, in the units of the network. Constants of a layer are left out.
    """
    z = ((x - found.centre) / found.half).astype(numpy.float32)
    layers = []
    for number, layer in enumerate(found.network.layers):
        p = found.network.part(found.params, number)
        points = numpy.linspace(z.min(axis=0), z.max(axis=0), count, dtype=numpy.float32)
        i, o = layer.in_features, layer.out_features
        # all inputs but one stay at zero; what zeros give is taken away
        probes = numpy.zeros((count, i, i), numpy.float32)
        probes[:, range(i), range(i)] = points
        at_zero = layer(p, numpy.zeros((1, i), numpy.float32))
        values = (layer(p, probes.reshape(-1, i)) - at_zero).reshape(count, i, o)
        layers.append(Edges(points, values.astype(numpy.float64)))
        z = layer(p, z)
    return layers


def save(path, found, settings):
    """Write the parameters, the scales of the samples and the settings as one .npz file, in one step."""
    import json

    from mixers.files import replacing

    scales = {name: numpy.asarray(getattr(found, name)) for name in ("centre", "half", "mean", "std")}
    described = numpy.array(json.dumps({"task": "fit", **asdict(settings)}))
    with replacing(path) as partial, open(partial, "wb") as file:
        numpy.savez(file, settings=described, **scales, **found.params)
