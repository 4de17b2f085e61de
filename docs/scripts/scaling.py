"""Measure and draw how time and memory grow with length, channels, batch and threads.

``python docs/scripts/scaling.py`` measures what docs/data/scaling.csv does not hold yet, a line at a time, and makes
docs/data/scaling_*.png and docs/scaling_table.inc from that file. It may be stopped and started again: ``--minutes``
limits the time, ``--only`` the subjects, ``--again`` measures their lines anew, ``--draw`` only draws.
"""

import argparse
import csv
import datetime
import json
import math
import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import numpy
from matplotlib.figure import Figure
from tables import row

import mixers
from mixers.files import replacing

DATA = pathlib.Path(__file__).parent.parent / "data"
TABLE = DATA / "scaling.csv"
FIELDS = ("subject", "axis", "value", "forward", "both", "memory", "tokens", "threads", "date")
# seconds after which larger values of an axis are not tried, and bytes of the largest array
SLOWEST, LARGEST = 20.0, 1 << 29
COLUMNS = 3


class Subject(NamedTuple):
    """What is measured: `shape` is formatted with the sizes, `usual` holds those that do not vary.

    A mixer's `cost` is that of the registry.
    """

    name: str
    shape: str
    usual: dict
    lengths: tuple
    cost: str = ""

    @property
    def stated(self):
        """The cost class that the docs state."""
        return self.cost or mixers.describe(self.name).cost


def powers(low, high, step=2):
    return tuple(2**i for i in range(low, high + 1, step))


_SEQUENCE = {"b": 1, "l": 4096, "c": 64}
_MIXER = {"b": 1, "l": 1024, "c": 128}
# sides of square grids
_SIDES = (8, 16, 32, 64, 128, 256, 512)
SUBJECTS = (
    Subject("selective_scan", "b={b},l={l},c={c}", _SEQUENCE, powers(8, 20), "O(L C n)"),
    Subject("linear_scan", "b={b},l={l},c={c}", _SEQUENCE, powers(8, 20), "O(L C)"),
    Subject("long_conv1d", "b={b},l={l},c={c}", _SEQUENCE, powers(8, 20), "O(L C log L)"),
    Subject(
        "kan_attention",
        "b={b},n={l},h=4,d={c}",
        {"b": 1, "l": 512, "c": 64},
        powers(6, 13, 1),
        "O(L^2 (C + h g r))",
    ),
    Subject(
        "depthwise_conv2d",
        "b={b},h={side},w={side},c={c},k=7",
        {"b": 4, "l": 56**2, "c": 64},
        tuple(n**2 for n in _SIDES),
        "O(L C k^2)",
    ),
    Subject("mamba", "{b},{l},{c}", _MIXER, powers(8, 16)),
    Subject("hyena", "{b},{l},{c}", _MIXER, powers(8, 16)),
    Subject(
        "gated_cnn", "{b},{side},{side},{c}", {"b": 1, "l": 32**2, "c": 128}, tuple(n**2 for n in _SIDES[:-1])
    ),
    Subject(
        "global_filter",
        "{b},{side},{side},{c}",
        {"b": 1, "l": 32**2, "c": 128},
        tuple(n**2 for n in _SIDES[:-1]),
    ),
    Subject("mlp_mixer", "{b},{l},{c}", {"b": 1, "l": 256, "c": 128}, powers(6, 12, 1)),
)
AXES = {"length": "l", "channels": "c", "batch": "b", "threads": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default="", help="subjects, separated by commas")
    parser.add_argument("--axes", default=",".join(AXES), help="separated by commas (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=None, metavar="N", help="of any length, for a trial")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--draw", action="store_true", help="do not measure")
    parser.add_argument("--table", type=pathlib.Path, default=TABLE, help="default: docs/data/scaling.csv")
    arguments = parser.parse_args()
    lines = read(arguments.table)
    if not arguments.draw:
        measure(arguments, lines)
    draw(lines, arguments.table.parent)
    with replacing(DATA.parent / "scaling_table.inc") as partial:
        partial.write_text("\n".join(slopes(lines)) + "\n")


