"""Linear scan, selective scan and its single step."""

import cuda_emulator
import hypothesis
import numpy
import pytest
from harness import (
    BACKENDS,
    LENGTHS,
    Case,
    OpSuite,
    assert_close,
    check_backend,
    cotangents,
    device_of,
    reference,
)
from hypothesis import strategies as st
from tolerances import BACKWARD, FORWARD

import mixers
from mixers import ops


def decays(*shape, near=None):
    """Decays in (0, 1), or within `near` of 1."""
    return lambda rng: rng.uniform(0.0, 1.0, shape) if near is None else 1.0 - rng.uniform(0.0, near, shape)


class TestLinearScan(OpSuite):
    op = ops.linear_scan
    cases = [
        Case("plain", {"a": decays(2, 13, 6), "b": (2, 13, 6)}),
        Case(
            "state",
            {"a": decays(2, 33, 5), "b": (2, 33, 5), "h0": (2, 5)},
            {"return_last_state": True},
        ),
        Case(
            "reverse",
            {"a": decays(3, 31, 33), "b": (3, 31, 33), "h0": (3, 33)},
            {"reverse": True, "return_last_state": True},
        ),
        Case("one-token", {"a": decays(1, 1, 8), "b": (1, 1, 8), "h0": (1, 8)}, {"return_last_state": True}),
        Case("wide", {"a": decays(1, 3, 300), "b": (1, 3, 300)}),
        Case("growing", {"a": lambda rng: rng.uniform(0.9, 1.2, (1, 32, 3)), "b": (1, 32, 3)}),
        Case(
            "near-one",
            {"a": decays(1, 1000, 3, near=1e-4), "b": (1, 1000, 3)},
            {"return_last_state": True},
            hard=True,
            halves=False,
            differences=False,
        ),
        Case("zero-decay", {"a": lambda rng: numpy.zeros((1, 7, 3)), "b": (1, 7, 3)}),
        Case("long", {"a": decays(1, 1025, 1), "b": (1, 1025, 1)}, differences=False),
        Case("no-tokens", {"a": (2, 0, 3), "b": (2, 0, 3), "h0": (2, 3)}, {"return_last_state": True}),
        Case("empty-batch", {"a": (0, 4, 3), "b": (0, 4, 3)}),
    ]


def selective(b, l, c, n, g=1, delta=(0.01, 0.6), A=(0.2, 4.0), **optional):
    """Arrays of a selective scan; `delta` and `A` are ranges, `optional` names the further arrays."""
    # without softplus a negative step would let the state grow
    bias = lambda rng: rng.uniform(0.0, 0.2, c)
    further = {"D": (c,), "z": (b, l, c), "delta_bias": bias, "h0": (b, c, n)}
    return {
        "u": (b, l, c),
        "delta": lambda rng: rng.uniform(*delta, (b, l, c)),
        "A": lambda rng: -rng.uniform(*A, (c, n)),
        "B": (b, l, g, n),
        "C": (b, l, g, n),
    } | {name: further[name] for name, wanted in optional.items() if wanted}


EVERYTHING = {"D": True, "z": True, "delta_bias": True, "h0": True}


