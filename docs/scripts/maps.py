"""Draw the mixing maps of the families' pages.

``python docs/scripts/maps.py FAMILY ...`` writes docs/maps/FAMILY.png: for each mixer how much the output at the marked
token depends on every input token. A mixer of several inputs gets the same for all, and its first output counts.
"""

import argparse
import math
import pathlib

import numpy
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import mixers
from mixers import plots, samples
from mixers.files import replacing
from mixers.mixer import required_inputs
from mixers.registry import mixer_class

DOCS = pathlib.Path(__file__).parent.parent
GRIDS = {1: (64,), 2: (12, 12)}
CHANNELS, BATCH, COLUMNS, DECADES = 16, 4, 5, 4


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="+", metavar="FAMILY")
    for family in parser.parse_args().families:
        names = mixers.list_mixers(family)
        path = DOCS / "maps" / f"{family}.png"
        path.parent.mkdir(exist_ok=True)
        figure = draw({name: middle_row(name) for name in names})
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=80)


def middle_row(name):
    """|dy_i / dx_j| for the middle token i, on the grid of tokens j, relative to the largest."""
    grid = GRIDS[max(mixers.describe(name).ranks)]
    mixer, params, (x, *others) = samples.mixer_sample(name, shape=(BATCH, *grid, CHANNELS), dtype="float64")
    if others:
        mixer = FirstOf(mixer)
    centre = tuple(n // 2 for n in grid)
    row = plots.token_map(mixer, params, x)[numpy.ravel_multi_index(centre, grid)].reshape(grid)
    return centre, row / row.max()


class FirstOf:
    """A mixer of several inputs and outputs as one of a single one of each."""

    def __init__(self, mixer):
        self.mixer = mixer
        self.inputs = len(required_inputs(mixer_class(mixer.name)))

    def forward(self, params, x):
        out, saved = self.mixer.forward(params, *[x] * self.inputs)
        self.outputs = len(out)
        return out[0], saved

    def backward(self, dy, saved):
        dparams, dinputs = self.mixer.backward((dy, *[None] * (self.outputs - 1)), saved)
        return dparams, sum(dinputs)


def draw(rows):
    """A panel per mixer."""
    columns = min(COLUMNS, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    for panel, (name, (centre, row)) in zip(panels, rows.items()):
        panel.set_title(name, fontsize=9)
        panel.set(xticks=[], yticks=[])
        if row.ndim == 2:
            colours = LogNorm(10.0**-DECADES, 1.0, clip=True)
            panel.imshow(numpy.maximum(row, 10.0**-DECADES), norm=colours, interpolation="nearest")
            panel.plot(centre[1], centre[0], "w+")
        else:
            panel.semilogy(numpy.maximum(row, 10.0**-DECADES), linewidth=1)
            panel.axvline(centre[0], color="0.7", linewidth=0.8)
    return figure


if __name__ == "__main__":
    main()