def read(path):
    """Lines of the table by subject, axis and value."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(line["subject"], line["axis"], int(line["value"])): line for line in csv.DictReader(file)}


def write(path, lines):
    order = [subject.name for subject in SUBJECTS]
    with replacing(path) as partial, partial.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(lines[key] for key in sorted(lines, key=lambda k: (order.index(k[0]), k[1:])))


def measure(arguments, lines):
    """Add what is missing, smallest values first, until the time is over."""
    end = time.monotonic() + 60 * arguments.minutes
    for subject in SUBJECTS:
        if arguments.only and subject.name not in arguments.only.split(","):
            continue
        for axis in arguments.axes.split(","):
            for value in values(subject, axis, arguments):
                if time.monotonic() > end:
                    return
                key = subject.name, axis, value
                if key in lines and not arguments.again:
                    continue
                print(*key, flush=True)
                found = one(subject, axis, value, arguments)
                if found is None:
                    break
                lines[key] = found
                write(arguments.table, lines)
                if float(found["both"]) > SLOWEST:
                    break


def values(subject, axis, arguments):
    largest = arguments.largest or math.inf
    if axis == "length":
        return [n for n in subject.lengths if n <= largest]
    if axis == "threads":
        return range(1, len(os.sched_getaffinity(0)) + 1)
    return {"channels": (16, 32, 64, 128, 256, 512), "batch": (1, 2, 4, 8, 16)}[axis]


def one(subject, axis, value, arguments):
    """A line of the table, measured by ``mixers bench`` in a process of its own; None if that failed."""
    sizes = dict(subject.usual)
    if axis != "threads":
        sizes[AXES[axis]] = value
    if arguments.largest:
        sizes["l"] = min(sizes["l"], max(arguments.largest, 1))
    side = math.isqrt(sizes["l"])
    if 4 * math.prod(sizes.values()) > LARGEST:
        return None
    threads = value if axis == "threads" else arguments.threads
    command = [
        sys.executable,
        "-m",
        "mixers.cli.main",
        "bench",
        subject.name,
        "--backward",
        "--memory",
        "--json",
    ]
    command += ["--shape", subject.shape.format(**sizes, side=side)]
    command += ["--threads", str(threads), "--rounds", str(arguments.rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(done.stderr.strip()[-300:])
        return None
    report = json.loads(done.stdout)
    times = report["timings"]["mixers"]
    return {
        "subject": subject.name,
        "axis": axis,
        "value": value,
        "forward": f"{times['forward']['median']:.4g}",
        "both": f"{times['both']['median']:.4g}",
        "memory": report["memory"]["mixers"]["both"] if "memory" in report else "",
        "tokens": sizes["b"] * sizes["l"],
        "threads": threads,
        "date": datetime.date.today().isoformat(),
    }


def draw(lines, directory):
    """A picture per axis, with a panel per subject: time and memory, and slopes fitted to the upper half."""
    for axis in AXES:
        chosen = [subject for subject in SUBJECTS if len(points(lines, subject.name, axis)) > 1]
        if not chosen:
            continue
        rows = math.ceil(len(chosen) / COLUMNS)
        figure = Figure(figsize=(3.4 * COLUMNS, 2.7 * rows), layout="constrained")
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for panel in panels[len(chosen) :]:
            panel.set_axis_off()
        for panel, subject in zip(panels, chosen):
            draw_panel(panel, subject, axis, lines)
        with replacing(directory / f"scaling_{axis}.png") as partial:
            figure.savefig(partial, format="png", dpi=70)


def slopes(lines):
    """A table of the exponents of time and memory, and of what the second thread brings."""
    out = [".. list-table::", "   :header-rows: 1", ""]
    heads = (
        "time over length",
        "memory over length",
        "time over channels",
        "time over batch",
        "2 threads, times faster",
    )
    out += row("", "stated cost", *heads)
    for subject in SUBJECTS:
        times = {axis: points(lines, subject.name, axis) for axis in AXES}
        memory = points(lines, subject.name, "length", "memory")
        alone = dict(times["threads"])
        gain = f"{alone[1] / alone[2]:.2f}" if {1, 2} <= alone.keys() else ""
        series = (times["length"], memory, times["channels"], times["batch"])
        if len(times["length"]) > 1:
            out += row(f"``{subject.name}``", subject.stated, *map(shown, series), gain)
    return out


def points(lines, name, axis, field="both"):
    """Values of an axis and what was measured there, where it was anything."""
    mine = [line for key, line in sorted(lines.items()) if key[:2] == (name, axis)]
    return [(int(line["value"]), float(line[field])) for line in mine if float(line[field] or 0) > 0]


def slope(found):
    """The exponent of y over x, fitted to the upper half of the points (at least two)."""
    x, y = zip(*found[min(len(found) // 2, len(found) - 2) :])
    return numpy.polyfit(numpy.log(x), numpy.log(y), 1)[0]


def shown(found):
    return f"{slope(found):.2f}" if len(found) > 1 else ""


def draw_panel(panel, subject, axis, lines):
    panel.set_title(f"{subject.name}: {subject.stated}", fontsize=9)
    panel.set_xlabel("tokens" if axis == "length" else axis)
    for field, unit, scale, style in (("both", "ms", 1e3, "o-"), ("memory", "MB", 1e-6, "s--")):
        found = points(lines, subject.name, axis, field)
        if len(found) > 1:
            x, y = zip(*found)
            panel.loglog(x, scale * numpy.array(y), style, label=f"{unit}: {shown(found)}", markersize=3)
    panel.legend(fontsize=8, title="slope", title_fontsize=8)
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    main()
