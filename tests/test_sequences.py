"""Packed sequences and padding in the scans and the causal convolution."""

import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, device_of
from tolerances import BACKWARD

import mixers
from mixers import ops, sequences


def table(b, l, *true, first=False):
    """Booleans (b, l), true at the given (item, token)."""
    result = numpy.zeros((b, l), bool)
    result[:, 0] = first
    for item, token in true:
        result[item, token] = True
    return result


def keep(b, l, *padding):
    return ~table(b, l, *padding)


STARTS = table(2, 20, (0, 3), (0, 4), (0, 17), (1, 0), (1, 16))
MASK = keep(2, 20, (0, 0), (0, 6), (0, 7), (1, 5), (1, 18), (1, 19))
TABLES = {
    "starts": {"sequence_starts": STARTS},
    "mask": {"mask": MASK},
    "both": {"sequence_starts": STARTS, "mask": MASK},
    "starts-of-all": {"sequence_starts": numpy.ones((2, 20), bool)},
    "all-padding": {"mask": numpy.zeros((2, 20), bool)},
}
LAST = {"return_last_state": True}

SELECTIVE = {
    "u": (2, 20, 5),
    "delta": lambda rng: rng.uniform(0.01, 0.6, (2, 20, 5)),
    "A": lambda rng: -rng.uniform(0.2, 4.0, (5, 3)),
    "B": (2, 20, 1, 3),
    "C": (2, 20, 1, 3),
    "D": (5,),
    "z": (2, 20, 5),
    "delta_bias": lambda rng: rng.uniform(0.0, 0.2, 5),
    "h0": (2, 5, 3),
}
SSD = {
    "x": (2, 20, 4, 3),
    "dt": lambda rng: rng.uniform(0.01, 0.6, (2, 20, 4)),
    "A": lambda rng: -rng.uniform(0.2, 4.0, 4),
    "B": (2, 20, 2, 3),
    "C": (2, 20, 2, 3),
    "D": (4,),
    "z": (2, 20, 4, 3),
    "dt_bias": lambda rng: rng.uniform(0.0, 0.2, 4),
    "h0": (2, 4, 3, 3),
}
LINEAR = {"a": lambda rng: rng.uniform(0.0, 1.0, (2, 20, 5)), "b": (2, 20, 5), "h0": (2, 5)}
CONV = {"x": (2, 20, 5), "w": (4, 5), "b": (5,), "initial_state": (2, 3, 5)}


class TestLinearScan(OpSuite):
    op = ops.linear_scan
    cases = [Case(n, LINEAR, t | LAST) for n, t in TABLES.items()] + [
        Case("reverse", LINEAR, TABLES["both"] | LAST | {"reverse": True})
    ]


class TestSelectiveScan(OpSuite):
    op = ops.selective_scan
    cases = [Case(n, SELECTIVE, t | LAST | {"delta_softplus": True}) for n, t in TABLES.items()] + [
        Case("no-softplus", SELECTIVE, TABLES["both"] | LAST),
        Case("reverse", SELECTIVE, TABLES["both"] | LAST | {"reverse": True, "delta_softplus": True}),
        Case(
            "order",
            SELECTIVE,
            TABLES["both"] | {"order": numpy.random.default_rng(0).permutation(20), "delta_softplus": True},
        ),
    ]


class TestSsdScan(OpSuite):
    op = ops.ssd_scan
    cases = [Case(n, SSD, t | LAST | {"dt_softplus": True, "chunk_size": 8}) for n, t in TABLES.items()] + [
        Case("one-chunk", SSD, TABLES["both"] | LAST)
    ]


class TestCausalConv1d(OpSuite):
    op = ops.causal_conv1d
    cases = [Case(n, CONV, t | {"return_final_state": True}) for n, t in TABLES.items()] + [
        Case("no-activation", CONV, TABLES["both"] | {"activation": "none"}),
        Case("one-tap", CONV | {"w": (1, 5), "initial_state": None}, TABLES["both"]),
        Case("long", CONV | {"w": (7, 5), "initial_state": (2, 6, 5)}, TABLES["both"]),
        Case("no-state", CONV | {"initial_state": None, "b": None}, TABLES["starts"]),
    ]


CALLS = {
    "linear_scan": (LINEAR, ("a", "b"), "h0", LAST),
    "selective_scan": (SELECTIVE, ("u", "delta", "B", "C", "z"), "h0", LAST | {"delta_softplus": True}),
    "ssd_scan": (SSD, ("x", "dt", "B", "C", "z"), "h0", LAST | {"dt_softplus": True, "chunk_size": 8}),
    "causal_conv1d": (CONV, ("x",), "initial_state", {"return_final_state": True}),
}
everywhere = [
    pytest.mark.parametrize("name", list(CALLS)),
    pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"]),
]


