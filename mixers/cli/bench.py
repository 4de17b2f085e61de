"""Time a mixer or op, alone or against other libraries on the same inputs.

All contenders run in one process and take turns, block by block; each block is warmed up. Times are
medians over the blocks, with half the range as spread. A ratio is the other library's time over ours: above
1 we are faster. Before the race the outputs are compared (column "differs": relative to the largest value)."""

import json

from mixers import subjects
from mixers.bench import contender
from mixers.bench.timing import alternate
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers bench avg_pool
  mixers bench selective_scan --shape b=2,l=1024,c=256 --backward --against torch jax mambapy --threads 2
  mixers bench hyena --shape 8,1024,256 --backward --against torch --json > hyena.json"""

VERBS = ("forward", "backward", "both")


def add_arguments(parser):
    shared.add_name(parser)
    shared.add_shape(parser)
    shared.add_config(parser)
    shared.add_backend(parser)
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="PEER",
        help="libraries to compare with: torch, jax, mambapy, ducc0, scipy (also separated by commas)",
    )
    parser.add_argument("--backward", action="store_true", help="time backward, and forward and backward")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processors to use (default: all of the process)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each call (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, times in seconds")


def run(arguments):
    for name in ("threads", "rounds"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    # before any other library looks at how many processors there are
    threads = contender.set_threads(arguments.threads)
    shape = subjects.parse_shape(arguments.shape)
    config = shared.parse_config(arguments.config)
    subject = subjects.find(arguments.name, "bench", arguments.dtype, shape=shape, **config)
    names = [name for text in arguments.against for name in text.split(",") if name]
    with shared.chosen_backend(arguments.backend):
        ours = contender.ours(subject, arguments.backend, arguments.backward)
        others, problems = contender.peers(names, subject, arguments.backend, arguments.backward, threads)
        differences = {other.name: contender.difference(ours, other) for other in others}
        timings = _race([ours, *others], arguments.rounds)
    report = {
        "name": subject.name,
        "backend": arguments.backend,
        "dtype": arguments.dtype,
        "shapes": {n: list(a.shape) for n, a in subject.arrays.items()},
        "threads": threads,
        "timings": {name: {v: t._asdict() for v, t in verbs.items()} for name, verbs in timings.items()},
        "differences": differences,
        "problems": problems,
        **_rates(subject, timings["mixers"]["forward"].median),
    }
    print(json.dumps(report)) if arguments.json else _print(report)


def _race(contenders, rounds):
    """Timings by contender and verb; the contenders of one verb take turns."""
    verbs = [v for v in VERBS if getattr(contenders[0], v) is not None]
    found = {c.name: {} for c in contenders}
    with shared.progress() as bar:
        total = rounds * sum(getattr(c, v) is not None for c in contenders for v in verbs)
        task = bar.add_task("timing", total=total)
        for verb in verbs:
            calls = {c.name: getattr(c, verb) for c in contenders if getattr(c, verb) is not None}

            def finish():
                for c in contenders:
                    c.finish()

            for name, timing in alternate(calls, rounds, finish, lambda: bar.advance(task)).items():
                found[name][verb] = timing
    return found


def _rates(subject, seconds):
    cost = subject.cost()
    if cost is None:
        return {}
    flops, moved = cost
    return {"gflop_per_second": flops / seconds / 1e9, "gbyte_per_second": moved / seconds / 1e9}


def _print(report):
    shapes = ", ".join(f"{n} {'x'.join(map(str, s)) or 'scalar'}" for n, s in report["shapes"].items())
    print(f"{report['name']} {report['dtype']} on {report['backend']}, {report['threads']} threads: {shapes}")
    verbs = list(report["timings"]["mixers"])
    table = shared.table(
        "", *(f">{verb} ms" for verb in verbs), *(f">{verb} ratio" for verb in verbs), ">differs"
    )
    ours = report["timings"]["mixers"]
    for name, timings in report["timings"].items():
        times = [_milliseconds(timings[v]) if v in timings else "" for v in verbs]
        ratios = [
            f"{timings[v]['median'] / ours[v]['median']:.2f}" if v in timings and name != "mixers" else ""
            for v in verbs
        ]
        differs = f"{report['differences'][name]:.0e}" if name in report["differences"] else ""
        table.add_row(name, *times, *ratios, differs)
    shared.console().print(table)
    if "gbyte_per_second" in report:
        print(
            f"forward of mixers: {report['gbyte_per_second']:.1f} GB/s if every array moves once, "
            f"{report['gflop_per_second']:.1f} GFLOP/s"
        )
    for problem in report["problems"]:
        print(problem)


def _milliseconds(timing):
    return f"{1e3 * timing['median']:.3f} ±{500 * (timing['high'] - timing['low']):.3f}"
