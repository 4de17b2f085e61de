"""Pictures: how a mixer mixes tokens, and how a training went. Needs matplotlib."""

import importlib.util
import math

import numpy

from mixers import training
from mixers.files import replacing

_SIZE = 4.2  # inches of one panel
_INPUTS = 12  # of a layer that are drawn
_COLOURS = 10  # of curves before they repeat
_DECADES = 4  # range of the colours


def require():
    """Raise RuntimeError, with the install line, if matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise RuntimeError('pictures need matplotlib: pip install "token-mixers[train]"')


def token_map(mixer, params, x):
    """How much every output token depends on every input token.

    Parameters
    ----------
    mixer : Mixer
        With one input and one output of the same token grid.
    params : dict
    x : array (b, l, c) or (b, h, w, c)

    Returns
    -------
    array (n, n)
        Row i, column j: the norm over channels of d(v . y_i) / dx_j for a random unit vector v, averaged
        over the batch. n = l or h w, row by row.

    Notes
    -----
    One forward and one backward of n copies for each of the b items: copy i asks for the gradient of token i.

    Examples
    --------
    >>> import numpy, mixers
    >>> token_map(mixers.create("pool", dim=1), {}, numpy.ones((1, 3, 1)))
    array([[0.5       , 0.5       , 0.        ],
           [0.33333333, 0.66666667, 0.33333333],
           [0.        , 0.5       , 0.5       ]])
    """
    n, c = math.prod(x.shape[1:-1]), x.shape[-1]
    v = numpy.random.default_rng(0).standard_normal(c)
    dy = numpy.zeros((n, n, c), x.dtype)
    dy[numpy.arange(n), numpy.arange(n)] = v / numpy.linalg.norm(v)
    total = numpy.zeros((n, n))
    for item in x:
        y, saved = mixer.forward(params, numpy.repeat(item[None], n, axis=0))
        _, dx = mixer.backward(dy.reshape(y.shape), saved)
        total += numpy.linalg.norm(dx.reshape(n, n, c).astype(numpy.float64), axis=-1)
    return total / len(x)


def save_map(path, title, mixing, grid):
    """Draw a token map and the row of its middle token; the format follows the suffix of `path`."""
    figure = _figure(2)
    figure.suptitle(title)
    _draw_map(figure, *figure.subplots(1, 2), mixing, grid)
    _save(figure, path)


def save_training(path, result, images):
    """Draw the learning curve and the map of the first block's trained mixer on some images."""
    model = training.build_model(result.settings)
    params = {n.removeprefix("blocks.0."): a for n, a in result.params.items() if n.startswith("blocks.0.")}
    x = model.mixer_input(params, model.embed(result.params, images))
    own = {n.removeprefix("mixer."): a for n, a in params.items() if n.startswith("mixer.")}
    mixing = token_map(model.mixer, own, x)
    figure = _figure(3)
    figure.suptitle(f"{result.settings.mixer}: test accuracy {100 * result.test_accuracy:.2f} %")
    curve, *rest = figure.subplots(1, 3)
    _draw_curve(curve, result)
    _draw_map(figure, *rest, mixing, model.grid)
    _save(figure, path)


def save_curve(path, result):
    """Draw the learning curve alone."""
    figure = _figure(1)
    figure.suptitle(f"{result.settings.mixer}: test accuracy {100 * result.test_accuracy:.2f} %")
    _draw_curve(figure.subplots(), result)
    _save(figure, path)


