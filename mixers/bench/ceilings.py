"""What this machine can do at best, measured: the speed of copying and of fused multiply-adds.

A rate from an op's cost model says little alone; as a fraction of these it says how much there is to gain.
Both run on the threads of the library, with its own vectors, and are measured once per process.
"""

import functools
import time

import numpy

from mixers.cpu import aligned
from mixers.cpu.runner import get_num_threads, kernel, run, tasks
from mixers.cpu.simd import REGISTERS, full, lanes, load, mul_add, store, sum_lanes, tile

# the best of many short repetitions: a ceiling is what the machine reaches when nobody disturbs it
_SECONDS = 0.15
_TASKS = 32
# bytes of the working sets between which the caches hold or do not hold a copy
_SMALLEST, _LARGEST = 1 << 16, 1 << 28
# independent sums, enough to hide the latency of four cycles on two units; steps of one task
_SUMS, _STEPS = 12 if REGISTERS == 16 else 24, 4000


@kernel
def _copy(x, y, size, counter):
    for task in tasks(counter):
        for i in range(task * size, (task + 1) * size, lanes(x)):
            store(y, i, load(x, i))


@kernel
def _multiply_add(sums, steps, counter):
    for task in tasks(counter):
        total = tile(sums, _SUMS)
        factor, term = full(sums, 0.999), full(sums, 0.001)
        for i in range(_SUMS):
            total[i] = full(sums, i)
        for _ in range(steps):
            for i in range(_SUMS):
                total[i] = mul_add(total[i], factor, term)
        for i in range(1, _SUMS):
            total[0] = total[0] + total[i]
        sums[task] = sum_lanes(total[0])


def copy_rate(moved):
    """Bytes per second, read and written, of copying.

    Parameters
    ----------
    moved : int
        Bytes that the op to be judged moves: the copy has a working set of that size, to the next power of two, so
        that it finds the same caches.
    """
    size = 1 << max(int(moved) - 1, 1).bit_length()
    return _copy_rate(min(max(size, _SMALLEST), _LARGEST), get_num_threads())


def fma_rate(dtype):
    """Floating operations per second of multiply-adds in registers, two for each."""
    return _fma_rate(numpy.dtype(dtype).name, get_num_threads())


@functools.cache
def _copy_rate(size, threads):
    count = size // 2 // 4
    x, y = aligned.zeros(count, "float32"), aligned.zeros(count, "float32")
    return size / _best(lambda: run(_copy, _TASKS, x, y, count // _TASKS))


@functools.cache
def _fma_rate(dtype, threads):
    sums = aligned.zeros(_TASKS, dtype)
    flops = 2 * _TASKS * _STEPS * _SUMS * lanes(sums)
    return flops / _best(lambda: run(_multiply_add, _TASKS, sums, _STEPS))


def _best(call):
    call()
    best, end = numpy.inf, time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - start)
    return best
