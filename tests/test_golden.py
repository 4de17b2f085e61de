"""Outputs and gradients of the authors' own code, held against every backend."""

import json
import pathlib

import numpy
import pytest
from harness import BACKENDS, device_of
from tolerances import GOLDEN

import mixers

FILES = sorted((pathlib.Path(__file__).parent / "golden").glob("*.npz"))
FLOOR = 1e-6  # gradients that are zero in theory hold rounding noise: scale of the largest one of the case


def _structure(cotangents, out):
    if not isinstance(out, tuple):
        return cotangents[0]
    return type(out)(*cotangents) if hasattr(out, "_fields") else tuple(cotangents)


def _list(value):
    return list(value) if isinstance(value, tuple) else [value]


def compute(name, data, dtype, to, back):
    """Name -> (ours, theirs) for every array that the file holds."""
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(str(data["config"])).items()}
    cast = lambda a: to(a.astype(dtype) if a.dtype.kind == "f" else a)
    inputs = {k[3:]: cast(a) for k, a in data.items() if k.startswith("in.")}
    params = {k[6:]: cast(a) for k, a in data.items() if k.startswith("param.")}
    names = [k[4:] for k in data if k.startswith("out.")]
    if name == "mqar":
        return {
            f"out.{n}": (a, data[f"out.{n}"]) for n, a in zip(names, mixers.tasks.mqar(**config), strict=True)
        }
    cotangents = [cast(data[f"cot.{n}"]) if f"cot.{n}" in data else None for n in names]
    if hasattr(mixers.ops, name):
        op = getattr(mixers.ops, name)
        out, saved = op.forward(**inputs, **params, **config)
        gradients = op.backward(_structure(cotangents, out), saved)
        find = lambda n: getattr(gradients, "d" + n)
    else:
        mixer = mixers.create(name, **config)
        options = {"return_state": True} if any(n.endswith("_state") for n in names) else {}
        out, saved = mixer.forward(params, *inputs.values(), **options)
        if options:
            dparams, dinputs = mixer.backward(cotangents[0], saved)
            out = (out[0], *(getattr(out[1], n) for n in names[1:]))
        else:
            dparams, dinputs = mixer.backward(_structure(cotangents, out), saved)
        gradients = dict(zip(inputs, _list(dinputs), strict=True)) | dparams
        find = gradients.__getitem__
    results = {f"out.{n}": (back(a), data[f"out.{n}"]) for n, a in zip(names, _list(out), strict=True)}
    for key in data:
        if key.startswith("grad."):
            results[key] = (back(find(key[5:])), data[key])
    return results


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("reference", "float64"),
        ("cpu", "float64"),
        ("cpu", "float32"),
        ("emulated", "float64"),
        ("emulated", "float32"),
    ],
)
@pytest.mark.parametrize("path", FILES, ids=[f.stem for f in FILES])
def test_golden(path, backend, dtype):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    data = dict(numpy.load(path))
    with device_of(backend) as (to, back):
        results = compute(path.stem.split("__")[0], data, dtype, to, back)
    largest = max(
        (numpy.abs(w).max() for k, (_, w) in results.items() if k.startswith("grad.") and w.size), default=0
    )
    for key, (got, want) in results.items():
        assert got.shape == want.shape, key
        if want.dtype.kind != "f":
            numpy.testing.assert_array_equal(got, want, err_msg=key)
        elif want.size:
            scale = max(numpy.abs(want).max(), FLOOR * largest, 1e-300)
            error = numpy.abs(got.astype(numpy.float64) - want).max() / scale
            assert error <= GOLDEN[dtype], f"{key}: {error:.2e}"


def test_there_are_golden_vectors():
    assert len(FILES) >= 25
