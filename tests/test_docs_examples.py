"""Everything the documentation shows runs: docstrings, pages, the README and the examples."""

import doctest
import importlib
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import mixers

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
    [*(ROOT / "docs").glob("*.rst"), *(ROOT / "docs" / "families").glob("*.rst"), ROOT / "README.md"]
)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mixers.__path__, "mixers.")
    # the library they adapt to need not be there
    if not module.name.startswith("mixers.bench.peers.")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def run_doctests(tests):
    out = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in tests:
        runner.run(test, out=out.append)
    assert runner.failures == 0, "".join(out)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_modules(name):
    if name.startswith("mixers.interop."):
        pytest.importorskip(name.rpartition(".")[2])
    if name.startswith("mixers.plots"):
        pytest.importorskip("matplotlib")
    module = importlib.import_module(name)
    globs = {**vars(mixers.ops), **vars(module), "mixers": mixers}
    run_doctests(doctest.DocTestFinder().find(module, globs=globs))


@pytest.mark.parametrize("path", PAGES, ids=[p.stem for p in PAGES])
def test_pages(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    run_doctests([doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)])
    if path.suffix == ".md":
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            if ">>>" not in block:
                exec(compile(block, str(path), "exec"), {})


def test_numpy_example(tmp_path):
    script = ROOT / "examples" / "numpy_loop.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, last = (
        float(line.split()[-1]) for line in done.stdout.splitlines()[:: len(done.stdout.splitlines()) - 1]
    )
    assert last < 0.5 * first


def test_cupy_example_is_the_numpy_example_on_cupy_arrays():
    """It runs where there is a GPU; everywhere it must differ only in where the arrays live."""
    pair = [(ROOT / "examples" / name).read_text() for name in ("numpy_loop.py", "cupy_loop.py")]
    loops = [text[text.index("for step") :].replace("cupy.", "numpy.") for text in pair]
    assert loops[0] == loops[1]
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:
        pytest.skip("no CUDA device")
    script = ROOT / "examples" / "cupy_loop.py"
    subprocess.run([sys.executable, str(script)], check=True, timeout=300, env=dict(os.environ))
