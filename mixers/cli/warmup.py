"""Compile CPU kernels ahead and keep them on disk, so that no first call has to wait.

Without names everything is compiled, which takes some minutes once per installation."""

import mixers
from mixers import ops, samples, subjects
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers warmup
  mixers warmup mamba hyena
  mixers warmup selective_scan --dtype float32 float64"""


def add_arguments(parser):
    parser.add_argument("names", metavar="NAME", nargs="*", help="mixers or ops (default: all)")
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "float64"), default=["float32"], metavar="DTYPE"
    )


def run(arguments):
    names = arguments.names or [*ops.__all__, *mixers.list_mixers()]
    jobs = [(subjects.find(name, dtype=dtype), dtype) for name in names for dtype in arguments.dtype]
    missing = []
    with shared.progress() as bar, mixers.use_backend("cpu"):
        task = bar.add_task("compiling", total=len(jobs))
        for subject, dtype in jobs:
            bar.update(task, description=f"{subject.name} {dtype}")
            try:
                out, saved = subject.forward(subject.arrays)
                subject.backward(samples.cotangent(out), saved)
            except NotImplementedError:
                missing.append(subject.name)
            bar.advance(task)
    print(
        f"compiled {len(jobs) - len(missing)} of {len(jobs)}; kernels are in {mixers.info()['kernel cache']}"
    )
    if missing:
        print(f"not on the cpu backend: {', '.join(dict.fromkeys(missing))}")
