"""Kernels, and the threads that run them.

A kernel is a serial compiled function that releases the GIL. Its work is cut into tasks of a size that
does not depend on the number of threads, and every thread that runs it claims the next free task from a
shared counter::

    @kernel
    def scale(x, y, size, counter):
        for task in tasks(counter):
            for i in range(task * size, (task + 1) * size):
                y[i] = 2 * x[i]

    run(scale, 16, x, y, size)

So the result does not depend on the threads, several Python threads may run kernels at once, and a process
that forks keeps working. The rules for a kernel: its last argument is the counter; it writes to its
arguments only inside the loop over the tasks, and each task writes what no other task touches; a body
never leaves the loop early (``continue`` is fine).
"""

import _thread
import os
import queue
import threading

import numba
import numpy
from llvmlite import ir
from numba import types
from numba._dispatcher import compute_fingerprint
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic

from mixers.cpu import cache

# elementary operations (about 0.1 ns each) below which waking a second thread costs more than it brings
SMALL_WORK = 500_000

# fields of the counter, in different cache lines
_NEXT, _FINISHED, _TASKS, _COUNTER_SIZE = 0, 8, 16, 24

# pauses of the caller before it sleeps until the last worker is done: about 50 microseconds
_SPINS = 1500

# of everything that is compiled: fused multiply-adds are welcome, NaN and Inf are respected
OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
INLINED = {**OPTIONS, "forceinline": True}

# half of the time it takes to compile a small function is for the ways to call it from Python and from C
_INTERNAL = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

kernels = []


def kernel(function):
    """Compile a function for :func:`run`: releases the GIL, kept on disk, NaN and Inf respected."""
    compiled = numba.njit(nogil=True, no_cfunc_wrapper=True, **OPTIONS)(function)
    cache.enable(compiled)
    kernels.append(compiled)
    return compiled


def helper(function):
    """Compile a function that becomes part of the kernels that call it, at the place of the call.

    Its arguments and results may be vectors (:mod:`mixers.cpu.simd`). It allocates and returns no arrays.
    """
    # without reference counts: the arrays are the kernel's, and where the helper branches counting them
    # would cost more than the work
    compiled = numba.njit(_nrt=False, **INLINED, **_INTERNAL)(function)
    compiled.__class__ = _Inside
    return compiled


def routine(function):
    """Compile a function for kernels that is too large to be repeated wherever it is called.

    Its arguments should be arrays and numbers: vectors would travel through memory. Constants are passed
    like any other number, whereas a helper is compiled for each of them.
    """
    compiled = numba.njit(**OPTIONS, **_INTERNAL)(function)
    compiled.__class__ = _Routine
    return compiled


class _Inside(CPUDispatcher):
    """A function that is compiled into kernels only: without a wrapper of its own, calling one would crash."""

    def __call__(self, *args):
        # what takes no vectors runs as plain Python
        return self.py_func(*args)


class _Routine(_Inside):
    def get_call_template(self, args, kws):
        return super().get_call_template([types.unliteral(arg) for arg in args], kws)


_Pointer = types.CPointer(types.int64)


