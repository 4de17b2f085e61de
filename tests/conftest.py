"""Shared by all tests: op suites get their cases, the emulator skips where there is no compiler."""

import os
import sys

import numpy
import pytest

sys.path.insert(0, os.path.dirname(__file__))

import harness


def pytest_generate_tests(metafunc):
    cases = getattr(metafunc.cls, "cases", None)
    if cases is not None and "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(autouse=True)
def _no_backend_from_environment(monkeypatch):
    monkeypatch.delenv("MIXERS_BACKEND", raising=False)


@pytest.fixture
def bring(backend):
    """Brings a dict of arguments to a backend's arrays, and arrays back; skips backends that are not tested.

    Integers and booleans are tables, which stay NumPy arrays on every backend.
    """
    if backend not in harness.BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    with harness.device_of(backend) as (to, back):
        move = lambda a: to(a) if isinstance(a, numpy.ndarray) and a.dtype.kind not in "iub" else a
        yield (lambda arguments: {n: move(a) for n, a in arguments.items()}), back
