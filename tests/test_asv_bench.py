"""The asv suite: it covers the library, and what it says it measures can be run."""

import importlib
import inspect
import pathlib
import pkgutil
import sys

import numpy
import pytest

import mixers
from mixers import ops, registry, samples, subjects
from mixers.mixer import required_inputs

SUITE = pathlib.Path(__file__).parent.parent / "asv_bench"
pytestmark = pytest.mark.skipif(not SUITE.exists(), reason="needs the sources")


@pytest.fixture(scope="module")
def suite():
    """The benchmark classes by module and name, and the module they share."""
    sys.path.insert(0, str(SUITE))
    try:
        package = importlib.import_module("benchmarks")
        modules = [
            importlib.import_module(f"benchmarks.{m.name}") for m in pkgutil.iter_modules(package.__path__)
        ]
        yield {
            f"{module.__name__}.{name}": found
            for module in modules
            for name, found in inspect.getmembers(module, inspect.isclass)
            if found.__module__ == module.__name__ and not inspect.isabstract(found) and name[0] != "_"
        }
    finally:
        sys.path.remove(str(SUITE))
        for name in [n for n in sys.modules if n.split(".")[0] == "benchmarks"]:
            del sys.modules[name]


def test_every_op_and_mixer_is_measured(suite):
    measured = {
        what: {getattr(found, what) for found in suite.values() if hasattr(found, what)}
        for what in ("op", "mixer")
    }
    assert set(ops.__all__) == measured["op"]
    assert set(mixers.list_mixers()) == measured["mixer"]


def test_startup_is_measured(suite):
    tracked = {n for found in suite.values() for n in dir(found) if n.startswith(("track_", "timeraw_"))}
    assert {"track_empty_cache", "track_filled_cache", "timeraw_mixers", "timeraw_numpy"} <= tracked


def test_shapes_fit(suite):
    for label, found in suite.items():
        for shape in getattr(found, "shapes", ()):
            assert shape in found.params[2], label
            given = subjects.parse_shape(shape)
            if hasattr(found, "op"):
                assert set(given.sizes) <= set(samples.OPS[found.op].bench), label
            else:
                cls = registry.mixer_class(found.mixer)
                _, *grid, dim = given.x
                mixer = cls(**samples.fitting_options(cls, "bench", dim, grid))
                # raises if the mixer does not take it; the memory is never touched
                count = len(required_inputs(cls))
                mixer.check_input(*[numpy.empty(given.x, "float32")] * count)


def test_a_benchmark_runs(suite):
    silu = suite["benchmarks.elementwise.Silu"]()
    arguments = "cpu", "float32", "b=1,l=1,c=16"
    silu.setup(*arguments)
    silu.time_forward(*arguments)
    silu.time_backward(*arguments)
    silu.peakmem_forward(*arguments)
    assert silu.track_gbytes_per_second(*arguments) > 0
    with pytest.raises(NotImplementedError, match="float64 only"):
        silu.setup("reference", *arguments[1:])
