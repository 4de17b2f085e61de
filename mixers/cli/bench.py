"""Time a mixer or op, alone or against other libraries on the same inputs.

All contenders run in one process and take turns, block by block; each block is warmed up. Times are
medians over the blocks, with half the range as spread. A ratio is the other library's time over ours: above
1 we are faster. Before the race the outputs are compared (column "differs": relative to the largest value).
Rates are those of the op's cost model; beside them stands how much that is of what copying and multiply-adds
reach on this machine.

NAME may also be a row of the table by which speed is judged (docs/performance.rst), as dct:14; without
--shape it gets the row's shape. --table runs those rows and prints the bars beside the ratios."""

import json
import pathlib

from mixers import subjects
from mixers.bench import contender, race, table
from mixers.cli import shared
from mixers.files import replacing

EXAMPLES = """\
examples:
  mixers bench avg_pool
  mixers bench selective_scan --shape b=2,l=1024,c=256 --backward --against torch jax mambapy --threads 2
  mixers bench hyena --shape 8,1024,256 --backward --against torch --memory --json hyena.json
  mixers bench --table --threads 2 --json table.json
  mixers bench --table dct,dct:14"""


def add_arguments(parser):
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a mixer or op (`mixers list` names all), or a row"
    )
    parser.add_argument(
        "--table",
        nargs="?",
        const="",
        metavar="ROWS",
        help="run rows of the table, separated by commas (default: all), each in its own process",
    )
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
    parser.add_argument(
        "--relative-to", metavar="SHAPE", help="compare the time per token with that at another shape"
    )
    parser.add_argument(
        "--memory", action="store_true", help="also the peak memory of each, in a new process (Linux, cpu)"
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processors to use (default: all of the process)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each call (default: %(default)s)")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write a JSON object, times in seconds, instead of the text (default FILE: -, standard output)",
    )
    parser.set_defaults(parser=parser)


def run(arguments):
    for name in ("threads", "rounds"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    if (arguments.table is None) == (arguments.name is None):
        arguments.parser.error("give either NAME or --table")
    if arguments.table is not None:
        _run_table(arguments)
        return
    report = _report(arguments)
    if arguments.json is None:
        _print(report)
    else:
        _write(arguments.json, report)


def _write(file, report):
    if file == "-":
        print(json.dumps(report))
        return
    with replacing(file) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n")


def _report(arguments):
    # before any other library looks at how many processors there are
    threads = contender.set_threads(arguments.threads)
    row = table.ROWS.get(arguments.name)
    name = row.name if row else arguments.name
    shape = arguments.shape or (row.shape if row else "")
    config = shared.parse_config(arguments.config)
    draw = lambda shape: subjects.find(
        name, "bench", arguments.dtype, shape=subjects.parse_shape(shape), **config
    )
    subject = draw(shape)
    against = [name for text in arguments.against for name in text.split(",") if name]
    with shared.chosen_backend(arguments.backend), shared.progress() as bar:
        task = bar.add_task("timing", total=None)
        step = lambda: bar.advance(task)
        report = race.compare(
            subject, arguments.backend, against, arguments.backward, threads, arguments.rounds, step
        )
        if arguments.relative_to:
            other = draw(arguments.relative_to)
            report["per_token"] = race.per_token(
                subject, other, arguments.backend, arguments.backward, arguments.rounds
            )
    if arguments.memory:
        request = {"name": name, "dtype": arguments.dtype, "shape": shape, "config": config}
        race.add_memory(report, request | {"threads": threads, "backward": arguments.backward}, against)
    return report


def _run_table(arguments):
    """Run rows; a file of --json keeps the rows that are not run now, and is written after each."""
    labels, reports = table.chosen(arguments.table), {}
    file = pathlib.Path(arguments.json or "-")
    if str(file) != "-" and file.exists():
        reports = json.loads(file.read_text())
    with shared.progress() as bar:
        task = bar.add_task("rows", total=len(labels))
        for label in labels:
            bar.update(task, description=label)
            reports[label] = table.run(label, arguments.threads, arguments.rounds, arguments.memory)
            bar.advance(task)
            if str(file) != "-":
                _write(str(file), reports)
    if arguments.json == "-":
        print(json.dumps(reports))
    else:
        _print_table({label: reports[label] for label in labels})


def _print_table(reports):
    shown = shared.table(
        "", "shape", "fastest", ">ours ms", ">forward", ">bar", "second", ">ratio", ">bar", ""
    )
    problems = []
    for label, report in reports.items():
        if "failed" in report:
            problems.append(f"{label}: {report['failed']}")
            continue
        judged = table.judge(label, report)
        problems += [f"{label}: {problem}" for problem in report["problems"]]
        fastest = " / ".join(dict.fromkeys(name for name in judged.fastest if name))
        shown.add_row(
            label,
            judged.shape,
            fastest,
            " / ".join(f"{1e3 * s:.2f}" for s in judged.seconds),
            *_ratio_and_bar(judged, 0),
            judged.verb,
            *_ratio_and_bar(judged, 1),
            {True: "met", False: "NOT MET", None: ""}[judged.met],
        )
    shared.console().print(shown)
    for problem in problems:
        print(problem)


def _ratio_and_bar(judged, i):
    return [f"{value:.2f}" if value is not None else "" for value in (judged.ratios[i], judged.bars[i])]


def _print(report):
    shapes = ", ".join(f"{n} {'x'.join(map(str, s)) or 'scalar'}" for n, s in report["shapes"].items())
    print(f"{report['name']} {report['dtype']} on {report['backend']}, {report['threads']} threads: {shapes}")
    ours = report["timings"]["mixers"]
    verbs, memory = list(ours), report.get("memory", {})
    shown = shared.table(
        "",
        *(f">{verb} ms" for verb in verbs),
        *(f">{verb} ratio" for verb in verbs),
        *(f">{verb} MB" for verb in verbs if memory),
        ">differs",
    )
    for name, timings in report["timings"].items():
        times = [_milliseconds(timings[v]) if v in timings else "" for v in verbs]
        ratios = [
            f"{timings[v]['median'] / ours[v]['median']:.2f}" if v in timings and name != "mixers" else ""
            for v in verbs
        ]
        peaks = [_megabytes(memory.get(name, {}).get(v)) for v in verbs if memory]
        differs = f"{report['differences'][name]:.0e}" if name in report["differences"] else ""
        shown.add_row(name, *times, *ratios, *peaks, differs)
    shared.console().print(shown)
    for line in _remarks(report):
        print(line)


def _remarks(report):
    """What the table has no column for."""
    if "gbyte_per_second" in report:
        copy, fma = (_percent(report, limit) for limit in ("copy", "fma"))
        yield (
            f"forward of mixers: {report['gbyte_per_second']:.1f} GB/s if every array moves once{copy}, "
            f"{report['gflop_per_second']:.1f} GFLOP/s{fma}"
        )
    if report.get("saved_bytes"):
        yield f"kept for the backward besides the arguments: {_megabytes(report['saved_bytes'])} MB"
    for verb, ratio in report.get("per_token", {}).items():
        yield f"{verb}: {ratio:.2f} times the time per token of the other shape"
    yield from report["problems"]


def _percent(report, limit):
    fraction = report.get(f"fraction_of_{limit}")
    what = {"copy": "copying", "fma": "multiply-adds"}[limit]
    return "" if fraction is None else f" ({100 * fraction:.0f} % of {what})"


def _milliseconds(timing):
    return f"{1e3 * timing['median']:.3f} ±{500 * (timing['high'] - timing['low']):.3f}"


def _megabytes(count):
    return "" if count is None else f"{count / 1e6:.1f}"