class TestSelectiveScan(OpSuite):
    op = ops.selective_scan
    cases = [
        Case("plain", selective(2, 19, 6, 4)),
        Case(
            "everything",
            selective(2, 33, 6, 3, **EVERYTHING),
            {"delta_softplus": True, "return_last_state": True},
        ),
        Case("sixteen-states", selective(1, 35, 33, 16, D=True), {"delta_softplus": True}),
        Case("gated", selective(1, 18, 70, 16, D=True, z=True, delta_bias=True), {"delta_softplus": True}),
        Case("groups", selective(2, 17, 24, 5, g=3, D=True, h0=True), {"return_last_state": True}),
        Case("group-per-channel", selective(1, 5, 3, 2, g=3, z=True)),
        Case("one-state", selective(3, 32, 8, 1, z=True), {"reverse": True}),
        Case("twenty-states", selective(1, 9, 5, 20, **EVERYTHING), {"return_last_state": True}),
        Case("prime-states", selective(1, 9, 5, 19, z=True)),
        Case("many-states", selective(1, 20, 3, 64, D=True), {"delta_softplus": True}),
        Case("one-token", selective(1, 1, 8, 16, **EVERYTHING), {"return_last_state": True}),
        Case("two-tokens", selective(3, 2, 1, 2, h0=True)),
        Case(
            "reverse",
            selective(2, 21, 3, 4, **EVERYTHING),
            {"delta_softplus": True, "reverse": True, "return_last_state": True},
        ),
        Case(
            "order",
            selective(1, 37, 20, 16, **EVERYTHING),
            {"order": numpy.random.default_rng(5).permutation(37), "return_last_state": True},
        ),
        Case(
            "order-reverse",
            selective(2, 30, 3, 2, z=True),
            {"order": numpy.arange(30).reshape(5, 6).T.ravel().astype(numpy.int32), "reverse": True},
        ),
        Case("growing", selective(1, 12, 3, 2, A=(-0.5, 0.5), h0=True), {"return_last_state": True}),
        Case(
            "large-decays",
            selective(1, 40, 3, 4, delta=(5.0, 50.0), A=(1.0, 16.0)),
            halves=False,
            differences=False,
        ),
        Case(
            "near-one",
            selective(1, 1000, 3, 4, delta=(1e-5, 1e-4), A=(0.1, 1.0), D=True),
            {"return_last_state": True},
            hard=True,
            halves=False,
            differences=False,
        ),
        Case("long", selective(1, 1025, 2, 16, delta=(0.01, 0.2)), differences=False),
        # few channels and many tokens are cut into segments
        Case(
            "segments",
            selective(1, 4200, 5, 2, delta=(-7.0, -4.0), A=(0.5, 2.0), **EVERYTHING),
            {"delta_softplus": True, "return_last_state": True},
            emulated=False,
            halves=False,
            differences=False,
        ),
        Case(
            "segments-reverse",
            selective(2, 4097, 3, 3, delta=(-3.0, 1.0), z=True),
            {"delta_softplus": True, "return_last_state": True, "reverse": True},
            emulated=False,
            halves=False,
            differences=False,
        ),
        # a task of several vectors of channels, the last one with a tail
        Case("wide-tasks", selective(16, 18, 70, 2, D=True, z=True, h0=True), emulated=False),
        Case("no-tokens", selective(2, 0, 3, 4, **EVERYTHING), {"return_last_state": True}),
        Case("empty-batch", selective(0, 4, 3, 4, **EVERYTHING)),
    ]


def update(b, c, n, g=1, **optional):
    """Arrays of a single step."""
    shapes = {"D": (c,), "z": (b, c), "delta_bias": (c,)}
    return {
        "state": (b, c, n),
        "u": (b, c),
        "delta": lambda rng: rng.uniform(0.01, 0.6, (b, c)),
        "A": lambda rng: -rng.uniform(0.2, 4.0, (c, n)),
        "B": (b, g, n),
        "C": (b, g, n),
    } | {name: shapes[name] for name, wanted in optional.items() if wanted}


class TestSelectiveStateUpdate(OpSuite):
    op = ops.selective_state_update
    cases = [
        Case("plain", update(2, 6, 4)),
        Case("everything", update(2, 33, 16, D=True, z=True, delta_bias=True), {"delta_softplus": True}),
        Case("groups", update(3, 8, 3, g=2, D=True)),
        Case("one-channel", update(1, 1, 1, z=True)),
        Case("many-states", update(1, 3, 33), {"delta_softplus": True}),
        Case("more-states", update(1, 3, 150), {"delta_softplus": True}, emulated=False),
        Case("empty-batch", update(0, 3, 4, D=True, z=True, delta_bias=True)),
    ]


backends = pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])


@pytest.fixture
def arrays(request, backend):
    """Brings a dict of arguments to the backend's arrays; skips backends that are not tested."""
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    with device_of(backend) as (to, back):
        yield (
            lambda arguments: {
                n: to(a) if isinstance(a, numpy.ndarray) and n != "order" else a for n, a in arguments.items()
            },
            back,
        )


def drawn(*sizes, options=None, **optional):
    return Case("drawn", selective(*sizes, **optional), options or {}).draw()


def test_linear_scan_closed_form():
    """h[t] = sum_s (product of a over s+1..t) b[s]."""
    rng = numpy.random.default_rng(0)
    a, b, h0 = rng.uniform(0.2, 1.0, (2, 9, 3)), rng.standard_normal((2, 9, 3)), rng.standard_normal((2, 3))
    want = [
        sum(a[:, s + 1 : t + 1].prod(axis=1) * b[:, s] for s in range(t + 1))
        + a[:, : t + 1].prod(axis=1) * h0
        for t in range(9)
    ]
    with mixers.use_backend("reference"):
        got = ops.linear_scan(a, b, h0)
    numpy.testing.assert_allclose(got, numpy.stack(want, axis=1), rtol=1e-12)


