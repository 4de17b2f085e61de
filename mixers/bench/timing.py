"""Calls that take turns, so that a machine that slows down slows all of them."""

import statistics
import time
from typing import NamedTuple

# a block is warmed up for this long, then timed for about as long again
WARMUP, BLOCK = 0.03, 0.03


class Timing(NamedTuple):
    """Seconds per call: the median over the blocks, and the lowest and highest."""

    median: float
    low: float
    high: float


def alternate(calls, rounds=7, finish=lambda: None, report=lambda: None):
    """Time several calls in turn.

    Parameters
    ----------
    calls : dict of str to callable
        Taking nothing.
    rounds : int
        Blocks of each call.
    finish : callable
        Waits until what was started has ended (a GPU's queue); part of the time of a block.
    report : callable
        Called after every block, for a progress bar.

    Returns
    -------
    dict of str to Timing

    Examples
    --------
    >>> found = alternate({"a": lambda: None}, rounds=1)
    >>> found["a"].low <= found["a"].median <= found["a"].high
    True
    """
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_block(call, finish))
            report()
    return {name: Timing(statistics.median(t), min(t), max(t)) for name, t in times.items()}


def _block(call, finish):
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < WARMUP:
        call()
        finish()
        count += 1
    # as many calls as fill the block, at the pace of the warm-up
    count = max(1, round(count * BLOCK / WARMUP))
    start = time.perf_counter()
    for _ in range(count):
        call()
    finish()
    return (time.perf_counter() - start) / count
