"""The selective scan along several orders at once."""

import cuda_emulator
import hypothesis
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, cotangents, reference
from hypothesis import strategies as st
from tolerances import BACKWARD, FORWARD

import mixers
from mixers import graph, ops, orders


def permutations(k, l, seed=3):
    return numpy.random.default_rng(seed).permuted(numpy.tile(numpy.arange(l), (k, 1)), axis=1)


def crossed(b, l, c, n, k, shared=(), delta=(0.01, 0.6), A=(0.2, 4.0), **optional):
    """Arrays of k directions; those named in `shared` have one. `optional` names the further arrays."""
    of = {name: 1 if name in shared else k for name in ("delta", "A", "B", "C", "D", "delta_bias")}
    further = {
        "D": (of["D"], c),
        # without softplus a negative step would let the state grow
        "delta_bias": lambda rng: rng.uniform(0.0, 0.2, (of["delta_bias"], c)),
    }
    return {
        "u": (b, l, c),
        "delta": lambda rng: rng.uniform(*delta, (b, l, of["delta"], c)),
        "A": lambda rng: -rng.uniform(*A, (of["A"], c, n)),
        "B": (b, l, of["B"], n),
        "C": (b, l, of["C"], n),
    } | {name: further[name] for name, wanted in optional.items() if wanted}


BOTH = {"D": True, "delta_bias": True}
# what makes the decays of all directions the same if coefficients do not follow the orders
LAW = ("delta", "A", "delta_bias")
EVERY = (*LAW, "B", "C", "D")


def options(k, l, **further):
    return {"orders": permutations(k, l), **further}


class TestCrossSelectiveScan(OpSuite):
    op = ops.cross_selective_scan
    cases = [
        Case("own", crossed(2, 35, 6, 4, 4, **BOTH), options(4, 35, delta_softplus=True)),
        Case("plain", crossed(2, 19, 5, 3, 3), options(3, 19)),
        Case("shared", crossed(2, 35, 6, 4, 4, EVERY, **BOTH), options(4, 35, delta_softplus=True)),
        Case(
            "storage-shared",
            crossed(2, 37, 6, 4, 4, ("C", *LAW, "D"), **BOTH),
            options(4, 37, delta_softplus=True, ordered_coefficients=False),
        ),
        Case("storage-own", crossed(1, 33, 5, 2, 3, **BOTH), options(3, 33, ordered_coefficients=False)),
        Case(
            "storage-own-bias",
            crossed(1, 20, 5, 2, 3, ("delta", "A"), **BOTH),
            options(3, 20, delta_softplus=True, ordered_coefficients=False),
        ),
        Case(
            "storage-own-rates",
            crossed(1, 20, 5, 2, 2, ("delta",)),
            options(2, 20, ordered_coefficients=False),
        ),
        Case("shared-steps", crossed(1, 18, 7, 3, 2, ("delta", "B")), options(2, 18)),
        Case("one-direction", crossed(2, 33, 6, 5, 1, **BOTH), options(1, 33, delta_softplus=True)),
        Case(
            "one-direction-storage",
            crossed(1, 20, 3, 4, 1, D=True),
            options(1, 20, ordered_coefficients=False),
        ),
        Case("one-state", crossed(3, 32, 8, 1, 4, **BOTH), options(4, 32, delta_softplus=True)),
        Case(
            "one-state-storage",
            crossed(2, 17, 33, 1, 4, LAW, **BOTH),
            options(4, 17, delta_softplus=True, ordered_coefficients=False),
        ),
        Case("sixteen-states", crossed(1, 35, 33, 16, 4, D=True), options(4, 35, delta_softplus=True)),
        Case(
            "sixteen-states-storage",
            crossed(1, 35, 33, 16, 2, LAW, **BOTH),
            options(2, 35, delta_softplus=True, ordered_coefficients=False),
        ),
        Case("prime-states", crossed(1, 9, 5, 19, 2), options(2, 9, ordered_coefficients=False)),
        Case("many-states", crossed(1, 18, 3, 64, 2, LAW), options(2, 18, ordered_coefficients=False)),
        Case("one-token", crossed(2, 1, 9, 4, 4, **BOTH), options(4, 1)),
        Case("small-orders", crossed(1, 6, 3, 2, 2), {"orders": permutations(2, 6).astype(numpy.int32)}),
        # a task of several vectors of channels, the last one with a tail
        Case("wide-tasks", crossed(16, 18, 70, 2, 2, D=True), options(2, 18), emulated=False),
        Case(
            "near-one",
            crossed(1, 1000, 3, 4, 2, delta=(1e-5, 1e-4), A=(0.1, 1.0), D=True),
            options(2, 1000),
            hard=True,
            halves=False,
            differences=False,
        ),
        Case("no-tokens", crossed(2, 0, 3, 4, 2, **BOTH), options(2, 0)),
        Case("empty-batch", crossed(0, 4, 3, 4, 2, ("delta", "D"), **BOTH), options(2, 4)),
    ]