def test_selective_scan_closed_form():
    """The scan as one lower triangular matrix per channel: y = (M * D[t, s]) u."""
    x = drawn(2, 11, 4, 3, g=2, D=True)
    l = x["u"].shape[1]
    total = numpy.cumsum(x["delta"], axis=1)
    # (b, t, s, c, n): the decay from token s to token t, the strictly upper part cut off
    decay = numpy.exp((total[:, :, None] - total[:, None])[..., None] * x["A"])
    decay *= numpy.tril(numpy.ones((l, l)))[:, :, None, None]
    B, C = (numpy.repeat(x[n], 2, axis=2) for n in "BC")
    matrix = numpy.einsum("btcn,btscn,bscn,bsc->btsc", C, decay, B, x["delta"])
    want = numpy.einsum("btsc,bsc->btc", matrix, x["u"]) + x["D"] * x["u"]
    with mixers.use_backend("reference"):
        got = ops.selective_scan(**x)
    numpy.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@backends
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length(arrays, backend, length):
    to, back = arrays
    if backend == "emulated" and length > 200:
        pytest.skip("too large for the emulator")
    case = Case(f"length {length}", selective(1, length, 3, 4, **EVERYTHING), {"delta_softplus": True})
    arguments = case.draw("float32")
    with mixers.use_backend("reference"):
        wide = {n: a.astype("float64") if isinstance(a, numpy.ndarray) else a for n, a in arguments.items()}
        want, saved = ops.selective_scan.forward(**wide)
        dout = cotangents(want).astype("float32")
        gradients = ops.selective_scan.backward(dout.astype("float64"), saved)
    got, saved = ops.selective_scan.forward(**to(arguments))
    assert_close("y", back(got), want, FORWARD["float32"])
    for name, d, w in zip(
        gradients._fields, ops.selective_scan.backward(to({"": dout})[""], saved), gradients
    ):
        assert_close(name, back(d), w, BACKWARD["float32"], floor=1e-6)


@backends
@pytest.mark.parametrize("cut", [1, 16, 20, 39])
def test_two_halves_are_the_whole(arrays, backend, cut):
    to, back = arrays
    x = drawn(2, 40, 5, 4, **EVERYTHING, options={"delta_softplus": True, "return_last_state": True})
    first = {n: a[:, :cut] if n in ("u", "delta", "B", "C", "z") else a for n, a in x.items()}
    second = {n: a[:, cut:] if n in ("u", "delta", "B", "C", "z") else a for n, a in x.items()}
    whole, last = map(back, ops.selective_scan(**to(x)))
    left, carried = map(back, ops.selective_scan(**to(first)))
    right, end = map(back, ops.selective_scan(**to(second | {"h0": carried})))
    numpy.testing.assert_allclose(numpy.concatenate([left, right], axis=1), whole, rtol=1e-12, atol=1e-13)
    numpy.testing.assert_allclose(end, last, rtol=1e-12, atol=1e-13)


@backends
def test_no_look_ahead(arrays, backend):
    to, back = arrays
    x = drawn(1, 40, 5, 4, D=True, z=True, options={"delta_softplus": True})
    y = back(ops.selective_scan(**to(x)))
    for name in ("u", "delta", "B", "C", "z"):
        later = x[name].copy()
        later[:, 23:] += 1.0
        changed = back(ops.selective_scan(**to(x | {name: later})))
        assert numpy.array_equal(changed[:, :23], y[:, :23])
        assert not numpy.array_equal(changed[:, 23:], y[:, 23:])


@backends
def test_reverse_is_flipped(arrays, backend):
    to, back = arrays
    x = drawn(2, 25, 5, 4, **EVERYTHING, options={"return_last_state": True})
    flipped = {n: a[:, ::-1].copy() if n in ("u", "delta", "B", "C", "z") else a for n, a in x.items()}
    want, last = ops.selective_scan(**to(flipped))
    got, end = ops.selective_scan(**to(x | {"reverse": True}))
    assert numpy.array_equal(back(got)[:, ::-1], back(want))
    assert numpy.array_equal(back(end), back(last))


