"""What is timed: the same computation by us and by others, as calls without arguments."""

import importlib
import os
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import numpy

import mixers
from mixers import samples

# fields of a contender that can be timed
VERBS = ("forward", "backward", "both")


class Contender(NamedTuple):
    """One library's way. A call is None where the library cannot do this alone, or at all.

    `forward` keeps nothing, `backward` starts from a forward made ahead, `both` is one after the other;
    `output` and `gradient` (by the first array) return NumPy arrays, for a comparison before the race.
    """

    name: str
    forward: Callable
    backward: Callable | None
    both: Callable | None
    output: Callable
    finish: Callable = lambda: None


def ours(subject, backend, backward):
    """This library as a contender."""
    subject = subject.move(backend)
    call = lambda: subject.call(subject.arrays)
    finish = _synchronize if backend == "gpu" else lambda: None
    host = lambda: _host(first(call()))
    if not backward:
        return Contender("mixers", call, None, None, host, finish)
    out, saved = subject.forward(subject.arrays)
    dout = samples.cotangent(out)

    def both():
        _, kept = subject.forward(subject.arrays)
        subject.backward(dout, kept)

    return Contender("mixers", call, lambda: subject.backward(dout, saved, keep=True), both, host, finish)


def peers(names, subject, backend, backward, threads):
    """The contenders of other libraries.

    Parameters
    ----------
    names : list of str
        Modules of :mod:`mixers.bench.peers`.

    Returns
    -------
    found : list of Contender
    problems : list of str
        One line for each that is not installed or does not have this computation.
    """
    found, problems = [], []
    for name in names:
        if name not in known():
            raise ValueError(f"--against must name some of {', '.join(known())}, got {name!r}")
        module = importlib.import_module(f"mixers.bench.peers.{name}")
        try:
            contenders = module.contenders(subject, backend, backward, threads)
        except ImportError as error:
            problems.append(f"{name}: not installed ({error.name or error}); pip install {module.INSTALL}")
            continue
        found += contenders
        if not contenders:
            problems.append(f"{name}: has no {subject.name} on the {backend} backend")
    return found, problems


def known():
    """Names of the peers that there is a file for."""
    package = importlib.import_module("mixers.bench.peers")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def difference(one, other):
    """Largest deviation between two contenders' outputs, relative to the largest value."""
    a, b = one.output().astype(numpy.float64), other.output().astype(numpy.float64)
    if a.shape != b.shape:
        raise ValueError(f"{other.name}: output has shape {b.shape}, ours {a.shape}")
    return float(numpy.abs(a - b).max() / max(numpy.abs(a).max(), 1e-300))


def first(out):
    """The first output."""
    return out[0] if isinstance(out, tuple) else out


def _host(array):
    return array if isinstance(array, numpy.ndarray) else array.get()


def _synchronize():
    import cupy

    cupy.cuda.get_current_stream().synchronize()


def set_threads(count):
    """Let this process use `count` processors: ours by name, other libraries by affinity where there is one.

    Returns
    -------
    int
        The number that are used; None asks for all that the process has.
    """
    if hasattr(os, "sched_setaffinity"):
        chosen = sorted(os.sched_getaffinity(0))[:count]
        os.sched_setaffinity(0, chosen)
        count = len(chosen)
    count = count or os.cpu_count()
    mixers.set_num_threads(count)
    return count
