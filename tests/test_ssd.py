"""The scan with one decay per head, and its single step."""

import hypothesis
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, cotangents
from hypothesis import strategies as st
from tolerances import BACKWARD

import mixers
from mixers import ops


def arrays(b, l, h, p, n, g=1, dt=(0.01, 0.6), A=(0.2, 4.0), **optional):
    """Arrays of a scan; `dt` and `A` are ranges, `optional` names the further arrays."""
    further = {
        "D": (h,),
        "D_wide": (h, p),
        "z": (b, l, h, p),
        "dt_bias": lambda rng: rng.uniform(0.0, 0.2, h),
        "h0": (b, h, p, n),
    }
    return {
        "x": (b, l, h, p),
        "dt": lambda rng: rng.uniform(*dt, (b, l, h)),
        "A": lambda rng: -rng.uniform(*A, h),
        "B": (b, l, g, n),
        "C": (b, l, g, n),
    } | {name.removesuffix("_wide"): further[name] for name, wanted in optional.items() if wanted}


EVERYTHING = {"D": True, "z": True, "dt_bias": True, "h0": True}
LAST = {"return_last_state": True}


class TestSsdScan(OpSuite):
    op = ops.ssd_scan
    cases = [
        Case("plain", arrays(2, 19, 4, 3, 5)),
        Case(
            "everything", arrays(2, 21, 4, 3, 5, **EVERYTHING), {"dt_softplus": True, "chunk_size": 8, **LAST}
        ),
        Case("groups", arrays(2, 17, 6, 2, 4, g=3, D_wide=True, h0=True), {"chunk_size": 5, **LAST}),
        Case("one-of-each", arrays(1, 7, 1, 1, 1, z=True), {"chunk_size": 3}),
        Case("wide", arrays(1, 70, 2, 40, 35, D=True, z=True), {"dt_softplus": True}),
        Case("chunk-of-one", arrays(1, 5, 2, 3, 4, D=True), {"chunk_size": 1}),
        Case("one-token", arrays(3, 1, 2, 8, 16, **EVERYTHING), LAST),
        Case("two-chunks", arrays(1, 128, 2, 8, 16, h0=True), LAST),
        Case("chunk-and-one", arrays(1, 65, 3, 8, 4, z=True), {"dt_softplus": True, "chunk_size": 64}),
        # the bounds stay clear of the steps, where difference quotients would see both sides
        Case("limits", arrays(2, 20, 2, 3, 4, dt=(0.1, 0.9), dt_bias=True), {"dt_limit": (0.3, 0.7)}),
        Case("growing", arrays(1, 12, 3, 2, 2, A=(-0.5, 0.5), h0=True), LAST),
        Case("many-heads", arrays(1, 9, 20, 4, 3, g=2, D=True)),
        Case(
            "large-decays",
            arrays(1, 80, 2, 3, 4, dt=(5.0, 50.0), A=(1.0, 16.0)),
            halves=False,
            differences=False,
        ),
        Case(
            "near-one",
            arrays(1, 1000, 2, 3, 4, dt=(1e-5, 1e-4), A=(0.1, 1.0), D=True),
            LAST,
            hard=True,
            halves=False,
            differences=False,
        ),
        Case("long", arrays(1, 1025, 1, 2, 16, dt=(0.01, 0.2)), differences=False),
        Case("no-tokens", arrays(2, 0, 2, 3, 4, **EVERYTHING), LAST),
        Case("empty-batch", arrays(0, 4, 2, 3, 4, **EVERYTHING)),
    ]


def update(b, h, p, n, g=1, **optional):
    """Arrays of a single step."""
    shapes = {"D": (h,), "D_wide": (h, p), "z": (b, h, p), "dt_bias": (h,)}
    return {
        "state": (b, h, p, n),
        "x": (b, h, p),
        "dt": lambda rng: rng.uniform(0.01, 0.6, (b, h)),
        "A": lambda rng: -rng.uniform(0.2, 4.0, h),
        "B": (b, g, n),
        "C": (b, g, n),
    } | {name.removesuffix("_wide"): shapes[name] for name, wanted in optional.items() if wanted}


