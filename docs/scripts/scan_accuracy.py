"""Measure the errors of float32 scans over the length: ``python docs/scripts/scan_accuracy.py`` (some minutes).

Writes docs/scan_accuracy.inc: root-mean-square errors of outputs, and the largest of those of the gradients, relative
to the root mean square of each array, against the reference in float64.
"""

import pathlib

import numpy
from tables import row

import mixers
from mixers import ops, samples
from mixers.files import replacing

OUT = pathlib.Path(__file__).parent.parent / "scan_accuracy.inc"
LENGTHS = (64, 1024, 8192, 65536)
SIZES = {
    "linear_scan": {"b": 1, "c": 8},
    "selective_scan": {"b": 1, "c": 8, "n": 4},
    "ssd_scan": {"b": 1, "h": 2, "p": 4, "n": 4},
}


def easy(arguments):
    """Decays anywhere between 0 and 1."""
    return arguments


def hard(arguments):
    """Decays within 1e-4 of 1: everything is carried over the whole length."""
    if "a" in arguments:
        return arguments | {"a": numpy.float32(1.0) - numpy.float32(1e-4) * arguments["a"]}
    step = "delta" if "delta" in arguments else "dt"
    return arguments | {
        "A": numpy.float32(0.25) * arguments["A"],
        step: numpy.float32(1e-4) * arguments[step] / numpy.float32(0.3),
    }


def error(got, want):
    return numpy.sqrt(((got.astype("float64") - want) ** 2).mean() / (want**2).mean())


def measure(name, gates, l):
    """Errors of the output and of the worst gradient."""
    op = getattr(ops, name)
    arguments = gates(samples.op_sample(name, l=l, **SIZES[name]))
    # it would hide the error of what went through the states
    arguments.pop("D", None)
    wide = {n: a.astype("float64") if n in op.arrays else a for n, a in arguments.items()}
    y, saved = op.forward(**arguments)
    dy = samples.cotangent(y)
    gradients = op.backward(dy, saved)
    with mixers.use_backend("reference"):
        want, saved = op.forward(**wide)
        wanted = op.backward(dy.astype("float64"), saved)
    pairs = [(g, w) for g, w in zip(gradients, wanted) if w is not None]
    return error(y, want), max(error(*pair) for pair in pairs)


def main():
    lines = [".. list-table:: Errors in float32 over the number of tokens: output / worst gradient"]
    lines += ["   :header-rows: 1", ""]
    lines += row("", *(f"{l} tokens" for l in LENGTHS))
    for name in SIZES:
        for gates in (easy, hard):
            cells = ["{:.0e} / {:.0e}".format(*measure(name, gates, l)) for l in LENGTHS]
            lines += row(f"``{name}``, {gates.__name__} gates", *cells)
    with replacing(OUT) as partial:
        partial.write_text("\n".join(lines) + "\n")
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
