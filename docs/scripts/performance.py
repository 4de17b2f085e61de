"""Time the shapes that the README and docs/performance.rst show.

``python docs/scripts/performance.py [--threads N]`` runs ``mixers bench`` for each and writes both tables; it
needs the peers (``pip install "token-mixers[peers]"``), a quiet machine, and some minutes.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

from tables import row

from mixers.files import replacing

DOCS = pathlib.Path(__file__).parent.parent
README = DOCS.parent / "README.md"

# name, shape, peers
CASES = (
    ("selective_scan", "b=2,l=1024,c=256,n=16", "jax,mambapy"),
    ("linear_scan", "b=4,l=4096,c=512", "jax"),
    ("causal_conv1d", "b=4,l=2048,c=512,k=4", "torch"),
    ("depthwise_conv2d", "b=16,h=56,w=56,c=96,k=7", "torch"),
    ("depthwise_conv2d", "b=16,h=14,w=14,c=384,k=7", "torch"),
    ("depthwise_conv2d", "b=16,h=56,w=56,c=96,k=3", "torch"),
    ("avg_pool", "b=16,h=56,w=56,c=64", "torch"),
    ("dct", "b=16,h=56,w=56,c=64", "ducc0,scipy"),
    ("dct", "b=16,h=14,w=14,c=384", "ducc0,scipy"),
    ("long_conv1d", "b=2,l=8192,c=256", "torch,ducc0"),
    ("kan_attention", "b=4,n=197,h=3,d=64,g=3,r=12", "torch"),
    ("pool", "8,56,56,64", "torch"),
    ("mlp_mixer", "16,196,512", "torch"),
    *((name, "8,14,14,384", "torch") for name in ("mix_shift", "axial_shift", "spatial_shift_v2")),
    *((name, "8,14,14,384", "torch") for name in ("strip_mlp", "raft_mlp", "multi_axis_gmlp", "gmlp")),
    ("gated_cnn", "8,14,14,384", "torch"),
    ("hyena", "8,1024,256", "torch"),
    ("mamba", "8,1024,256", "mambapy"),
    ("fourier_karat", "4,197,192", "torch"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--only", default="", help="names to time, separated by commas")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.only or case[0] in arguments.only.split(",")]
    reports = [bench(*case, arguments.threads) for case in chosen]
    with replacing(DOCS / "performance_table.inc") as partial:
        partial.write_text("\n".join(rst(reports)) + "\n")
    text = re.sub(
        r"(<!-- speed -->\n).*?(<!-- /speed -->)",
        lambda m: m[1] + "\n".join(markdown(reports)) + "\n" + m[2],
        README.read_text(),
        flags=re.DOTALL,
    )
    with replacing(README) as partial:
        partial.write_text(text)


def bench(name, shape, against, threads):
    """The report of one `mixers bench`, in a process of its own."""
    print(name, shape, flush=True)
    command = [sys.executable, "-m", "mixers.cli.main", "bench", name, "--shape", shape, "--against", against]
    command += ["--backward", "--json", "--threads", threads]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report | {"shape": shape}


def lines_of(report):
    """(name, shape, peer, our times, ratios) for every peer of a report."""
    ours = report["timings"]["mixers"]
    times = " / ".join(f"{1e3 * ours[verb]['median']:.2f}" for verb in ("forward", "backward"))
    for peer, theirs in report["timings"].items():
        if peer != "mixers":
            ratios = (
                f"{theirs[verb]['median'] / ours[verb]['median']:.1f}" if verb in theirs else "-"
                for verb in ("forward", "backward", "both")
            )
            yield report["name"], report["shape"], peer, times, *ratios


HEADS = ("", "shape", "against", "ours, ms forward / backward", "forward", "backward", "both")


def rst(reports):
    yield from (".. list-table:: Their time over ours", "   :header-rows: 1", "")
    yield from row(*HEADS)
    for report in reports:
        for line in lines_of(report):
            yield from row(*line)


def markdown(reports):
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + "---|" * len(HEADS)
    for report in reports:
        for line in lines_of(report):
            yield "| " + " | ".join(line) + " |"


if __name__ == "__main__":
    main()