def each(test):
    for mark in everywhere:
        test = mark(test)
    return test


def call(name, arguments, backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    op = getattr(ops, name)
    with device_of(backend) as (to, back):
        moved = {n: to(a) if n in op.arrays and a is not None else a for n, a in arguments.items()}
        return [back(o) for o in op(**moved)]


@each
def test_packed_sequences_are_separate_sequences(name, backend):
    arrays, tokens, state, options = CALLS[name]
    arguments = Case("packed", arrays).draw()
    del arguments[state]
    one = {n: a[:1] if n in tokens else a for n, a in arguments.items()}
    starts = sequences.starts_from_lengths([5, 1, 14])
    y, last = call(name, one | options | {"sequence_starts": starts}, backend)
    for begin, end in ((0, 5), (5, 6), (6, 20)):
        alone = {n: a[:, begin:end] if n in tokens else a for n, a in one.items()}
        want, want_last = call(name, alone | options, backend)
        numpy.testing.assert_allclose(y[:, begin:end], want, rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(last, want_last, rtol=1e-11, atol=1e-12)


@each
def test_padding_is_as_if_it_were_not_there(name, backend):
    """Left, right and inner padding, with NaN in it: outputs and last state are those of the tokens alone."""
    arrays, tokens, _, options = CALLS[name]
    arguments = Case("padded", arrays).draw()
    mask = keep(2, 20, (0, 0), (0, 1), (0, 9), (0, 19), (1, 0), (1, 7), (1, 8), (1, 19))
    padded = {n: a.copy() if n in tokens else a for n, a in arguments.items()}
    for n in tokens:
        padded[n][~mask] = numpy.nan
    y, last = call(name, padded | options | {"mask": mask}, backend)
    alone = {
        n: numpy.stack([a[i][mask[i]] for i in range(2)]) if n in tokens else a for n, a in arguments.items()
    }
    want, want_last = call(name, alone | options, backend)
    for i in range(2):
        numpy.testing.assert_allclose(y[i][mask[i]], want[i], rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(last, want_last, rtol=1e-11, atol=1e-12)
    if name != "linear_scan":
        assert (y[~mask] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_padding_freezes_the_state_exactly(backend, dtype):
    """A bias that no half type holds: without softplus, minus the bias as a raw step would not cancel it."""
    arguments = Case("frozen", SELECTIVE | {"u": (2, 20, 5)}).draw(dtype)
    parameters = {n: arguments[n].astype("float32") for n in ("A", "D", "h0")}
    bias = numpy.full(5, 1.0 / 3.0, "float32")
    options = LAST | {"mask": numpy.zeros((2, 20), bool)}
    _, last = call("selective_scan", arguments | parameters | {"delta_bias": bias} | options, backend)
    assert numpy.array_equal(last, parameters["h0"])


def test_gradients_of_padding_with_nan_are_zero():
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not among MIXERS_TEST_BACKENDS")
    for name, (arrays, tokens, _, options) in CALLS.items():
        op = getattr(ops, name)
        arguments = Case("padded", arrays).draw()
        for n in tokens:
            arguments[n][~MASK] = numpy.nan
        for backend in ("reference", "cpu"):
            with mixers.use_backend(backend):
                out, saved = op.forward(**arguments, **options, mask=MASK)
                gradients = op.backward(type(out)(*(numpy.ones_like(o) for o in out)), saved)
            for n, g in zip(op.arrays, gradients):
                assert numpy.isfinite(g).all(), (name, backend, n)
                if n in tokens:
                    assert (g[~MASK] == 0).all(), (name, backend, n)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
def test_gradients_of_padding_with_nan_are_zero_on_the_gpu():
    arguments = Case("padded", SELECTIVE).draw()
    tokens = CALLS["selective_scan"][1]
    for n in tokens:
        arguments[n][~MASK] = numpy.nan
    with device_of("emulated") as (to, back):
        moved = {n: to(a) for n, a in arguments.items()}
        out, saved = ops.selective_scan.forward(**moved, **LAST, mask=MASK)
        gradients = ops.selective_scan.backward(type(out)(*(to(numpy.ones(o.shape)) for o in out)), saved)
        for n, g in zip(ops.selective_scan.arrays, map(back, gradients)):
            assert numpy.isfinite(g).all(), n
            if n in tokens:
                assert (g[~MASK] == 0).all(), n


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_starts_within_segments_on_the_gpu(softplus, reverse):
    """Few channels: the tokens are cut into segments; starts at their ends, within them, and in none."""
    l = 400
    arrays = SELECTIVE | {
        "u": (1, l, 5),
        "delta": lambda rng: (
            rng.uniform(-5.0, -2.0, (1, l, 5)) if softplus else rng.uniform(0, 0.1, (1, l, 5))
        ),
        **{"B": (1, l, 1, 3), "C": (1, l, 1, 3), "z": (1, l, 5), "h0": (1, 5, 3)},
    }
    starts = table(1, l, (0, 96), (0, 100), (0, 319), (0, 127))
    mask = keep(1, l, *((0, t) for t in (95, 96, 128, 200, 319)))
    options = {"sequence_starts": starts, "mask": mask, "delta_softplus": softplus, "reverse": reverse} | LAST
    check_backend(ops.selective_scan, Case("segments", arrays, options), "emulated", "float64")


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("softplus", [True, False])
def test_what_padding_holds_does_not_matter_in_segments_on_the_gpu(softplus):
    """Zeros and NaN give the same bits."""
    l = 200
    shapes = {"u": (1, l, 5), "delta": (1, l, 5), "B": (1, l, 1, 3), "C": (1, l, 1, 3), "z": (1, l, 5)}
    arguments = Case("segments", SELECTIVE | shapes | {"h0": (1, 5, 3)}).draw("float32")
    arguments["delta"] = abs(arguments["delta"]) / 10
    mask = keep(1, l, *((0, t) for t in (0, 95, 96, 128, 199)))
    options = LAST | {"mask": mask, "delta_softplus": softplus}
    results = []
    for value in (0.0, numpy.nan):
        for name in shapes:
            arguments[name][~mask] = value
        with device_of("emulated") as (to, back):
            out, saved = ops.selective_scan.forward(**{n: to(a) for n, a in arguments.items()}, **options)
            dy = numpy.where(mask[..., None], arguments["u"], value).astype("float32")
            douts = to(dy), to(arguments["h0"])
            gradients = ops.selective_scan.backward(type(out)(*douts), saved)
            results.append([back(a).tobytes() for a in (*out, *gradients)])
    assert results[0] == results[1]


@pytest.mark.skipif(not {"cpu", "emulated"} <= set(BACKENDS), reason="cpu or emulated is not tested")
def test_saved_states_of_packed_sequences_are_exchangeable():
    """Forward on the gpu, backward on the cpu: a start in the middle, and at the head, of a chunk."""
    arguments = Case("saved", SELECTIVE | {"D": None, "z": None}).draw() | TABLES["both"]
    with device_of("emulated") as (to, back):
        moved = {n: to(a) if n in SELECTIVE else a for n, a in arguments.items()}
        _, saved = ops.selective_scan.forward(**moved)
        got = back(saved.states)
    for backend in ("reference", "cpu"):
        with mixers.use_backend(backend):
            _, saved = ops.selective_scan.forward(**arguments)
            numpy.testing.assert_allclose(got, saved.states, rtol=1e-12, atol=1e-13)


def test_long_packed_scan_on_the_cpu():
    """Sequences of many chunks: the same as one after the other."""
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not among MIXERS_TEST_BACKENDS")
    rng = numpy.random.default_rng(0)
    u, delta = rng.standard_normal((1, 5000, 3)), rng.uniform(-5.0, -2.0, (1, 5000, 3))
    A, (B, C) = -rng.uniform(0.5, 2.0, (3, 2)), rng.standard_normal((2, 1, 5000, 1, 2))
    starts = sequences.starts_from_offsets([0, 1700, 1701, 5000])
    with mixers.use_backend("cpu"):
        y = ops.selective_scan(u, delta, A, B, C, delta_softplus=True, sequence_starts=starts)
    with mixers.use_backend("reference"):
        want = ops.selective_scan(u, delta, A, B, C, delta_softplus=True, sequence_starts=starts)
    assert_close("y", y, want, BACKWARD["float64"])


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (sequences.starts_from_lengths, [2, 0], "length must be an integer >= 1"),
        (sequences.starts_from_offsets, [1, 2], "offsets must increase from 0"),
        (sequences.starts_from_offsets, [0, 2, 2], "offsets must increase from 0"),
        (sequences.starts_from_offsets, [], "offsets must increase from 0"),
    ],
)
def test_helper_errors(function, argument, message):
    with pytest.raises(ValueError, match=message):
        function(argument)


def test_table_errors():
    x = numpy.zeros((2, 4, 3))
    with pytest.raises(TypeError, match="causal_conv1d: mask must be a NumPy array of booleans, got int64"):
        ops.causal_conv1d(x, numpy.zeros((2, 3)), mask=numpy.ones((2, 4), int))
    with pytest.raises(ValueError, match=r"linear_scan: sequence_starts must have shape \(b, l\) = \(2, 4\)"):
        ops.linear_scan(x, x, sequence_starts=numpy.ones((2, 5), bool))
