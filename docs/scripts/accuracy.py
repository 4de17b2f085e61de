"""Measure the errors that docs/accuracy.rst shows: ``python docs/scripts/accuracy.py`` (about a minute)."""

import pathlib

import numpy
from tables import row

import mixers
from mixers import checking, ops, samples
from mixers.files import replacing

OUT = pathlib.Path(__file__).parent.parent / "accuracy_tables.inc"
DTYPES = ("float32", "float16", "bfloat16")
LENGTHS = (64, 1024, 16384)
# decays of 1 - 1e-4: what is carried over the whole length
HARD = {
    "linear_scan": lambda a: a | {"a": numpy.full_like(a["a"], 1 - 1e-4)},
    "selective_scan": lambda a: (
        a | {"A": numpy.full_like(a["A"], -1e-3), "delta": numpy.abs(a["delta"]) * 0.5}
    ),
    "long_conv1d": lambda a: a,
}


def main():
    lines = [*everything(), "", *lengths()]
    with replacing(OUT) as partial:
        partial.write_text("\n".join(lines) + "\n")
    print(f"wrote {OUT}")


def everything():
    """Largest errors of every op and mixer, small shapes."""
    lines = [".. list-table:: Largest error of any output and of any gradient", "   :header-rows: 1", ""]
    lines += row("", *(f"{dtype}, {what}" for dtype in DTYPES for what in ("outputs", "gradients")))
    for name in [*ops.__all__, *mixers.list_mixers()]:
        try:
            found = list(checking.check(name, dtypes=DTYPES))
        except NotImplementedError:
            continue
        cells = []
        for dtype in DTYPES:
            for gradients in (False, True):
                errors = [
                    f.error
                    for f in found
                    if f.backend == "cpu" and f.dtype == dtype and f.array.startswith("d") == gradients
                ]
                cells.append(f"{max(errors):.0e}")
        lines += row(f"``{name}``", *cells)
    return lines


def lengths():
    """Root-mean-square error of float32 over the length, where rounding accumulates."""
    lines = [
        ".. list-table:: Root-mean-square error in float32 over the number of tokens",
        "   :header-rows: 1",
        "",
    ]
    lines += row("", *(f"{l} tokens" for l in LENGTHS))
    for name, harden in HARD.items():
        op = getattr(ops, name)
        cells = []
        for l in LENGTHS:
            arguments = harden(samples.op_sample(name, l=l))
            wide = {n: a.astype("float64") if n in op.arrays else a for n, a in arguments.items()}
            with mixers.use_backend("reference"):
                want = op(**wide)
            error = op(**arguments).astype("float64") - want
            cells.append(f"{numpy.sqrt((error**2).mean() / (want**2).mean()):.1e}")
        lines += row(f"``{name}``", *cells)
    return lines


if __name__ == "__main__":
    main()