@backends
def test_order_is_permuted(arrays, backend):
    to, back = arrays
    order = numpy.random.default_rng(7).permutation(25)
    x = drawn(2, 25, 5, 4, **EVERYTHING)
    permuted = {n: a[:, order] if n in ("u", "delta", "B", "C", "z") else a for n, a in x.items()}
    want = back(ops.selective_scan(**to(permuted)))
    got = back(ops.selective_scan(**to(x | {"order": order})))
    assert numpy.array_equal(got[:, order], want)


@backends
def test_groups_are_repeated(arrays, backend):
    to, back = arrays
    x = drawn(2, 18, 12, 4, g=3)
    single = {n: numpy.repeat(a, 4, axis=2) if n in ("B", "C") else a for n, a in x.items()}
    want = back(ops.selective_scan(**to(single)))
    assert_close("y", back(ops.selective_scan(**to(x))), want, FORWARD["float64"])


@backends
def test_steps_are_the_scan(arrays, backend):
    to, back = arrays
    x = drawn(2, 9, 5, 4, **EVERYTHING, options={"delta_softplus": True, "return_last_state": True})
    y, last = map(back, ops.selective_scan(**to(x)))
    state = x["h0"]
    constant = {n: x[n] for n in ("A", "D", "delta_bias", "delta_softplus")}
    for t in range(9):
        token = {n: x[n][:, t] for n in ("u", "delta", "B", "C", "z")}
        y_t, state = map(back, ops.selective_state_update(**to({"state": state} | token | constant)))
        numpy.testing.assert_allclose(y_t, y[:, t], rtol=1e-12, atol=1e-13)
    numpy.testing.assert_allclose(state, last, rtol=1e-12, atol=1e-13)


@backends
def test_state_in_place(arrays, backend):
    to, back = arrays
    x = to(Case("in place", update(2, 5, 4)).draw())
    y, new = ops.selective_state_update(**x)
    want = back(new).copy()
    again, state = ops.selective_state_update(**x, out_state=x["state"])
    assert state is x["state"]
    assert numpy.array_equal(back(state), want)
    assert numpy.array_equal(back(again), back(y))


@backends
def test_strided_out_state(arrays, backend):
    to, back = arrays
    x = Case("strided", update(2, 5, 4)).draw()
    wanted = back(ops.selective_state_update(**to(x)).state)
    out = to({"out": numpy.zeros((4, 5, 2))})["out"].transpose(2, 1, 0)
    assert ops.selective_state_update(**to(x), out_state=out).state is out
    assert numpy.array_equal(back(out), wanted)


@backends
def test_one_cotangent_is_enough(arrays, backend):
    to, back = arrays
    x = drawn(2, 20, 5, 4, **EVERYTHING, options={"return_last_state": True})
    out, saved = ops.selective_scan.forward(**to(x))
    douts = cotangents(type(out)(*map(back, out)))
    both = ops.selective_scan.backward(out._make(to(douts._asdict()).values()), saved)
    parts = [
        ops.selective_scan.backward(out._make(to(douts._replace(**{name: None})._asdict()).values()), saved)
        for name in out._fields
    ]
    for name, whole, left, right in zip(both._fields, both, *parts):
        assert_close(name, back(left) + back(right), back(whole), BACKWARD["float64"], floor=1e-3)


@backends
def test_nan_stays(arrays, backend):
    to, back = arrays
    x = drawn(1, 40, 5, 4)
    x["u"][0, 17, 2] = numpy.nan
    y = back(ops.selective_scan(**to(x)))
    assert numpy.isnan(y[0, 17:, 2]).all()
    assert not numpy.isnan(y[0, :17]).any()
    assert not numpy.isnan(numpy.delete(y, 2, axis=2)).any()


