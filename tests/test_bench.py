"""The instrument itself: ceilings, peak memory, the table of bars."""

import importlib
import json
import os
import pathlib

import numpy
import pytest

import mixers
from mixers import subjects
from mixers.bench import ceilings, contender, memory, race, table
from mixers.cli import main as command


@pytest.fixture
def bench(capsys, tmp_path, monkeypatch):
    """Run ``mixers bench`` in an empty directory: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    threads = mixers.get_num_threads()
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def run(*arguments):
        status = command.main(["bench", *map(str, arguments)])
        return status, *capsys.readouterr()

    yield run
    mixers.set_num_threads(threads)
    # --threads limits other libraries by taking processors from the process
    if processors is not None:
        os.sched_setaffinity(0, processors)


def test_ceilings_are_plausible(monkeypatch):
    monkeypatch.setattr(ceilings, "_SECONDS", 0.02)
    ceilings._copy_rate.cache_clear()
    ceilings._fma_rate.cache_clear()
    copy, fma = ceilings.copy_rate(1 << 20), ceilings.fma_rate("float32")
    # a processor of the last twenty years, and none of the next
    assert 1e8 < copy < 1e13
    assert 1e9 < fma < 1e14
    # measured once per process and working set
    assert ceilings.copy_rate((1 << 20) - 5) == copy
    assert ceilings.fma_rate(numpy.dtype("float32")) == fma
    ceilings._copy_rate.cache_clear()
    ceilings._fma_rate.cache_clear()


def test_kernels_of_the_ceilings_do_their_work():
    x, y = numpy.arange(ceilings._TASKS * 64, dtype="float32"), numpy.zeros(ceilings._TASKS * 64, "float32")
    ceilings.run(ceilings._copy, ceilings._TASKS, x, y, 64)
    numpy.testing.assert_array_equal(y, x)
    sums = numpy.zeros(ceilings._TASKS, "float64")
    steps = 3
    ceilings.run(ceilings._multiply_add, ceilings._TASKS, sums, steps)
    expected = 0.0
    for value in map(float, range(ceilings._SUMS)):
        for _ in range(steps):
            value = value * 0.999 + 0.001
        expected += value * ceilings.lanes(sums)
    numpy.testing.assert_allclose(sums, expected, rtol=1e-12)


@pytest.mark.skipif(not memory.available(), reason="needs /proc of Linux")
def test_peak_memory_counts_what_c_code_allocates():
    size = 64 << 20

    def touch():
        # freed again before the end: only the peak shows it
        numpy.ones(size, numpy.uint8).sum()

    assert memory.added_by(touch) == pytest.approx(size, rel=0.05)
    assert memory.added_by(lambda: None) < 1 << 20


@pytest.mark.skipif(not memory.available(), reason="needs /proc of Linux")
def test_peak_memory_of_contenders(bench):
    status, out, _ = bench(
        "avg_pool",
        "--shape",
        "b=16",
        "--backward",
        "--memory",
        "--rounds",
        1,
        "--threads",
        1,
        "--json",
        "found.json",
    )
    assert (status, out) == (0, "")
    found = json.loads(pathlib.Path("found.json").read_text())
    output = 16 * 56 * 56 * 64 * 4
    # the output of the forward, dx of the backward, and both one after the other
    peaks = found["memory"]["mixers"]
    assert peaks["forward"] == pytest.approx(output, rel=0.2)
    assert peaks["backward"] == pytest.approx(output, rel=0.2)
    assert output < peaks["both"] < 2.4 * output
    assert found["threads"] == 1
    assert found["problems"] == []


def test_failed_processes_are_reported():
    subject = subjects.find("silu", shape=subjects.parse_shape("b=1"))
    report = race.compare(subject, rounds=1)
    request = {
        "name": "no such op",
        "dtype": "float32",
        "shape": "",
        "config": {},
        "threads": 1,
        "backward": False,
    }
    race.add_memory(report, request, [])
    assert any(problem.startswith("memory:") for problem in report["problems"])
    assert not report.get("memory")


def test_rates_and_fractions(bench):
    status, out, _ = bench("layer_norm", "--shape", "b=1,l=64,c=16", "--rounds", 1, "--backward", "--json")
    assert status == 0
    found = json.loads(out)
    rate = ceilings.copy_rate(2 * 64 * 16 * 4)
    assert found["fraction_of_copy"] > 0
    assert found["fraction_of_fma"] > 0
    assert found["gbyte_per_second"] * 1e9 / found["fraction_of_copy"] == pytest.approx(rate)
    # the mean and the deviation of every token
    assert found["saved_bytes"] == 2 * 64 * 4
    text = bench("layer_norm", "--shape", "b=1,l=64,c=16", "--rounds", 1)[1]
    assert "% of copying" in text
    assert "% of multiply-adds" in text


def test_rows_are_reachable_by_name(bench):
    found = json.loads(bench("dct:14", "--rounds", 1, "--json", "-")[1])
    assert (found["name"], found["shapes"]) == ("dct", {"x": [16, 14, 14, 384]})
    found = json.loads(bench("dct:14", "--rounds", 1, "--json", "-", "--shape", "b=1,c=2")[1])
    assert found["shapes"]["x"] == [1, 56, 56, 2]


@pytest.mark.parametrize("label", table.ROWS)
def test_rows_can_be_drawn(label):
    row = table.ROWS[label]
    subject = subjects.find(row.name, "bench", shape=subjects.parse_shape(row.shape))
    assert subject.arrays[subject.inputs[0]].size > 1 << 16
    assert set(filter(None, row.against.split(","))) <= set(contender.known())
    assert row.verb in contender.VERBS


def test_the_ten_whole_mixers_are_rows():
    whole = {row.name for row in table.ROWS.values() if row.name in mixers.list_mixers()}
    assert whole >= set(
        "hyena mamba gated_cnn global_filter dynamic_spectrum gnconv lka strip_mlp mix_shift fourier_karat".split()
    )


def _report(ours, **peers):
    times = lambda pair: {v: {"median": t} for v, t in zip(("forward", "backward", "both"), pair) if t}
    return {
        "timings": {"mixers": times(ours), **{name: times(pair) for name, pair in peers.items()}},
        "problems": [],
    }


def test_bars_are_judged_against_the_fastest_peer():
    report = _report((1.0, 2.0, 3.0), slow=(10.0, 20.0, 30.0), fast=(1.9, 7.9, 9.8))
    judged = table.judge("avg_pool", report)
    assert judged.fastest == ("fast", "fast")
    assert judged.ratios == pytest.approx((1.9, 3.95))
    assert judged.seconds == (1.0, 2.0)
    # the bars are 2 and 4
    assert judged.bars == (2, 4)
    assert judged.met is False
    assert table.judge("avg_pool", _report((1.0, 2.0, 3.0), fast=(2.0, 8.0, 9.8))).met is True
    # the scan's second bar is about forward and backward together, which is all that JAX has
    judged = table.judge("selective_scan", _report((1.0, 1.0, 2.0), jax=(9.0, None, 40.0)))
    assert (judged.verb, judged.ratios, judged.met) == ("both", (9.0, 20.0), True)
    # without a peer there is nothing to say; without a bar only the other counts
    assert table.judge("avg_pool", _report((1.0, 2.0, 3.0))).met is None
    assert table.judge("dct", _report((1.0, 1.0, 2.0), ducc0=(1.4, 0.1, 1.5))).met is True


def test_growth_with_the_length_must_stay_below_the_bar():
    report = _report((1.0, 1.0, 2.0)) | {"per_token": {"forward": 1.1, "backward": 9.0, "both": 1.2}}
    judged = table.judge("selective_scan:long", report)
    assert (judged.ratios, judged.met) == ((1.1, 1.2), False)
    report["per_token"]["both"] = 1.15
    assert table.judge("selective_scan:long", report).met is True


def test_time_per_token(bench):
    found = json.loads(
        bench("silu", "--shape", "b=1,l=512", "--relative-to", "b=1,l=256", "--rounds", 1, "--json")[1]
    )
    assert list(found["per_token"]) == ["forward"]
    # any machine: not proportional to the square of the length, nor free
    assert 0.02 < found["per_token"]["forward"] < 50


def test_table_runs_rows_and_keeps_the_others(bench, tmp_path, monkeypatch):
    small = table.Row("dct", "b=1,h=4,w=4,c=8", "scipy", 1e-9, None)
    monkeypatch.setitem(table.ROWS, "dct:14", small)
    broken = table.Row("dct", "b=1,q=4", "scipy", 1, None)
    monkeypatch.setitem(table.ROWS, "dct", broken)
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"hyena": {"kept": True}}))
    status, out, _ = bench("--table", "dct:14,dct", "--rounds", 1, "--json", file)
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("dct:14"))
    assert " scipy " in line
    assert line.split()[-1] == "met"
    assert "dct: mixers bench: op_sample: dct has the sizes" in out
    found = json.loads(file.read_text())
    assert found["hyena"] == {"kept": True}
    assert found["dct:14"]["timings"]["scipy"]["forward"]["median"] > 0
    assert "failed" in found["dct"]


def test_what_bench_refuses(bench, capsys):
    status, _, err = bench("--table", "nonsense")
    assert status == 2
    assert "--table must name some of selective_scan, " in err
    for arguments in ((), ("silu", "--table")):
        with pytest.raises(SystemExit):
            bench(*arguments)
        assert "give either NAME or --table" in capsys.readouterr().err


@pytest.fixture
def script(monkeypatch):
    """Import a script of docs/scripts by name."""
    directory = pathlib.Path(__file__).parent.parent / "docs" / "scripts"
    if not directory.exists():
        pytest.skip("needs the sources")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(directory))
    return importlib.import_module


def test_tables_of_the_docs(script):
    performance = script("performance")
    report = _report((1e-3, 2e-3, 3e-3), slow=(9e-3, 9e-3, 9e-3), fast=(1.5e-3, 10e-3, 9e-3))
    report |= {"date": "2026-01-02", "threads": 2, "memory": {"mixers": {"both": 1e6}, "fast": {"both": 3e6}}}
    reports = {"avg_pool": report, "dct": {"failed": "reason " + "x" * 100}}
    ours = next(performance.lines_of(reports))
    assert ours[0] == "avg_pool"
    assert ours[2:] == ("fast / slow", "1.00 / 2.00", "1.5", "2", "backward", "4.5", "4", "not met")
    text = "\n".join(performance.rst("a machine", reports))
    assert text.startswith("a machine; 2 threads; 2026-01-02.\n")
    assert "failed: reason x" in text
    assert [line.split("- ")[1] for line in text.strip().splitlines()[-4:]] == [
        "avg_pool",
        "1.0",
        "fast",
        "3.0",
    ]
    cells = {line.count("|") for line in performance.markdown(reports)}
    assert cells == {len(performance.HEADS) + 1}


def test_growth_is_kept_and_drawn(script, tmp_path):
    scaling = script("scaling")
    x = (10, 20, 40, 80)
    assert scaling.slope([(n, 3.0 * n**2) for n in x]) == pytest.approx(2)
    # the lower half, where calls cost more than their work, does not count
    assert scaling.slope(list(zip(x, (100.0, 100.0, 40.0, 80.0)))) == pytest.approx(1)
    line = dict.fromkeys(scaling.FIELDS, "1") | {"subject": "hyena", "axis": "length", "memory": ""}
    lines = {("hyena", "length", n): line | {"value": str(n), "both": str(n / 1e6)} for n in (1024, 256)}
    scaling.write(tmp_path / "scaling.csv", lines)
    assert scaling.read(tmp_path / "scaling.csv") == lines
    scaling.draw(lines, tmp_path)
    assert [p.name for p in tmp_path.glob("*.png")] == ["scaling_length.png"]
    table = "\n".join(scaling.slopes(lines))
    assert "``hyena``\n     - O(order L C (C + log L))\n     - 1.00\n     - \n" in table
    assert "mamba" not in table
    assert scaling.read(tmp_path / "nothing.csv") == {}


def test_growth_is_measured_at_shapes_that_exist(script):
    scaling = script("scaling")
    for subject in scaling.SUBJECTS:
        length = min(subject.lengths)
        sizes = {**subject.usual, "b": 1, "l": length, "c": 16}
        shape = subject.shape.format(**sizes, side=round(length**0.5))
        drawn = subjects.find(subject.name, "bench", shape=subjects.parse_shape(shape))
        first = drawn.arrays[drawn.inputs[0]]
        assert first.size % (length * 16) == 0, subject.name


def test_warps_that_fit_on_a_multiprocessor(script):
    gpu_kernels = script("gpu_kernels")
    needs = gpu_kernels.Needs
    assert gpu_kernels.resident(needs(registers=32, spilled=0, shared=0), threads=256, shared=0) == 64
    assert gpu_kernels.resident(needs(registers=255, spilled=0, shared=0), threads=128, shared=0) == 8
    assert gpu_kernels.resident(needs(registers=32, spilled=0, shared=0), threads=128, shared=100 << 10) == 8
