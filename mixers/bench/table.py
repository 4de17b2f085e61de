"""The shapes that speed is judged by, the bars to reach there, and one command that times them all.

``mixers bench ROW`` times one of them alone, ``mixers bench --table`` all of them or some. Each row runs in a process
of its own, so that no library sees the threads of another row's.
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import NamedTuple


class Row(NamedTuple):
    """One line: an op or mixer, its shape, the peers, and the bars.

    `forward` and `second` are how many times slower than us the fastest peer must be; `verb` is what the second bar is
    about. A bar is None where there is none. With `relative_to`, the peer is the op itself at that other shape, and
    the bar is the largest ratio of times per token that is allowed.
    """

    name: str
    shape: str
    against: str
    forward: float | None
    second: float | None
    verb: str = "backward"
    relative_to: str | None = None


def _ahead(name, shape, bar=1.0, against="torch"):
    return Row(name, shape, against, bar, bar)


def _whole(name, shape, against="torch"):
    return _ahead(name, shape, 1.5, against)


_IMAGES, _TOKENS, _FEATURES = "8,14,14,384", "8,1024,256", "16,196,384"

# by the name that `mixers bench` knows a row under; torch has no selective scan, so its mixers are those of mambapy
ROWS = {
    "selective_scan": Row("selective_scan", "b=2,l=1024,c=256,n=16", "jax,mambapy", 8, 15, "both"),
    "selective_scan:long": Row(
        "selective_scan", "b=1,l=65536,c=256,n=16", "", 1.15, 1.15, "both", "b=1,l=1024,c=256,n=16"
    ),
    "linear_scan": Row("linear_scan", "b=4,l=4096,c=512", "jax", 3, 3, "both"),
    "ssd_scan": _ahead("ssd_scan", "b=2,l=1024,h=8,p=64,n=128,g=1", 1.5, "torch,jax"),
    "causal_conv1d": Row("causal_conv1d", "b=4,l=2048,c=512,k=4", "torch", 6, 5),
    "depthwise_conv2d": Row("depthwise_conv2d", "b=16,h=56,w=56,c=96,k=7", "torch", 0.9, 4),
    "depthwise_conv2d:14": Row("depthwise_conv2d", "b=16,h=14,w=14,c=384,k=7", "torch", 1.5, 6),
    "depthwise_conv2d:k3": Row("depthwise_conv2d", "b=16,h=56,w=56,c=96,k=3", "torch", 0.8, 1.2),
    "avg_pool": Row("avg_pool", "b=16,h=56,w=56,c=64", "torch", 2, 4),
    "mlp_mixer": Row("mlp_mixer", "16,196,512", "torch", 1.8, 1.4),
    "dct": Row("dct", "b=16,h=56,w=56,c=64", "ducc0,scipy", 1.3, None),
    "dct:14": Row("dct", "b=16,h=14,w=14,c=384", "ducc0,scipy", 3, None),
    "global_filter:56": Row("global_filter", "16,56,56,64", "torch", 4, 3),
    "long_conv1d": Row("long_conv1d", "b=2,l=8192,c=256", "torch", 6, 10),
    "long_conv1d:ducc0": Row("long_conv1d", "b=2,l=8192,c=256", "ducc0", 3, None),
    "kan_attention": Row("kan_attention", "b=4,n=197,h=3,d=64,g=3,r=12", "torch", 5, 4),
    "hyena": _whole("hyena", _TOKENS),
    "mamba": _whole("mamba", _TOKENS, "mambapy"),
    "mamba2": _whole("mamba2", _TOKENS),
    "vim": _whole("vim", "8,196,384", "mambapy"),
    "ss2d": _whole("ss2d", _IMAGES, "mambapy"),
    "gated_cnn": _whole("gated_cnn", _IMAGES),
    "global_filter": _whole("global_filter", _IMAGES),
    "dynamic_spectrum": _whole("dynamic_spectrum", _IMAGES),
    "gnconv": _whole("gnconv", _IMAGES),
    "lka": _whole("lka", _IMAGES),
    "strip_mlp": _whole("strip_mlp", _IMAGES),
    "mix_shift": _whole("mix_shift", _IMAGES),
    "fourier_karat": Row("fourier_karat", "8,196,384", "torch", 3, 3),
    **{
        name: _ahead(name, _IMAGES)
        for name in (
            *("pool", "raft_mlp", "axial_shift", "spatial_shift_v2", "multi_axis_gmlp", "gmlp", "dct_mixer"),
            *("conv_mixer", "multi_patch_rbf_kan"),
        )
    },
    "kan_bspline": _ahead("kan_bspline", _FEATURES, 3.0),
    **{name: _ahead(name, _FEATURES) for name in ("kan_fourier", "kan_rbf", "s_kan")},
    "karat": _ahead("karat", "4,196,384"),
    "s_conv_kan": _ahead("s_conv_kan", "8,28,28,16"),
}


class Judged(NamedTuple):
    """A row with what was measured: peers, our seconds, ratios and bars, for the forward and the second verb.

    `ratios` are of the fastest peer (`fastest` names it), None where nobody was timed; `met` says whether all bars
    that could be compared are reached.
    """

    label: str
    shape: str
    fastest: tuple
    verb: str
    seconds: tuple
    ratios: tuple
    bars: tuple
    met: bool | None


def chosen(text):
    """Rows by their names, separated by commas; all for an empty text.

    Raises
    ------
    ValueError
        If there is no such row.
    """
    names = [name for name in (text or "").split(",") if name] or list(ROWS)
    for name in names:
        if name not in ROWS:
            raise ValueError(f"--table must name some of {', '.join(ROWS)}, got {name!r}")
    return names


def run(label, threads=None, rounds=7, memory=False, timeout=900):
    """The report of one row, from a process of its own; {"failed": why} if it did not end well."""
    row = ROWS[label]
    command = [sys.executable, "-m", "mixers.cli.main", "bench", row.name, "--shape", row.shape]
    command += ["--backward", "--json", "-", "--rounds", str(rounds)]
    command += ["--against", row.against] if row.against else []
    command += ["--relative-to", row.relative_to] if row.relative_to else []
    command += ["--threads", str(threads)] if threads else []
    command += ["--memory"] if memory else []
    # what another process left half written in PyTorch's cache of kernels would end the row
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": directory}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {timeout} seconds"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def judge(label, report):
    """Compare the report of a row with its bars.

    Returns
    -------
    Judged
    """
    row = ROWS[label]
    verbs, bars = ("forward", row.verb), (row.forward, row.second)
    ours = report["timings"]["mixers"]
    seconds = tuple(ours[verb]["median"] for verb in verbs)
    if row.relative_to:
        ratios = tuple(report["per_token"][verb] for verb in verbs)
        reached = [ratio <= bar for ratio, bar in zip(ratios, bars)]
        return Judged(label, row.shape, ("itself",) * 2, row.verb, seconds, ratios, bars, all(reached))
    fastest, ratios = zip(*(_fastest(report["timings"], verb) for verb in verbs))
    reached = [ratio >= bar for ratio, bar in zip(ratios, bars) if None not in (ratio, bar)]
    met = all(reached) if reached else None
    return Judged(label, row.shape, fastest, row.verb, seconds, ratios, bars, met)


def _fastest(timings, verb):
    """The peer that needs the least time, and its time over ours; (None, None) without peers."""
    times = {n: t[verb]["median"] for n, t in timings.items() if n != "mixers" and verb in t}
    if not times:
        return None, None
    name = min(times, key=times.get)
    return name, times[name] / timings["mixers"][verb]["median"]