@intrinsic
def _address(typing, array):
    def generate(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return _Pointer(array), generate


@intrinsic
def _add(typing, pointer, index):
    """Add one to a field atomically and return what it was."""

    def generate(context, builder, signature, args):
        field = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", field, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(_Pointer, types.int64), generate


@intrinsic
def _read(typing, pointer, index):
    def generate(context, builder, signature, args):
        return builder.load_atomic(builder.gep(args[0], [args[1]]), ordering="acquire", align=8)

    return types.int64(_Pointer, types.int64), generate


@intrinsic
def _pause(typing):
    """Tell the processor that this is a waiting loop."""

    def generate(context, builder, signature, args):
        if builder.module.triple.startswith(("x86_64", "i686")):
            name, kind = "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@helper
def _claims(pointer):
    while True:
        task = _add(pointer, _NEXT)
        if task >= _read(pointer, _TASKS):
            break
        yield task
        _add(pointer, _FINISHED)


@helper
def tasks(counter):
    """The numbers of the tasks that this thread gets: ``for task in tasks(counter)``.

    Going on to the next task reports the last one as finished.
    """
    # by address: Numba never frees an array that is an argument of a generator
    return _claims(_address(counter))


@kernel
def _all_finished(counter, spins):
    """Wait for a moment until all tasks are finished; say whether they are."""
    pointer = _address(counter)
    for _ in range(spins):
        if _read(pointer, _FINISHED) >= counter[_TASKS]:
            return True
        _pause()
    return _read(pointer, _FINISHED) >= counter[_TASKS]


def _counter(count):
    counter = numpy.zeros(_COUNTER_SIZE, numpy.int64)
    counter[_TASKS] = count
    return counter


def run(kernel, count, *args, work=None):
    """Run `count` tasks of a kernel on the threads of the library and wait for them.

    Parameters
    ----------
    kernel : function
        Made by :func:`kernel`; called as ``kernel(*args, counter)`` on several threads at once.
    count : int
        Number of tasks, best 16 to 200. Nothing happens at 0.
    args
        Arrays, numbers and tuples of them.
    work : float, optional
        Rough number of elementary operations (values read, written or computed, about 0.1 ns each) of
        the whole call. Below ``SMALL_WORK`` everything runs on the calling thread.

    Raises
    ------
    Whatever a task raises, once no thread works on this call any more.
    """
    if count <= 0:
        return
    counter = _counter(count)
    others = min(_threads, count) - 1
    if others < 1 or (work is not None and work < SMALL_WORK):
        kernel(*args, counter)
        return
    args = (*args, counter)
    _compile(kernel, args)
    jobs = [_Job(kernel, args) for _ in range(others)]
    _pool.put(jobs)
    finished = False
    try:
        kernel(*args)
        finished = _all_finished(counter, _SPINS)
    finally:
        # a worker that has not begun is called off; one that has is waited for if it may still write
        begun = [job for job in jobs if not job.start.acquire(False)]
        if not finished:
            for job in begun:
                job.done.acquire()
    for job in begun:
        if not finished and job.error is not None:
            raise job.error


_compiled = set()


def _compile(kernel, args):
    # never in a worker: it could deadlock between Numba's compiler lock and the import lock
    if not isinstance(kernel, Dispatcher):
        return
    key = kernel, compute_fingerprint(args)
    if key not in _compiled:
        kernel(*args[:-1], _counter(0))
        _all_finished(_counter(0), 0)
        _compiled.add(key)


class _Job:
    """One worker's share of a call. Whoever gets `start` first decides whether it takes place."""

    __slots__ = ("args", "done", "error", "kernel", "start")

    def __init__(self, kernel, args):
        self.kernel, self.args, self.error = kernel, args, None
        self.start, self.done = _thread.allocate_lock(), _thread.allocate_lock()
        self.done.acquire()

    def work(self):
        if self.start.acquire(False):
            try:
                self.kernel(*self.args)
            except BaseException as error:
                self.error = error
            finally:
                self.done.release()


class _Pool:
    """Daemon threads that wait for jobs; more are started as calls ask for more."""

    def __init__(self):
        self._reset()

    def _reset(self):
        self._queue, self._workers, self._lock = queue.SimpleQueue(), 0, _thread.allocate_lock()

    def put(self, jobs):
        if self._workers < len(jobs):
            self._start(len(jobs))
        for job in jobs:
            self._queue.put(job)

    def _start(self, count):
        with self._lock:
            while self._workers < count:
                threading.Thread(target=self._serve, args=(self._queue,), daemon=True, name="mixers").start()
                self._workers += 1

    @staticmethod
    def _serve(jobs):
        while True:
            # no name may keep the arrays of the last job alive while the thread sleeps
            jobs.get().work()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool._reset)


def _default_threads():
    given = os.environ.get("MIXERS_NUM_THREADS")
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"MIXERS_NUM_THREADS: must be an integer >= 1, got {given!r}")
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


_threads = _default_threads()


def get_num_threads():
    """Number of threads that kernels run on.

    At first the value of MIXERS_NUM_THREADS, else the number of processors this process may use.
    """
    return _threads


def set_num_threads(count):
    """Choose the number of threads for all following calls of this process. Results do not depend on it.

    Raises
    ------
    ValueError
        If `count` is no integer of at least 1.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global _threads
    if isinstance(count, bool) or not isinstance(count, int | numpy.integer) or count < 1:
        raise ValueError(f"set_num_threads: count must be an integer >= 1, got {count!r}")
    _threads = int(count)
