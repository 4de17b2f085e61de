"""The tests that every registered mixer must pass; family files add what is particular."""

import dataclasses
import inspect

import numpy
import pytest
from harness import BACKENDS, DTYPES, assert_close, check_differences, device_of
from tolerances import BACKWARD, CAUSALITY_LEAK, FORWARD

import mixers
from mixers import samples

NAMES = mixers.list_mixers()


def flat(value):
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, tuple) else [value]


def run(mixer, params, inputs, dout, backend):
    """Outputs, parameter gradients and input gradients on the host."""
    with device_of(backend) as (to, back):
        out, saved = mixer.forward({n: to(p) for n, p in params.items()}, *map(to, inputs))
        moved = tuple(map(to, dout))
        dparams, dinputs = mixer.backward(moved if len(moved) > 1 else moved[0], saved)
        host = lambda a: None if a is None else back(a)
        return (
            [host(o) for o in flat(out)],
            {n: host(d) for n, d in dparams.items()},
            [host(d) for d in flat(dinputs)],
        )


def sample(name, dtype):
    mixer, params, inputs = samples.mixer_sample(name, dtype="float64")
    cast = lambda a: a.astype(DTYPES[dtype])
    params, inputs = {n: cast(p) for n, p in params.items()}, tuple(map(cast, inputs))
    with mixers.use_backend("reference"):
        shapes = [o.shape for o in flat(mixer(params, *inputs))]
    rng = numpy.random.default_rng(3)
    return mixer, params, inputs, [cast(rng.standard_normal(s)) for s in shapes]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_and_docstring(name):
    cls, known = type(samples.mixer_sample(name)[0]), mixers.describe(name)
    assert known.name == name
    assert known.paper
    assert 1980 < known.year <= 2026
    assert set(known.ranks) <= {1, 2}
    assert known.cost
    assert known.recurrent == (cls.step is not mixers.Mixer.step)
    doc = inspect.getdoc(cls)
    assert "Parameters\n" in doc
    assert "Source:" in doc
    for field in dataclasses.fields(cls):
        assert field.name in doc, f"{name}: {field.name} is not in the docstring"
    assert known.grid_tied == any(f.name == "grid" for f in dataclasses.fields(cls))


@pytest.mark.parametrize("name", NAMES)
def test_reference_against_differences(name):
    mixer, params, inputs = samples.mixer_sample(name, dtype="float64")
    specs = mixer.parameters()
    names = [f"x{i}" for i in range(len(inputs))]
    trained = {n: p for n, p in params.items() if specs[n].trainable}
    arrays = dict(zip(names, inputs)) | trained

    def function(arrays):
        out = mixer({**params, **{n: arrays[n] for n in trained}}, *(arrays[n] for n in names))
        return tuple(flat(out)) if isinstance(out, tuple) else out

    def backward(arrays, dout):
        _, saved = mixer.forward({**params, **{n: arrays[n] for n in trained}}, *(arrays[n] for n in names))
        dparams, dinputs = mixer.backward(dout, saved)
        return dict(zip(names, flat(dinputs))) | dparams

    with mixers.use_backend("reference"):
        check_differences(function, backward, arrays)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["cpu", "emulated"])
@pytest.mark.parametrize("name", NAMES)
def test_backend_against_reference(name, backend, dtype):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    mixer, params, inputs, dout = sample(name, dtype)
    wide = lambda a: a.astype(numpy.float64)
    got = run(mixer, params, inputs, dout, backend)
    want = run(
        mixer,
        {n: wide(p) for n, p in params.items()},
        tuple(map(wide, inputs)),
        list(map(wide, dout)),
        "reference",
    )
    # a mixer is a chain of ops, each with an op's rounding
    depth = 10.0
    forward, backward = (type(t)(t.ratio * depth, t.worst * depth) for t in (FORWARD[dtype], BACKWARD[dtype]))
    for i, (g, w) in enumerate(zip(got[0], want[0], strict=True)):
        assert g.dtype == DTYPES[dtype]
        assert_close(f"{name} output {i}", g, w, forward)
    gradients = {n: (g, want[1][n]) for n, g in got[1].items()}
    gradients |= {f"x{i}": pair for i, pair in enumerate(zip(got[2], want[2], strict=True))}
    scale = max(numpy.abs(w).max() for _, w in gradients.values() if w is not None)
    for n, (g, w) in gradients.items():
        assert (g is None) == (w is None), n
        if w is not None:
            assert_close(f"{name} d{n}", g, w, backward, floor=1e-3 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_bitwise_equal(name):
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not among MIXERS_TEST_BACKENDS")
    mixer, params, inputs, dout = sample(name, "float32")
    before = mixers.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            mixers.set_num_threads(threads)
            outs, dparams, dinputs = run(mixer, params, inputs, dout, "cpu")
            results.append([a.tobytes() for a in [*outs, *dparams.values(), *dinputs] if a is not None])
    finally:
        mixers.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("name", [n for n in NAMES if mixers.describe(n).causal])
def test_causality(name):
    """A change of token t leaves the outputs before t alone, to rounding."""
    mixer, params, (x,) = samples.mixer_sample(name, dtype="float64")
    later = x.copy()
    later[:, 7] += 1e3
    with mixers.use_backend("reference"):
        change = numpy.abs(mixer(params, later) - mixer(params, x))
    assert change[:, :7].max() <= CAUSALITY_LEAK["float64"] * max(change.max(), 1e3)
    assert change[:, 7:].max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_bad_calls_are_rejected(name):
    mixer, params, inputs = samples.mixer_sample(name)
    x, rest = inputs[0], inputs[1:]
    with pytest.raises(ValueError, match=f"{name}: x must have shape"):
        mixer(params, x[..., :-1], *rest)
    with pytest.raises(ValueError, match=f"{name}: x must have shape"):
        mixer(params, x[(0,) * (x.ndim - 1)], *rest)
    with pytest.raises(TypeError, match=f"{name}: x must be float16"):
        mixer(params, x.astype(int), *rest)
    with pytest.raises(ValueError, match="surplus nonsense"):
        mixer({**params, "nonsense": x}, x, *rest)
    for missing in list(params)[:1]:
        with pytest.raises(ValueError, match=f"missing {missing}"):
            mixer({n: p for n, p in params.items() if n != missing}, x, *rest)
        with pytest.raises(ValueError, match=rf"{name}: params\['{missing}'\] must have shape"):
            mixer({**params, missing: params[missing][..., None]}, x, *rest)
    # a layer maps in_features to out_features
    size = "dim" if "dim" in {field.name for field in dataclasses.fields(mixer)} else "in_features"
    with pytest.raises((ValueError, TypeError), match=f"{name}: {size} must be an integer >= 1"):
        dataclasses.replace(mixer, **{size: 0})
    if mixers.describe(name).grid_tied:
        longer = numpy.concatenate([x, x], axis=1)
        with pytest.raises(ValueError, match=f"{name}: x must have"):
            mixer(params, longer, *rest)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_array_types_are_rejected(name):
    class Other(numpy.ndarray):
        """An array type that belongs to another backend."""

    release = mixers.backend.register_array_type(Other, "gpu")
    try:
        mixer, params, inputs = samples.mixer_sample(name)
        odd = {n: p.view(Other) for n, p in params.items()}
        if not odd:
            pytest.skip("no parameters")
        with pytest.raises(TypeError, match="all arrays must be of one type"):
            mixer(odd, *inputs)
    finally:
        release()