backends = pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])


def drawn(case, dtype="float64", **further):
    return next(c for c in TestCrossSelectiveScan.cases if c.name == case).draw(dtype) | further


def own(array, i, axis):
    """The entry of direction i along an axis that the directions may share."""
    return numpy.take(array, min(i, array.shape[axis] - 1), axis)


@pytest.mark.parametrize("case", ["own", "shared", "storage-shared", "storage-own"])
def test_closed_form(case):
    """Each direction as a lower triangular matrix per channel, between permutations."""
    x = drawn(case, delta_softplus=True)
    want = numpy.zeros_like(x["u"])
    l = want.shape[1]
    for i, order in enumerate(x["orders"]):
        P = numpy.eye(l)[order]
        Q = P if x.get("ordered_coefficients", True) else numpy.eye(l)
        delta, B, C = (numpy.einsum("ts,bs...->bt...", Q, own(x[name], i, 2)) for name in ("delta", "B", "C"))
        step = numpy.log1p(numpy.exp(delta + own(x["delta_bias"], i, 0)))
        total = numpy.cumsum(step, axis=1)
        # (b, t, s, c, n): the decay from token s to token t, the strictly upper part cut off
        decay = numpy.exp((total[:, :, None] - total[:, None])[..., None] * own(x["A"], i, 0))
        decay *= numpy.tril(numpy.ones((l, l)))[:, :, None, None]
        matrix = numpy.einsum("btn,btscn,bsn,bsc->btsc", C, decay, B, step)
        want += numpy.einsum("tq,btsc,sp,bpc->bqc", P, matrix, P, x["u"]) + own(x["D"], i, 0) * x["u"]
    with mixers.use_backend("reference"):
        got = ops.cross_selective_scan(**x)
    numpy.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@backends
@pytest.mark.parametrize("case", ["own", "shared", "shared-steps"])
def test_is_the_sum_of_scans(bring, backend, case):
    to, back = bring
    x = drawn(case)
    want = 0.0
    for i, order in enumerate(x["orders"]):
        along = {"u": x["u"], "delta": own(x["delta"], i, 2)} | {n: own(x[n], i, 2)[:, :, None] for n in "BC"}
        constant = {n: own(x[n], i, 0) for n in ("A", "D", "delta_bias") if n in x}
        one = to(along | constant) | {"order": order, "delta_softplus": x.get("delta_softplus", False)}
        want = want + back(ops.selective_scan(**one))
    assert_close("y", back(ops.cross_selective_scan(**to(x))), want, FORWARD["float64"])


@backends
def test_one_direction_is_the_selective_scan(bring, backend):
    """The saved states too, so that either may go on from the other's."""
    to, back = bring
    x = drawn("one-direction")
    y, saved = ops.cross_selective_scan.forward(**to(x))
    one = {"u": x["u"], "delta": x["delta"][:, :, 0], "A": x["A"][0], "B": x["B"], "C": x["C"]}
    one |= {"D": x["D"][0], "delta_bias": x["delta_bias"][0], "delta_softplus": True}
    want, wanted = ops.selective_scan.forward(**to(one), order=x["orders"][0])
    numpy.testing.assert_allclose(back(y), back(want), rtol=1e-12, atol=1e-13)
    numpy.testing.assert_allclose(back(saved.states)[0], back(wanted.states), rtol=1e-12, atol=1e-13)


