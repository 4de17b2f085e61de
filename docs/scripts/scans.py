"""Draw the pictures of docs/families/ssm.rst: ``python docs/scripts/scans.py`` writes docs/maps/scan_*.png.

The states of a selective scan over time, with two sequences in one row, and the orders of the mixers of images.
"""

import pathlib

import numpy
from matplotlib.figure import Figure

from mixers import ops, orders, sequences
from mixers.files import replacing
from mixers.zoo.ssm.lamamba import continuous_orders

MAPS = pathlib.Path(__file__).parent.parent / "maps"
GRID = (5, 6)


def main():
    MAPS.mkdir(exist_ok=True)
    for name, figure in (("scan_states", draw_states()), ("scan_orders", draw_orders())):
        path = MAPS / f"{name}.png"
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=80)
        print(f"wrote {path}")


def draw_states():
    """States of four rates under a few inputs; the second sequence starts at the line."""
    l, n, start = 96, 4, 60
    u, delta = numpy.zeros((1, l, 1)), numpy.full((1, l, 1), 0.05)
    u[0, [5, 30, 66], 0] = 1.0, -0.6, 1.0
    delta[0, 30:34] = 0.6
    A = -numpy.array([[0.1, 0.5, 1.0, 4.0]])
    B, C = numpy.ones((1, l, 1, n)), numpy.ones((1, l, 1, n))
    starts = sequences.starts_from_offsets([0, start, l])
    states = numpy.stack(
        [
            ops.selective_scan(*(a[:, : t + 1] if a.ndim > 2 else a for a in (u, delta, A, B, C)),
                               return_last_state=True, sequence_starts=starts[:, : t + 1]).last_state[0, 0]
            for t in range(l)
        ]
    )  # fmt: skip
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    axes = figure.subplots()
    for i in range(n):
        axes.plot(states[:, i], label=f"A = {A[0, i]:g}")
    axes.axvline(start - 0.5, color="0.7", linewidth=0.8)
    axes.axvspan(30, 34, color="0.93")
    axes.set(xlabel="token", ylabel="state")
    axes.legend(fontsize=8, ncols=4)
    return figure


def draw_orders():
    """The path of each order over the grid, from light to dark."""
    h, w = GRID
    rows, columns = orders.raster(h, w), orders.column(h, w)
    snakes = orders.snake_rows(h, w), orders.snake_columns(h, w)
    even = (h + h % 2, w + w % 2)
    shown = {
        "ss2d: raster": rows,
        "ss2d: column": columns,
        "ss2d: raster, back": orders.backwards(rows),
        "plain_mamba: snake_rows": snakes[0],
        "plain_mamba: snake_columns": snakes[1],
        **{f"lamamba: {k}": order for k, order in enumerate(continuous_orders(h, w))},
        "es2d: (1, 0), by columns": orders.atrous(h, w, 1, 0, by_columns=True),
    }
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels = figure.subplots(2, 5).ravel()
    for panel, (name, order) in zip(panels, shown.items()):
        height, width = even if name.startswith("es2d") else (h, w)
        i, j = numpy.divmod(order, width)
        panel.plot(j, i, color="0.8", linewidth=1, zorder=1)
        panel.scatter(j, i, c=numpy.arange(len(order)), cmap="Blues", s=22, edgecolors="0.5", linewidths=0.3)
        panel.plot(j[0], i[0], "r.", markersize=4)
        panel.set_title(name, fontsize=8)
        panel.set(xticks=[], yticks=[], xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6), aspect="equal")
    return figure


if __name__ == "__main__":
    main()
