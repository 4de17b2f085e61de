"""What is installed: the files of the wheel, and what an import costs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# directories of the checkout and what they are called once installed
PACKAGES = {"mixers": "mixers", "gpu": "mixers/gpu", "reference": "mixers/reference"}


def run(code, cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def source_files():
    """Names inside the wheel of all sources of the checkout."""
    found = set()
    for directory, installed in PACKAGES.items():
        for path in (ROOT / directory).rglob("*"):
            if path.suffix in (".py", ".cu", ".cuh", ".npz") and "__pycache__" not in path.parts:
                found.add(f"{installed}/{path.relative_to(ROOT / directory).as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, which stays clean."""
    tmp = tmp_path_factory.mktemp("wheel")
    copy = tmp / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "golden")
    for name in (*PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp), str(copy)], check=True, timeout=300)
    return next(tmp.glob("token_mixers-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel, installed into a directory of its own."""
    target = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    return target


def test_the_wheel_holds_all_sources_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.partition("/")[0] for n in names} == {"mixers", wheel.name.rpartition("-py3")[0] + ".dist-info"}
    packaged = {n for n in names if n.startswith("mixers/")}
    assert packaged == source_files()
    assert any(n.endswith(".cu") for n in packaged)
    assert "mixers/gpu/kernels/common.cuh" in packaged


def test_the_wheel_states_licence_and_requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(n for n in archive.namelist() if n.endswith("METADATA"))
    text = archive.read(metadata).decode()
    assert "License: BSD-3-Clause" in text
    assert any(n.endswith("LICENSE") for n in archive.namelist())
    required = [
        line.split()[1].split(">")[0] for line in text.splitlines() if line.startswith("Requires-Dist")
    ]
    unconditional = [
        line for line in text.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert len(unconditional) == 5
    assert {"numpy", "scipy", "numba", "ml_dtypes", "rich"} <= set(required)


def test_the_installed_wheel_works(installed, tmp_path):
    code = """
import importlib, importlib.resources, json, pkgutil
import numpy, mixers
optional = ("mixers.interop.", "mixers.bench.peers.")
for module in pkgutil.walk_packages(mixers.__path__, "mixers."):
    if not module.name.startswith(optional):
        importlib.import_module(module.name)
results = []
for backend in ("reference", "cpu"):
    with mixers.use_backend(backend):
        mixer = mixers.create("mlp_mixer", dim=3, grid=(4,), hidden=5)
        params = mixer.init(0)
        y, saved = mixer.forward(params, numpy.ones((2, 4, 3), "float32"))
        dparams, dx = mixer.backward(numpy.ones_like(y), saved)
        results.append(float(dx.sum()))
kernels = importlib.resources.files("mixers.gpu") / "kernels"
print(json.dumps([mixers.__file__, results, (kernels / "common.cuh").is_file()]))
"""
    file, results, kernels = json.loads(run(code, tmp_path, PYTHONPATH=str(installed)))
    assert pathlib.Path(file).is_relative_to(installed)
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert kernels


def test_import_loads_nothing_heavy(tmp_path):
    code = "import sys, mixers; {}; print(*sys.modules)"
    heavy = {
        "numba",
        "llvmlite",
        "scipy",
        "cupy",
        "torch",
        "jax",
        "matplotlib",
        "sklearn",
        "rich",
        "ml_dtypes",
    }
    for statement in ("pass", "mixers.ops, mixers.zoo, mixers.list_mixers()"):
        loaded = {name.partition(".")[0] for name in run(code.format(statement), tmp_path).split()}
        assert not loaded & heavy


def test_reference_and_numpy_arrays_need_no_optional_package(tmp_path):
    code = """
import sys, numpy, mixers
sys.modules["cupy"] = sys.modules["rich"] = sys.modules["matplotlib"] = None
with mixers.use_backend("reference"):
    mixers.ops.silu(numpy.ones(3))
mixers.ops.silu(numpy.ones(3))
print("numba" in sys.modules)
"""
    assert run(code, tmp_path).strip() == "True"


def test_versions_agree():
    import importlib.metadata

    import mixers

    assert importlib.metadata.version("token-mixers") == mixers.__version__
