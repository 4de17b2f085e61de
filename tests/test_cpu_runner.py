"""Threads, kernels and their cache on disk."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy
import pytest

from mixers.cpu import cache, runner
from mixers.cpu.runner import kernel, run, tasks


@kernel
def double(x, y, size, counter):
    for task in tasks(counter):
        for i in range(task * size, min((task + 1) * size, x.size)):
            y[i] += 2 * x[i]


@kernel
def record(claimed, skip, counter):
    for task in tasks(counter):
        if task == skip:
            continue
        claimed[task] += 1


@kernel
def fail_at(y, bad, counter):
    for task in tasks(counter):
        if task == bad:
            raise ValueError("task failed")
        y[task] = 1


@kernel
def fail_off_the_caller(seen, caller, started, counter):
    # spins until two threads are inside, so that one of them is a worker for certain
    for task in tasks(counter):
        started[task] = 1
        while started[0] + started[1] < 2 and seen[0] < 4_000_000_000:
            seen[0] += 1
        if task != caller:
            raise KeyError("second task failed")


@pytest.fixture
def threads():
    before = runner.get_num_threads()
    yield runner.set_num_threads
    runner.set_num_threads(before)


def doubled(x, size=100):
    y = numpy.zeros_like(x)
    run(double, -(-x.size // size), x, y, size)
    return y


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_task_runs_once_on_any_number_of_threads(threads, count, dtype):
    threads(count)
    x = numpy.arange(12345, dtype=dtype)
    for _ in range(20):
        numpy.testing.assert_array_equal(doubled(x), 2 * x)


def test_continue_reports_the_task_as_finished(threads):
    threads(2)
    claimed = numpy.zeros(50, numpy.int64)
    run(record, 50, claimed, 7)
    assert claimed[7] == 0
    assert claimed.sum() == 49


def test_no_tasks_is_no_call():
    run(lambda *args: pytest.fail("called"), 0, 1)


def test_little_work_stays_on_the_calling_thread(threads):
    threads(4)
    ids = []
    run(lambda counter: ids.append(threading.get_ident()), 4, work=10)
    assert ids == [threading.get_ident()]


def test_error_in_a_task_is_raised(threads):
    for count in (1, 2, 3):
        threads(count)
        for _ in range(20):
            with pytest.raises(ValueError, match="task failed"):
                run(fail_at, 64, numpy.zeros(64), 40)
        numpy.testing.assert_array_equal(doubled(numpy.ones(500)), 2)


def test_error_in_a_worker_is_raised(threads):
    threads(2)
    # either thread may get the second task
    for _ in range(10):
        with pytest.raises(KeyError, match="second task failed"):
            run(fail_off_the_caller, 2, numpy.zeros(1, numpy.int64), 0, numpy.zeros(2, numpy.int64))


def test_several_python_threads_at_once(threads):
    threads(2)
    wrong = []

    def call(seed):
        x = numpy.random.default_rng(seed).standard_normal(20000).astype("float32")
        for _ in range(50):
            if not numpy.array_equal(doubled(x), 2 * x):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_run_within_run(threads):
    threads(3)
    x = numpy.arange(3000.0)
    results = []

    def outer(counter):
        results.extend(doubled(x) for _ in range(20))

    run(outer, 3)
    assert len(results) in (20, 40, 60)
    for y in results:
        numpy.testing.assert_array_equal(y, 2 * x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_use():
    # in a process of its own: pytest's threads would make the fork itself a warning
    source = """
import os, numpy, warnings
from test_cpu_runner import doubled, runner
warnings.simplefilter("ignore", DeprecationWarning)
runner.set_num_threads(2)
x = numpy.arange(50000.0)
assert (doubled(x) == 2 * x).all()
child = os.fork()
if child == 0:
    os._exit(0 if all((doubled(x) == 2 * x).all() for _ in range(20)) else 1)
