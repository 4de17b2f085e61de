"""Shared by all tests: op suites get their cases, the emulator skips where there is no compiler."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


def pytest_generate_tests(metafunc):
    cases = getattr(metafunc.cls, "cases", None)
    if cases is not None and "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(autouse=True)
def _no_backend_from_environment(monkeypatch):
    monkeypatch.delenv("MIXERS_BACKEND", raising=False)