def test_saved_states_are_small():
    """The saved intermediates take no more than u at 16 states."""
    x = drawn(1, 4096, 4, 16)
    _, saved = ops.selective_scan.forward(**x)
    assert saved.states.nbytes <= x["u"].nbytes
    assert saved.u is x["u"]


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "h0"])
def test_wrong_shapes(name):
    x = drawn(1, 4, 6, 2, **EVERYTHING)
    x[name] = numpy.zeros((*x[name].shape, 2))
    with pytest.raises(ValueError, match=f"selective_scan: {name} must have shape"):
        ops.selective_scan(**x)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"order": [0, 1, 2, 3]}, TypeError, "order must be a NumPy array of integers"),
        ({"order": numpy.array([0, 1, 2, 2])}, ValueError, "order must be a permutation of 0..3"),
        ({"order": numpy.arange(5)}, ValueError, "order must be a permutation of 0..3"),
        ({"reverse": 1}, TypeError, "reverse must be True or False, got 1"),
        (
            {"B": numpy.zeros((1, 4, 4, 2)), "C": numpy.zeros((1, 4, 4, 2))},
            ValueError,
            "divides c = 6, got g = 4",
        ),
        ({"A": numpy.zeros((6, 2), numpy.complex128)}, TypeError, "A must be float16"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        ops.selective_scan(**(drawn(1, 4, 6, 2) | change))


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize(
    ("n", "dtype"), [(129, "float32"), (128, "float64"), (260, "float64"), (131, "bfloat16")]
)
def test_more_states_than_a_launch_takes_on_the_gpu(n, dtype):
    """The states are scanned in parts, whose results are added up."""
    arrays = selective(1, 18, 4, n, g=2, **EVERYTHING)
    case = Case("parts", arrays, {"delta_softplus": True, "return_last_state": True, "reverse": True})
    check_backend(ops.selective_scan, case, "emulated", dtype)


def test_update_errors():
    x = Case("errors", update(1, 6, 2)).draw()
    with pytest.raises(
        ValueError, match=r"out_state must have shape \(b, c, n\) = \(1, 6, 2\), got \(2, 6\)"
    ):
        ops.selective_state_update(**x, out_state=numpy.zeros((2, 6)))
    with pytest.raises(ValueError, match="out_state must have dtype float64, got float32"):
        ops.selective_state_update(**x, out_state=numpy.zeros((1, 6, 2), "float32"))


def test_linear_scan_errors():
    with pytest.raises(
        ValueError, match=r"linear_scan: b must have shape \(b, l, c\) = \(1, 2, 3\), got \(1, 2\)"
    ):
        ops.linear_scan(numpy.zeros((1, 2, 3)), numpy.zeros((1, 2)))


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
def test_linear_scan_beyond_2_to_31():
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    l, c = 3, 4096
    case = Case("end", {"a": decays(1, l, c), "b": (1, l, c)}).draw("bfloat16")
    want, gradients = reference(ops.linear_scan, case, dout=case["b"])
    with cuda_emulator.activate(last_blocks=4) as device:
        a, b = (device.zeros((2**31 // (l * c) + 2, l, c), x.dtype) for x in case.values())
        a[-1:], b[-1:] = map(device.to_device, case.values())
        h, saved = ops.linear_scan.forward(a, b)
        da, db = ops.linear_scan.backward(b, saved)[:2]
        for name, got, wanted in (("h", h, want), ("da", da, gradients.da), ("db", db, gradients.db)):
            got, wanted = got[-1, :, -64:], wanted[0, :, -64:]
            assert_close(name, device.to_host(got), wanted, BACKWARD["bfloat16"])


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
def test_selective_scan_beyond_2_to_31():
    l, c = 3, 4096
    x = Case("end", selective(1, l, c, 2)).draw("bfloat16")
    want = reference(ops.selective_scan, x)[0]
    with cuda_emulator.activate(last_blocks=4) as device:
        many = {
            n: device.zeros((2**31 // (l * c) + 2, *a.shape[1:]), a.dtype) for n, a in x.items() if n != "A"
        }
        for name, array in many.items():
            array[-1:] = device.to_device(x[name])
        y, saved = ops.selective_scan.forward(A=device.to_device(x["A"]), **many)
        assert_close("y", device.to_host(y[-1, :, -64:]), want[0, :, -64:], FORWARD["bfloat16"])
        assert saved.states.size > 2**31 // l


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 5), st.sampled_from([1, 4, 16])),
    groups=st.integers(1, 4),
    given=st.fixed_dictionaries({n: st.booleans() for n in EVERYTHING}),
    options=st.fixed_dictionaries(
        {n: st.booleans() for n in ("delta_softplus", "return_last_state", "reverse")}
    ),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
)
def test_any_shape(shape, groups, given, options, dtype):
    b, l, per_group, n = shape
    case = Case("any", selective(b, l, groups * per_group, n, g=groups, **given), options)
    check_backend(ops.selective_scan, case, "cpu", dtype)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not among MIXERS_TEST_BACKENDS")
def test_rows_asked_for_ahead():
    # more than the caches hold, and a chunk that is not full
    case = Case("far", selective(1, 2099, 1024, 1, z=True, D=True))
    check_backend(ops.selective_scan, case, "cpu", "float32")