assert os.waitpid(child, 0)[1] == 0
assert (doubled(x) == 2 * x).all()
"""
    subprocess.run([sys.executable, "-c", source], cwd=os.path.dirname(__file__), check=True, timeout=120)


def test_arrays_are_released_after_the_call(threads):
    threads(2)
    x, y = numpy.ones(100000), numpy.zeros(100000)
    refs = [weakref.ref(x), weakref.ref(y)]
    run(double, 100, x, y, 1000)
    del x, y
    for _ in range(1000):
        gc.collect()
        if all(ref() is None for ref in refs):
            break
    assert [ref() for ref in refs] == [None, None]


def test_num_threads(threads):
    threads(numpy.int64(3))
    assert runner.get_num_threads() == 3
    for bad in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="count must be an integer >= 1"):
            threads(bad)


@pytest.mark.parametrize(
    "given, outcome", [("5", "5"), ("0", "MIXERS_NUM_THREADS: must be"), ("x", "got 'x'")]
)
def test_num_threads_from_the_environment(given, outcome):
    code = "from mixers.cpu import runner; print(runner.get_num_threads())"
    environment = {**os.environ, "MIXERS_NUM_THREADS": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert outcome in done.stdout + done.stderr


MODULE = """
from mixers.cpu.runner import kernel
{imports}
@kernel
def work(x, counter):
    x[0] += {value}
"""
CALL = """
import sys, numpy
sys.path.insert(0, sys.argv[1])
import module
x = numpy.zeros(1, sys.argv[2])
module.work(x, numpy.zeros(24, numpy.int64))
print(x[0], sum(module.work.stats.cache_hits.values()))
"""


class Project:
    """A module with a kernel, run in fresh processes."""

    def __init__(self, path):
        self.path = path
        self.environment = {**os.environ, "MIXERS_CACHE_DIR": str(path / "kept")}
        self.write()

    def write(self, value="1", imports=""):
        (self.path / "module.py").write_text(MODULE.format(value=value, imports=imports))

    def call(self, dtype="float32"):
        args = [sys.executable, "-c", CALL, str(self.path), dtype]
        done = subprocess.run(args, env=self.environment, capture_output=True, text=True, check=True)
        value, hits = done.stdout.split()
        return float(value), int(hits)

    def files(self):
        return sorted(p.name for p in (self.path / "kept").rglob("module.work-*.nbc"))


def test_compiled_kernels_are_kept_and_follow_the_source(tmp_path):
    project = Project(tmp_path)
    assert [project.call(), project.call(), project.call("float64")] == [(1, 0), (1, 1), (1, 0)]
    assert len(project.files()) == 2
    project.write(value="2")
    assert [project.call(), project.call()] == [(2, 0), (2, 1)]
    # results of the old source are gone
    assert len(project.files()) == 1


def test_an_unwritable_cache_costs_nothing_but_time(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "plain file").write_text("")
    blocked = str(tmp_path / "plain file")
    for name in ("MIXERS_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        project.environment[name] = blocked
    # a file where the directory beside the source would be
    (tmp_path / "__pycache__").write_text("")
    assert [project.call(), project.call()] == [(1, 0), (1, 0)]


def test_source_stamp_covers_what_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_PACKAGE", tmp_path)
    contents = {
        "op.py": "import numpy\nfrom mixers.cpu import (\n    deep_tool,\n    runner,\n)\n",
        "deep_tool.py": "from mixers.cpu.deeper_tool import f\n",
        "deeper_tool.py": "f = 1\n",
        "unrelated.py": "f = 1\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)

    def stamp():
        cache._read.cache_clear()
        return cache.source_stamp(tmp_path / "op.py")

    first = stamp()
    assert stamp() == first
    (tmp_path / "unrelated.py").write_text("f = 2\n")
    assert stamp() == first
    (tmp_path / "deeper_tool.py").write_text("f = 2\n")
    assert stamp() != first
    cache._read.cache_clear()


def test_describe_counts_the_kept_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXERS_CACHE_DIR", str(tmp_path))
    directory, files, size = cache.describe()
    assert directory.startswith(str(tmp_path)) and (files, size) == (0, 0)
    with open(os.path.join(directory, "kernel.nbc"), "wb") as file:
        file.write(b"12345")
    assert cache.describe() == (directory, 1, 5)


def test_a_helper_called_from_python_is_plain_python():
    """Helpers have no compiled entry of their own; they must not crash the process."""
    from mixers.cpu.matrix import panel_width
    from mixers.cpu.simd import lanes, load

    x = numpy.zeros(64, numpy.float32)
    assert panel_width(x) == 2 * lanes(x)

    @runner.helper
    def first(array):
        return load(array, 0)

    with pytest.raises(NotImplementedError):
        first(x)
