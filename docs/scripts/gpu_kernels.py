"""Ask NVIDIA's compiler what the kernels need, and write docs/gpu_kernels_table.inc.

``python docs/scripts/gpu_kernels.py`` runs every op once at its size for benchmarks, and the ops whose speed is judged
at their own shapes, on a device that only notes the launches; compiles each kernel found (needs nvcc, no GPU);
and writes registers, spills, shared memory and how many warps fit on a multiprocessor.
"""

import concurrent.futures
import functools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy
from tables import row

from mixers import ops, subjects
from mixers.files import replacing

DOCS = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(DOCS.parent / "tests"))

import cuda_emulator  # noqa: E402

ARCHITECTURE = "sm_90"
# of a multiprocessor of that architecture; registers go to a warp in such units
REGISTERS, SHARED, WARPS, BLOCKS, UNIT = 65536, 227 << 10, 64, 32, 256
# what the runtime takes of a block's shared memory
RESERVED = 1024

JUDGED = (
    ("selective_scan", "b=8,l=2048,c=2048,n=16", "float32"),
    ("selective_scan", "b=8,l=2048,c=2048,n=16", "bfloat16"),
    ("ssd_scan", "b=8,l=2048,h=48,p=64,n=128", "bfloat16"),
    ("causal_conv1d", "b=8,l=2048,c=4096,k=4", "float32"),
    ("depthwise_conv2d", "b=64,h=56,w=56,c=96,k=7", "float32"),
    ("depthwise_conv2d", "b=64,h=56,w=56,c=96,k=3", "float32"),
    ("avg_pool", "b=64,h=56,w=56,c=64", "float32"),
    ("dct", "b=64,h=14,w=14,c=384", "float32"),
    ("dct", "b=64,h=56,w=56,c=64", "float32"),
    ("long_conv1d", "b=8,l=8192,c=768", "float32"),
    ("kan_attention", "b=64,n=197,h=3,d=64,g=3,r=12", "float32"),
)
HEADS = ("op", "kernel", "threads", "registers", "spilled, bytes", "shared, KB", "warps on a multiprocessor")


class Needs(NamedTuple):
    """What the compiler says of an entry point."""

    registers: int
    spilled: int
    shared: int


def main():
    seen = {}
    for name, shape, dtype in JUDGED:
        for launch in launches(name, subjects.parse_shape(shape), dtype):
            seen.setdefault(key(launch), (f"{name} {shape} {dtype}", launch))
    judged = set(seen)
    for name in ops.__all__:
        for launch in launches(name, subjects.Shape({}, None), "float32"):
            seen.setdefault(key(launch), (name, launch))
    kernels = list({launch.kernel for _, launch in seen.values()})
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        needs = dict(zip(kernels, pool.map(compiled, kernels)))
    lines = [
        f"{len(kernels)} kernels of {len(ops.__all__)} ops, {ARCHITECTURE}, {compiler()}.",
        f"{sum(n.spilled > 0 for n in needs.values())} of them spill registers.",
        "",
        ".. list-table:: at the judged shapes, and all that spill",
        "   :header-rows: 1",
        "",
        *row(*HEADS),
    ]
    for identity, (label, launch) in seen.items():
        need = needs[launch.kernel]
        if identity in judged or need.spilled:
            lines += row(label, *cells(launch, need))
    with replacing(DOCS / "gpu_kernels_table.inc") as partial:
        partial.write_text("\n".join(lines) + "\n")


def key(launch):
    return launch.kernel, launch.block, launch.shared


def launches(name, shape, dtype):
    """What an op launches on an H200, forward and backward; nothing runs."""
    subject = subjects.find(name, size="bench", shape=shape)
    with cuda_emulator.activate(dry=True) as device:
        device.sm_count, device.compute_capability, device.max_shared = 132, 90, SHARED
        arrays = {n: device.to_device(a) for n, a in subject.cast(dtype).items()}
        # the output serves as its own cotangent; what it holds is no number
        with numpy.errstate(all="ignore"):
            out, saved = subject.forward(arrays)
            subject.backward(out, saved)
        return device.launches


@functools.cache
def compiler():
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return "nvcc " + re.search(r"release ([\d.]+)", text)[1]


def compiled(kernel):
    """Registers, spills and static shared memory of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "kernel.cu"
        file.write_text(kernel.source())
        command = ["nvcc", "-std=c++17", f"-arch={ARCHITECTURE}", "-cubin", "-Xptxas=-v", "-o", "/dev/null"]
        done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True)
    about = done.stderr.split(f"Compiling entry function '{kernel.name}'")[1]
    about = about.split("Compiling entry function")[0]
    number = lambda pattern: int((re.search(pattern, about) or [0, 0])[1])
    stored, loaded = number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes spill loads")
    return Needs(number(r"Used (\d+) registers"), max(stored, loaded), number(r"(\d+) bytes smem"))


def cells(launch, need):
    threads = int(numpy.prod(launch.block))
    shared = need.shared + launch.shared
    return (
        launch.kernel.name,
        threads,
        need.registers,
        need.spilled,
        f"{shared / 1024:.1f}",
        resident(need, threads, shared),
    )


def resident(need, threads, shared):
    """Warps of a kernel that fit on a multiprocessor, of 64."""
    warps = -(-threads // 32)
    of_warp = -(-need.registers * 32 // UNIT) * UNIT
    blocks = min(BLOCKS, WARPS // warps, REGISTERS // (of_warp * warps), SHARED // (shared + RESERVED))
    return blocks * warps


if __name__ == "__main__":
    main()
