"""Peak memory of one call, of us or of a peer, in a process of its own.

Python's tracemalloc does not see what C libraries allocate, and the peak of a process never falls, so each contender
gets a new process. It draws the arguments, makes one call to compile and to fill caches, gives free memory back to the
system, lets Linux forget the peak of the resident memory (``/proc/self/clear_refs``), calls once more and reads the
new peak (``VmHWM``). The figure is what the call adds to the memory before it: output, temporaries, and what is kept
for the backward. Arguments are not counted; the figure of "backward" does not count what its forward kept, that of
"both" does.
"""

import ctypes
import gc
import json
import os
import pathlib
import subprocess
import sys

from mixers import subjects
from mixers.bench import contender
from mixers.cpu import memory

_STATUS = pathlib.Path("/proc/self/status")


def available():
    """Whether this system tells the peak of a process and can forget it."""
    return _STATUS.exists() and os.access("/proc/self/clear_refs", os.W_OK)


def measure(request, names, timeout=600):
    """Peak memory of contenders.

    Parameters
    ----------
    request : dict
        The arguments of :func:`mixers.subjects.find` ("name", "dtype", "shape" as text, "config"), and "threads" and
        "backward".
    names : dict of str to str or None
        By the name of each contender, the module of :mod:`mixers.bench.peers` that makes it; None for ours.
    timeout : float
        Seconds for each process.

    Returns
    -------
    dict of str to dict
        Bytes by contender and verb; without the contenders whose process failed.
    """
    found = {}
    for name, peer in names.items():
        text = json.dumps({**request, "contender": name, "peer": peer})
        command = [sys.executable, "-m", "mixers.bench.memory"]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def added_by(call):
    """Bytes that the resident memory rises above its present size while `call` runs."""
    call()
    gc.collect()
    memory.release()
    # not every C library has it
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)
    before = _kilobytes("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    call()
    return 1024 * max(_kilobytes("VmHWM") - before, 0)


def _kilobytes(field):
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main():
    request = json.load(sys.stdin)
    threads = contender.set_threads(request["threads"])
    shape = subjects.parse_shape(request["shape"])
    subject = subjects.find(request["name"], "bench", request["dtype"], shape=shape, **request["config"])
    if request["peer"] is None:
        found = [contender.ours(subject, "cpu", request["backward"])]
    else:
        found, _ = contender.peers([request["peer"]], subject, "cpu", request["backward"], threads)
    (chosen,) = (c for c in found if c.name == request["contender"])
    calls = {verb: getattr(chosen, verb) for verb in contender.VERBS}
    print(json.dumps({verb: added_by(call) for verb, call in calls.items() if call is not None}))


if __name__ == "__main__":
    main()