@backends
@pytest.mark.parametrize("ordered", [True, False])
def test_shared_is_repeated(bring, backend, ordered):
    """An array with one direction acts as its copies would, and its gradient is the sum of theirs."""
    to, back = bring
    shared = drawn("shared", ordered_coefficients=ordered)
    repeat = lambda n, a: numpy.repeat(a, 4, axis=2 if n in ("delta", "B", "C") else 0)
    full = {n: repeat(n, a) if n in EVERY else a for n, a in shared.items()}
    dout = numpy.random.default_rng(0).standard_normal(shared["u"].shape)
    results = []
    for x in (shared, full):
        y, saved = ops.cross_selective_scan.forward(**to(x))
        results.append(
            (back(y), list(map(back, ops.cross_selective_scan.backward(to({"": dout})[""], saved))))
        )
    (got, gradients), (want, wanted) = results
    assert_close("y", got, want, FORWARD["float64"])
    for name, d, w in zip(ops.cross_selective_scan.arrays, gradients, wanted, strict=True):
        if name in EVERY:
            w = w.sum(axis=2 if name in ("delta", "B", "C") else 0, keepdims=True)
        assert_close(f"d{name}", d, w, BACKWARD["float64"])


@backends
def test_storage_coefficients_do_not_move(bring, backend):
    """The t-th visited token takes the coefficients of token t: permuting u alone permutes y."""
    to, back = bring
    x = drawn("storage-own")
    order = x["orders"][0]
    single = {n: a[:, :, :1] if n in ("delta", "B", "C") else a[:1] for n, a in x.items() if n in EVERY}
    there = to({"u": x["u"]} | single)
    y = back(ops.cross_selective_scan(**there, orders=order[None], ordered_coefficients=False))
    moved = to({"u": x["u"][:, order]} | single)
    want = back(ops.cross_selective_scan(**moved, orders=numpy.arange(33)[None]))
    numpy.testing.assert_allclose(y[:, order], want, rtol=1e-12, atol=1e-13)


@backends
def test_nan_stays_in_its_channel(bring, backend):
    to, back = bring
    x = drawn("own")
    x["u"][0, 17, 2] = numpy.nan
    y = back(ops.cross_selective_scan(**to(x)))
    seen = numpy.zeros(35, bool)
    for order in x["orders"]:
        seen[order[list(order).index(17) :]] = True
    assert numpy.array_equal(numpy.isnan(y[0, :, 2]), seen)
    assert not numpy.isnan(numpy.delete(y[0], 2, axis=1)).any()
    assert not numpy.isnan(y[1]).any()


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_segments_on_the_gpu(ordered, dtype):
    """Few channels: the tokens of each direction are cut into segments, and what is shared is summed."""
    arrays = crossed(1, 200, 5, 6, 3, ("delta", "B"), delta=(-3.0, 1.0), **BOTH)
    further = {"delta_softplus": True, "ordered_coefficients": ordered}
    case = Case("segments", arrays, options(3, 200, **further))
    check_backend(ops.cross_selective_scan, case, "emulated", dtype)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("shared", [(), ("delta", "B", "A")])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_more_states_than_a_launch_takes_on_the_gpu(shared, dtype):
    arrays = crossed(1, 18, 3, 130, 2, shared, **BOTH)
    check_backend(ops.cross_selective_scan, Case("parts", arrays, options(2, 18)), "emulated", dtype)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("case", ["own", "shared", "storage-shared"])
@pytest.mark.parametrize(("multiprocessors", "launches"), [(1, 4), (3, 2), (40, 1)])
def test_directions_of_a_launch_on_the_gpu(case, multiprocessors, launches):
    """One after the other on a small device, some at once, all at once: a sum each, added up at the end."""
    x = drawn(case)
    dout = cotangents(x["u"])
    want, gradients = reference(ops.cross_selective_scan, x, dout)
    with cuda_emulator.activate() as device:
        device.sm_count = multiprocessors
        y, saved = ops.cross_selective_scan.forward(
            **{n: device.to_device(a) if n in ops.cross_selective_scan.arrays else a for n, a in x.items()}
        )
        scans = [launch for launch in device.launches if launch.kernel.name == "selective_scan_forward"]
        assert len(scans) == launches
        assert_close("y", device.to_host(y), want, FORWARD["float64"])
        got = ops.cross_selective_scan.backward(device.to_device(dout), saved)
        for name, d, w in zip(ops.cross_selective_scan.arrays, got, gradients, strict=True):
            assert_close(f"d{name}", device.to_host(d), w, BACKWARD["float64"])