def save_bits(path, result):
    """Draw the bits per byte of a language model: of every step, and of the validation text."""
    figure = _figure(1)
    figure.suptitle(f"{result.settings.mixer}: {result.test_bits:.3f} bits per byte of the test text")
    axes = figure.subplots()
    steps = numpy.arange(1, len(result.losses) + 1)
    axes.plot(
        steps, numpy.array(result.losses) / numpy.log(2.0), color="0.7", linewidth=0.8, label="every step"
    )
    every = -(-len(steps) // len(result.bits))
    axes.plot(
        numpy.minimum(every * numpy.arange(1, len(result.bits) + 1), len(steps)),
        result.bits,
        "C0o-",
        label="validation text",
    )
    axes.set(xlabel="step", ylabel="bits per byte", ylim=(0, 8.5))
    axes.legend()
    _save(figure, path)


def save_edges(path, names, layers, predicted, values):
    """Draw the functions on the edges of a Kolmogorov-Arnold network, and its values against the samples'.

    Parameters
    ----------
    path : path
    names : sequence of str
        Of the inputs, then of the value.
    layers : list of mixers.fitting.Edges
        A row of panels each; a panel has the functions that leave one input, and the first a key to the outputs.
        The first 12 inputs are drawn.
    predicted, values : array (n, 1)
    """
    require()
    from matplotlib.figure import Figure

    shown = [min(edges.points.shape[1], _INPUTS) for edges in layers]
    columns = max(*shown, 1)
    figure = Figure(figsize=(0.5 * _SIZE * (columns + 2), 0.5 * _SIZE * len(layers)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(columns, 2))
    panels = left.subplots(len(layers), columns, squeeze=False)
    for number, (edges, row) in enumerate(zip(layers, panels)):
        for i, axes in enumerate(row):
            if i >= shown[number]:
                axes.set_axis_off()
                continue
            axes.plot(edges.points[:, i], edges.values[:, i], linewidth=0.9)
            axes.set_title(
                f"from {names[i]}" if number == 0 else f"layer {number + 1}, input {i + 1}", size=8
            )
            axes.tick_params(labelsize=6)
        outputs = edges.values.shape[2]
        if 1 < outputs <= _COLOURS:
            names_of = [str(o + 1) for o in range(outputs)]
            row[0].legend(
                names_of, title="to", fontsize=5, title_fontsize=5, handlelength=1, labelspacing=0.2
            )
    axes = right.subplots()
    axes.plot(values, predicted, ".", markersize=2)
    axes.axline((float(values.mean()),) * 2, slope=1.0, color="0.7", linewidth=0.8)
    axes.set(xlabel="sample", ylabel="network", title=names[-1][:40])
    _save(figure, path)


def _figure(panels):
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(_SIZE * panels, _SIZE), layout="constrained")


def _draw_curve(axes, result):
    steps = numpy.arange(1, len(result.losses) + 1)
    axes.semilogy(steps, result.losses, color="0.7", linewidth=0.8, label="loss of each step")
    axes.set(xlabel="step", ylabel="cross entropy")
    accuracy = axes.twinx()
    per_epoch = len(result.losses) // len(result.accuracies)
    accuracy.plot(
        per_epoch * numpy.arange(1, len(result.accuracies) + 1), 100 * numpy.array(result.accuracies), "C0"
    )
    accuracy.set_ylabel("validation accuracy in %", color="C0")
    accuracy.set_ylim(None, 100)


def _draw_map(figure, whole, middle, mixing, grid):
    from matplotlib.colors import LogNorm

    top = mixing.max() or 1.0
    # zeros have no logarithm: they get the lowest colour
    options = {"norm": LogNorm(top * 10.0**-_DECADES, top, clip=True), "interpolation": "nearest"}
    image = whole.imshow(numpy.maximum(mixing, top * 10.0**-_DECADES), **options)
    whole.set(title="|dy_i / dx_j|", xlabel="input token j", ylabel="output token i")
    _whole_numbers(whole.xaxis, whole.yaxis, middle.xaxis)
    figure.colorbar(image, ax=whole, shrink=0.8)
    centre = tuple(side // 2 for side in grid)
    row = mixing[numpy.ravel_multi_index(centre, grid)]
    if len(grid) == 2:
        middle.imshow(numpy.maximum(row, top * 10.0**-_DECADES).reshape(grid), **options)
        middle.plot(centre[1], centre[0], "w+")
        middle.set(title=f"row of token {centre}", xlabel="column", ylabel="row")
        _whole_numbers(middle.yaxis)
    else:
        middle.plot(row)
        middle.axvline(centre[0], color="0.7", linewidth=0.8)
        middle.set(title=f"row of token {centre[0]}", xlabel="input token j")


def _whole_numbers(*axes):
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def _save(figure, path):
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
