"""One comparison: the same computation by us and by others, timed in turn, with rates and memory."""

import datetime

from mixers.bench import ceilings, contender, memory
from mixers.bench.timing import alternate
from mixers.op import Op


def compare(subject, backend="cpu", against=(), backward=False, threads=1, rounds=7, report=lambda: None):
    """Time a subject, alone or against peers.

    Parameters
    ----------
    subject : mixers.subjects.Subject
    backend : {"reference", "cpu", "gpu"}
    against : list of str
        Names of :func:`mixers.bench.contender.known`.
    backward : bool
        Also time the backward, and forward and backward.
    threads : int
        Of the peers; ours are set already (:func:`mixers.bench.contender.set_threads`).
    rounds : int
        Blocks of each call.
    report : callable
        Called after every block.

    Returns
    -------
    dict
        What ``mixers bench --json`` prints, times in seconds, without the memory.
    """
    ours = contender.ours(subject, backend, backward)
    others, problems = contender.peers(against, subject, backend, backward, threads)
    differences = {other.name: contender.difference(ours, other) for other in others}
    timings = _race([ours, *others], rounds, report)
    return {
        "name": subject.name,
        "backend": backend,
        "dtype": subject.arrays[subject.inputs[0]].dtype.name,
        "shapes": {n: list(a.shape) for n, a in subject.arrays.items()},
        "threads": threads,
        "date": datetime.date.today().isoformat(),
        "timings": {name: {v: t._asdict() for v, t in verbs.items()} for name, verbs in timings.items()},
        "differences": differences,
        "problems": problems,
        **(_saved_bytes(subject.move(backend)) if backward else {}),
        **_rates(subject, backend, timings["mixers"]["forward"].median),
    }


def add_memory(report, request, against):
    """Add the peak memory of every contender of a report, bytes by contender and verb, as "memory"."""
    if report["backend"] != "cpu" or not memory.available():
        report["problems"].append("memory: measured on the cpu backend of a Linux system only")
        return
    names = {name: _module(name, against) for name in report["timings"]}
    report["memory"] = memory.measure(request, names)
    missing = [name for name in names if name not in report["memory"]]
    report["problems"] += [f"memory: the process of {name} failed" for name in missing]


def _module(name, against):
    # contenders are called after their module: "torch", "torch compile"
    return next((peer for peer in against if name.split()[0] == peer), None)


def _race(contenders, rounds, report):
    """Timings by contender and verb; the contenders of one verb take turns."""
    found = {c.name: {} for c in contenders}
    for verb in contender.VERBS:
        calls = {c.name: call for c in contenders if (call := getattr(c, verb)) is not None}
        if "mixers" not in calls:
            continue

        def finish():
            for c in contenders:
                c.finish()

        for name, timing in alternate(calls, rounds, finish, report).items():
            found[name][verb] = timing
    return found


def _rates(subject, backend, seconds):
    """Rates of the forward by the op's cost model, and as fractions of what the processor can do."""
    cost = subject.cost()
    if cost is None:
        return {}
    flops, moved = (count / seconds for count in cost)
    rates = {"gflop_per_second": flops / 1e9, "gbyte_per_second": moved / 1e9}
    if backend == "cpu":
        rates["fraction_of_copy"] = moved / ceilings.copy_rate(cost[1])
        rates["fraction_of_fma"] = flops / ceilings.fma_rate(subject.arrays[subject.inputs[0]].dtype)
    return rates


def per_token(subject, other, backend="cpu", backward=False, rounds=7):
    """Our time per value of the first array, over that of another shape of the same op: 1 if cost is linear.

    Returns
    -------
    dict of str to float
        By verb.
    """
    ours = contender.ours(subject, backend, backward)
    theirs = contender.ours(other, backend, backward)._replace(name="other")
    found = _race([ours, theirs], rounds, lambda: None)
    sizes = [s.arrays[s.inputs[0]].size for s in (subject, other)]
    return {
        verb: timing.median / sizes[0] * sizes[1] / found["other"][verb].median
        for verb, timing in found["mixers"].items()
    }


def _saved_bytes(subject):
    """What an op keeps for its backward besides its arguments."""
    if not isinstance(subject.of, Op):
        return {}
    saved = subject.forward(subject.arrays)[1]
    return {"saved_bytes": sum(getattr(getattr(saved, n), "nbytes", 0) for n in subject.of.saves)}