class TestSsdStateUpdate(OpSuite):
    op = ops.ssd_state_update
    cases = [
        Case("plain", update(2, 3, 5, 4)),
        Case("everything", update(2, 4, 33, 16, D=True, z=True, dt_bias=True), {"dt_softplus": True}),
        Case("groups", update(3, 6, 3, 5, g=2, D_wide=True), {"dt_limit": (0.1, 0.5)}),
        Case("one-of-each", update(1, 1, 1, 1, z=True)),
        Case("many-states", update(1, 2, 3, 65)),
        Case("empty-batch", update(0, 3, 4, 2, D=True, z=True, dt_bias=True)),
    ]


backends = pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])


def drawn(*sizes, options=None, **optional):
    return Case("drawn", arrays(*sizes, **optional), options or {}).draw()


def test_closed_form():
    """The scan as one lower triangular matrix per head: y = (C B^T * decay * d) x."""
    a = drawn(2, 11, 4, 3, 5, g=2, D=True)
    alpha = numpy.cumsum(a["dt"] * a["A"], axis=1)
    decay = numpy.exp(alpha[:, :, None] - alpha[:, None]) * numpy.tri(11)[None, :, :, None]
    products = numpy.einsum("btgn,bsgn->btsg", a["C"], a["B"]).repeat(2, axis=3)
    want = numpy.einsum("btsh,bsh,bshp->bthp", products * decay, a["dt"], a["x"]) + a["D"][:, None] * a["x"]
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(ops.ssd_scan(**a), want, rtol=1e-12, atol=1e-13)


@backends
def test_equals_the_selective_scan(backend, bring):
    """Channels with one decay per head and token are a special case of it."""
    to, back = bring
    a = drawn(2, 20, 4, 3, 5, g=2, D_wide=True, z=True, dt_bias=True, h0=True, options={"dt_softplus": True})
    y, last = ops.ssd_scan(**to(a), **LAST)
    flat = lambda v: v.reshape(*v.shape[:2], -1)
    same = {
        "u": flat(a["x"]),
        "delta": a["dt"].repeat(3, axis=2),
        "A": a["A"].repeat(3)[:, None].repeat(5, axis=1),
        "B": a["B"],
        "C": a["C"],
        "D": a["D"].ravel(),
        "z": flat(a["z"]),
        "delta_bias": a["dt_bias"].repeat(3),
        "h0": a["h0"].reshape(2, 12, 5),
        "delta_softplus": True,
    }
    want, want_last = ops.selective_scan(**to(same), **LAST)
    numpy.testing.assert_allclose(flat(back(y)), back(want), rtol=1e-10, atol=1e-12)
    numpy.testing.assert_allclose(back(last).reshape(2, 12, 5), back(want_last), rtol=1e-10, atol=1e-12)


@backends
def test_chunk_size_does_not_matter(backend, bring):
    to, back = bring
    a = drawn(1, 70, 2, 3, 5, **EVERYTHING)
    results = []
    for size in (1, 7, 16, 64, 256):
        out, saved = ops.ssd_scan.forward(**to(a), **LAST, chunk_size=size)
        cot = type(out)(*to(dict(enumerate(cotangents(type(out)(*map(back, out)))))).values())
        results.append([back(r) for r in (*out, *ops.ssd_scan.backward(cot, saved))])
    for other in results[:-1]:
        for got, want in zip(other, results[-1], strict=True):
            assert_close("chunk", got, want, BACKWARD["float64"])


