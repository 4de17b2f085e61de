"""Time the shapes that the README and docs/performance.rst show, and write their tables.

``python docs/scripts/performance.py [--threads N] [--only ROWS]`` runs ``mixers bench --table``, keeps what it found
in docs/data/performance.json and writes the tables from there; it needs the peers (``pip install
"token-mixers[peers]"``), a quiet machine, and half an hour. ``--render`` writes the tables again without measuring.
"""

import argparse
import json
import pathlib
import platform
import re
import subprocess
import sys

from tables import row

from mixers.bench import table
from mixers.files import replacing

DOCS = pathlib.Path(__file__).parent.parent
README = DOCS.parent / "README.md"
DATA = DOCS / "data" / "performance.json"
HEADS = (
    "",
    "shape",
    "fastest of the others",
    "ours, ms",
    "forward",
    "bar",
    "second",
    "ratio",
    "bar",
    "",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--rounds", default="7")
    parser.add_argument("--only", default="", metavar="ROWS", help="rows to time, separated by commas")
    parser.add_argument("--render", action="store_true", help="do not measure")
    arguments = parser.parse_args()
    if not arguments.render:
        measure(arguments)
    reports = json.loads(DATA.read_text())
    machine = reports.pop("machine")
    reports = {label: reports[label] for label in table.ROWS if label in reports}
    with replacing(DOCS / "performance_table.inc") as partial:
        partial.write_text("\n".join(rst(machine, reports)) + "\n")
    text = re.sub(
        r"(<!-- speed -->\n).*?(<!-- /speed -->)",
        lambda m: m[1] + "\n".join(markdown(reports)) + "\n" + m[2],
        README.read_text(),
        flags=re.DOTALL,
    )
    with replacing(README) as partial:
        partial.write_text(text)


def measure(arguments):
    command = [sys.executable, "-m", "mixers.cli.main", "bench", "--table", arguments.only, "--memory"]
    command += ["--threads", arguments.threads, "--rounds", arguments.rounds, "--json", str(DATA)]
    DATA.parent.mkdir(exist_ok=True)
    subprocess.run(command, check=True)
    reports = json.loads(DATA.read_text()) | {"machine": machine()}
    with replacing(DATA) as partial:
        partial.write_text(json.dumps(reports, indent=1) + "\n")


def machine():
    """The processor, as far as the system tells."""
    known = pathlib.Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {platform.system()}"


def lines_of(reports):
    """The cells of every row, under HEADS."""
    for label, report in reports.items():
        if "failed" in report:
            yield label, table.ROWS[label].shape, f"failed: {report['failed'][:60]}", *[""] * 7
            continue
        judged = table.judge(label, report)
        yield (
            label,
            judged.shape,
            " / ".join(dict.fromkeys(name for name in judged.fastest if name)),
            " / ".join(f"{1e3 * seconds:.2f}" for seconds in judged.seconds),
            number(judged.ratios[0]),
            number(judged.bars[0]),
            judged.verb,
            number(judged.ratios[1]),
            number(judged.bars[1]),
            {True: "met", False: "not met", None: ""}[judged.met],
        )


def memory_lines(reports):
    """Peak memory of forward and backward together, ours and the least of the others, in MB."""
    for label, report in reports.items():
        peaks = {n: p["both"] / 1e6 for n, p in report.get("memory", {}).items() if "both" in p}
        ours = peaks.pop("mixers", None)
        if ours and peaks:
            least = min(peaks, key=peaks.get)
            yield label, f"{ours:.1f}", least, f"{peaks[least]:.1f}"


def rate_lines(reports):
    """Rates of the forward and their fractions of the ceilings."""
    for label, report in reports.items():
        if "fraction_of_copy" in report:
            yield (
                label,
                f"{report['gbyte_per_second']:.1f}",
                f"{100 * report['fraction_of_copy']:.0f} %",
                f"{report['gflop_per_second']:.1f}",
                f"{100 * report['fraction_of_fma']:.0f} %",
            )


def rst(machine, reports):
    dates = sorted({report["date"] for report in reports.values() if "date" in report})
    threads = sorted({str(report["threads"]) for report in reports.values() if "threads" in report})
    yield from (
        f"{machine}; {' and '.join(threads)} threads; {' to '.join(dates[:: max(len(dates) - 1, 1)])}.",
        "",
    )
    yield from rst_table("Their time over ours", HEADS, lines_of(reports))
    heads = ("", "GB/s", "of copying", "GFLOP/s", "of multiply-adds")
    yield from rst_table(
        "Forward: rates, and what they are of the machine's ceilings", heads, rate_lines(reports)
    )
    heads = ("", "ours", "least of the others", "theirs")
    yield from rst_table("Peak memory of forward and backward, MB", heads, memory_lines(reports))


def rst_table(title, heads, lines):
    lines = list(lines)
    if lines:
        yield from (f".. list-table:: {title}", "   :header-rows: 1", "")
        for line in (heads, *lines):
            yield from row(*line)
        yield ""


def markdown(reports):
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + "---|" * len(HEADS)
    for line in lines_of(reports):
        yield "| " + " | ".join(line) + " |"


def number(value):
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