def test_on_the_tape():
    """Gradients through a tape are those of the op."""
    x = drawn("plain")
    tape = graph.Tape()
    values = {n: tape.value(a) for n, a in x.items() if n != "orders"}
    dout = numpy.ones_like(x["u"])
    y = ops.cross_selective_scan(**values, orders=x["orders"])
    du, dA = tape.backward([(y, dout)], [values["u"], values["A"]])
    _, saved = ops.cross_selective_scan.forward(**x)
    want = ops.cross_selective_scan.backward(dout, saved)
    assert numpy.array_equal(du, want.du)
    assert numpy.array_equal(dA, want.dA)


def test_saved_states_are_small():
    """Per direction no more than u at 16 states."""
    x = Case("long", crossed(1, 4096, 4, 16, 2), options(2, 4096)).draw()
    _, saved = ops.cross_selective_scan.forward(**x)
    assert saved.states.nbytes <= 2 * x["u"].nbytes
    assert saved.u is x["u"]


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "delta_bias"])
def test_wrong_shapes(name):
    x = drawn("own")
    x[name] = numpy.zeros((*x[name].shape, 2))
    with pytest.raises(ValueError, match=f"cross_selective_scan: {name} must have shape"):
        ops.cross_selective_scan(**x)


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "delta_bias"])
def test_two_of_four_directions(name):
    x = drawn("own")
    x[name] = x[name][:, :, :2] if name in ("delta", "B", "C") else x[name][:2]
    with pytest.raises(ValueError, match=f"cross_selective_scan: {name} must have shape .*k"):
        ops.cross_selective_scan(**x)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"orders": [[0, 1]]}, TypeError, "orders must be a NumPy array of integers, got"),
        ({"orders": numpy.zeros((2, 19))}, TypeError, "orders must be a NumPy array of integers, got dtype"),
        ({"orders": numpy.arange(19)}, ValueError, r"orders must have shape \(k, l\) with k >= 1, l = 19"),
        ({"orders": numpy.empty((0, 19), int)}, ValueError, r"k >= 1, l = 19, got \(0, 19\)"),
        ({"orders": permutations(3, 18)}, ValueError, r"l = 19, got \(3, 18\)"),
        (
            {"orders": permutations(3, 19) % 18},
            ValueError,
            r"each row of orders must be a permutation of 0\.\.18",
        ),
        ({"orders": permutations(4, 19)}, ValueError, "A must have shape"),
        ({"delta_softplus": 1}, TypeError, "delta_softplus must be True or False, got 1"),
        ({"ordered_coefficients": None}, TypeError, "ordered_coefficients must be True or False, got None"),
        ({"A": numpy.zeros((3, 5, 3), numpy.complex128)}, TypeError, "A must be float16"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        ops.cross_selective_scan(**(drawn("plain") | change))


def test_orders_must_be_given():
    x = drawn("plain")
    del x["orders"]
    with pytest.raises(TypeError, match="cross_selective_scan: orders must be given"):
        ops.cross_selective_scan(**x)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 36), st.sampled_from([1, 3, 8])),
    k=st.integers(1, 5),
    shared=st.sets(st.sampled_from(EVERY)),
    given=st.fixed_dictionaries({n: st.booleans() for n in BOTH}),
    switches=st.fixed_dictionaries({n: st.booleans() for n in ("delta_softplus", "ordered_coefficients")}),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
)
def test_any_shape(shape, k, shared, given, switches, dtype):
    case = Case("any", crossed(*shape, k, tuple(shared), **given), options(k, shape[1], **switches))
    check_backend(ops.cross_selective_scan, case, "cpu", dtype)


def test_four_orders_of_a_grid():
    """A constant without decay: every direction counts the tokens it has seen."""
    h, w = 3, 4
    visits = numpy.stack([orders.raster(h, w), orders.column(h, w)])
    one = numpy.ones((1, h * w, 1, 1))
    y = ops.cross_selective_scan(
        numpy.ones((1, h * w, 1)), one, numpy.zeros((1, 1, 1)), one, one, orders=visits
    )
    i, j = numpy.indices((h, w))
    numpy.testing.assert_allclose(y.reshape(h, w), (i * w + j + 1) + (j * h + i + 1))