@backends
def test_split_with_the_state_carried_is_the_whole(backend, bring):
    to, back = bring
    a = drawn(2, 30, 4, 3, 5, g=2, D=True, z=True, h0=True, options={"chunk_size": 8})
    tokens = ("x", "dt", "B", "C", "z")
    part = lambda s: {n: v[:, s] if n in tokens else v for n, v in a.items()}
    whole, last = ops.ssd_scan(**to(a), **LAST)
    first, state = ops.ssd_scan(**to(part(slice(0, 11))), **LAST)
    rest = to(part(slice(11, 30))) | {"h0": state}
    second, end = ops.ssd_scan(**rest, **LAST)
    both = numpy.concatenate([back(first), back(second)], axis=1)
    numpy.testing.assert_allclose(both, back(whole), rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(back(end), back(last), rtol=1e-11, atol=1e-12)


@backends
def test_steps_are_the_scan(backend, bring):
    to, back = bring
    a = drawn(2, 6, 4, 3, 5, g=2, D=True, z=True, dt_bias=True, h0=True, options={"dt_softplus": True})
    whole, last = ops.ssd_scan(**to(a), **LAST)
    constant = {n: a[n] for n in ("A", "D", "dt_bias")} | {"dt_softplus": True}
    state = to({"state": a["h0"]})["state"]
    for t in range(6):
        token = {n: a[n][:, t] for n in ("x", "dt", "B", "C", "z")}
        y, state = ops.ssd_state_update(state, **to(token | constant))
        numpy.testing.assert_allclose(back(y), back(whole)[:, t], rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(back(state), back(last), rtol=1e-11, atol=1e-12)


@backends
def test_step_in_place(backend, bring):
    to, back = bring
    a = to(Case("drawn", update(2, 3, 5, 4)).draw())
    want_y, want = ops.ssd_state_update(**a)
    y, state = ops.ssd_state_update(**a, out_state=a["state"])
    assert state is a["state"]
    numpy.testing.assert_array_equal(back(y), back(want_y))
    numpy.testing.assert_array_equal(back(state), back(want))


TOKENS = ("x", "dt", "B", "C", "z")


# with few heads in the batch the CPU computes chunks apart
@pytest.fixture(params=[1, 3], ids=["few-heads", "many-heads"])
def packed(request):
    """Three sequences over some chunks, each with a chunk to itself and sharing one with the next."""
    b = request.param
    a = drawn(b, 60, 4, 3, 5, g=2, D=True, z=True, dt_bias=True, h0=True, options={"dt_softplus": True})
    starts = numpy.zeros((b, 60), bool)
    starts[:, [20, 43]] = True
    return a | {"sequence_starts": starts, "chunk_size": 8}


@backends
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
def test_what_is_not_finite_changes_nothing_before_it(backend, bring, packed, name, value):
    """Neither tokens before it, nor other sequences."""
    to, back = bring
    want = back(ops.ssd_scan(**to(packed)))
    spoilt = packed | {name: packed[name].copy()}
    spoilt[name][:, 30] = value
    y = back(ops.ssd_scan(**to(spoilt)))
    assert not numpy.isfinite(y[:, 30]).any()
    for part in (slice(0, 30), slice(43, None)):
        numpy.testing.assert_allclose(y[:, part], want[:, part], rtol=1e-12, atol=1e-13)


@backends
def test_a_cotangent_that_is_not_finite_changes_nothing_after_it(backend, bring, packed):
    to, back = bring
    y, saved = ops.ssd_scan.forward(**to(packed))
    dy = cotangents(back(y))
    spoilt = dy.copy()
    spoilt[:, 30] = numpy.nan
    want, got = (ops.ssd_scan.backward(to({"dy": d})["dy"], saved) for d in (dy, spoilt))
    for name in TOKENS:
        a, b = (back(getattr(gradients, f"d{name}")) for gradients in (got, want))
        assert not numpy.isfinite(a[:, 30]).any()
        for part in (slice(0, 20), slice(31, None)):
            numpy.testing.assert_allclose(a[:, part], b[:, part], rtol=1e-11, atol=1e-12, err_msg=name)


def test_rate_gradients_keep_their_digits_in_float32():
    """The adjoint of the decays is summed without differences: steep decays cost no digits."""
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not among MIXERS_TEST_BACKENDS")
    case = Case("steep", arrays(1, 512, 2, 16, 16, dt=(0.1, 1.0), A=(1.0, 16.0)))
    narrow = case.draw("float32")
    wide = {n: v.astype("float64") if isinstance(v, numpy.ndarray) else v for n, v in narrow.items()}
    gradients = []
    for arguments, backend in ((narrow, "cpu"), (wide, "reference")):
        with mixers.use_backend(backend):
            y, saved = ops.ssd_scan.forward(**arguments)
            dy = cotangents(y.astype("float32")).astype(y.dtype)
            gradients.append(ops.ssd_scan.backward(dy, saved))
    for name in ("dA", "ddt", "dx"):
        assert_close(name, *(getattr(g, name) for g in gradients), BACKWARD["float32"])


def test_gradient_passes_on_the_bounds_of_the_steps():
    a = drawn(1, 4, 1, 1, 1)
    a["dt"] = numpy.array([0.1, 0.3, 0.5, 0.7])[None, :, None]
    for backend in ("reference", "cpu"):
        if backend in BACKENDS:
            with mixers.use_backend(backend):
                y, saved = ops.ssd_scan.forward(**a, dt_limit=(0.3, 0.5))
                ddt = ops.ssd_scan.backward(numpy.ones_like(y), saved).ddt[0, :, 0]
            assert (ddt[[0, 3]] == 0).all()
            assert (ddt[[1, 2]] != 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": numpy.zeros((2, 4, 3))}, r"ssd_scan: dt must have shape \(b, l, h\) = \(2, 4, 2\)"),
        ({"A": numpy.zeros(3)}, r"ssd_scan: A must have shape \(h,\)"),
        (
            {"B": numpy.zeros((2, 4, 3, 5)), "C": numpy.zeros((2, 4, 3, 5))},
            "number of groups g that divides h = 2",
        ),
        ({"D": numpy.zeros((2, 4))}, r"ssd_scan: D must have shape \(h, p\)"),
        ({"h0": numpy.zeros((2, 2, 5, 3))}, "ssd_scan: h0 must have shape"),
        ({"dt_limit": (1.0, 0.5)}, r"dt_limit \(high\) must be >= 1"),
        ({"dt_limit": 1.0}, "dt_limit must be a pair of numbers"),
        ({"chunk_size": 0}, "chunk_size must be an integer >= 1"),
    ],
)
def test_errors(change, message):
    a = drawn(2, 4, 2, 3, 5) | change
    with pytest.raises(ValueError, match=message):
        ops.ssd_scan(**a)


def test_state_of_another_dtype():
    a = Case("drawn", update(1, 2, 3, 4)).draw()
    with pytest.raises(ValueError, match="out_state must have dtype float64, got float32"):
        ops.ssd_state_update(**a, out_state=numpy.zeros((1, 2, 3, 4), "float32"))


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not among MIXERS_TEST_BACKENDS")
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 5, 63, 64, 65, 130]), st.integers(1, 5)),
    sizes=st.tuples(st.sampled_from([1, 8, 17, 33]), st.sampled_from([1, 7, 16, 65])),
    groups=st.integers(1, 3),
    given=st.fixed_dictionaries({n: st.booleans() for n in EVERYTHING}),
    options=st.fixed_dictionaries({n: st.booleans() for n in ("dt_softplus", "return_last_state")}),
    cut=st.booleans(),
    chunk_size=st.sampled_from([1, 7, 64, 256]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_shape(shape, sizes, groups, given, options, cut, chunk_size, dtype):
    (b, l, heads), (p, n) = shape, sizes
    if cut:
        rng = numpy.random.default_rng(l)
        options = options | {"sequence_starts": rng.random((b, l)) < 0.1, "mask": rng.random((b, l)) < 0.8}
    case = Case(
        "any", arrays(b, l, groups * heads, p, n, g=groups, **given), options | {"chunk_size": chunk_size}
    )
    check_backend(ops.ssd_scan, case, "cpu", dtype)
