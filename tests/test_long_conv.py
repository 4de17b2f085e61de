"""Long convolution."""

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
import scipy.signal
import tolerances
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, reference

import mixers
from mixers import ops


def decaying(taps, channels):
    """A filter that falls off, as the generated ones do."""

    def draw(rng):
        n = numpy.arange(taps)[:, None]
        return rng.standard_normal((taps, channels)) * numpy.exp(-3.0 * n / max(taps, 1))

    return draw


class TestLongConv1d(OpSuite):
    op = ops.long_conv1d
    cases = [
        Case("small", {"x": (2, 9, 3), "h": (9, 3), "D": (3,)}),
        Case("without-skip", {"x": (2, 9, 8), "h": (9, 8)}),
        Case("one-token", {"x": (3, 1, 8), "h": (1, 8), "D": (8,)}),
        Case("one-tap", {"x": (1, 33, 3), "h": (1, 3), "D": (3,)}),
        Case("two-tokens", {"x": (1, 2, 33), "h": (2, 33)}),
        Case("three-tokens", {"x": (3, 3, 1), "h": (3, 1), "D": (1,)}),
        Case("filter-longer", {"x": (2, 7, 5), "h": (40, 5), "D": (5,)}),
        Case("filter-shorter", {"x": (2, 65, 3), "h": (5, 3), "D": (3,)}),
        Case("31-tokens", {"x": (3, 31, 33), "h": decaying(31, 33), "D": (33,)}),
        Case("32-tokens", {"x": (1, 32, 8), "h": decaying(32, 8)}),
        Case("64-tokens", {"x": (1, 64, 3), "h": decaying(64, 3), "D": (3,)}),
        Case("127-tokens", {"x": (1, 127, 3), "h": decaying(127, 3), "D": (3,)}),
        Case("wide", {"x": (4, 40, 100), "h": decaying(40, 100), "D": (100,)}, differences=False),
        Case("300-tokens", {"x": (2, 300, 5), "h": decaying(300, 5), "D": (5,)}),
        Case("1000-tokens", {"x": (3, 1000, 3), "h": decaying(1000, 3), "D": (3,)}, differences=False),
        Case("1025-tokens", {"x": (1, 1025, 33), "h": decaying(1025, 33)}, differences=False, emulated=False),
        Case("short-in-long", {"x": (2, 1000, 8), "h": (17, 8), "D": (8,)}, differences=False),
        Case("both-sides", {"x": (2, 20, 3), "h": (11, 3), "D": (3,)}, {"causal": False}),
        Case("both-sides-beyond", {"x": (1, 6, 8), "h": (31, 8)}, {"causal": False}),
        Case("both-sides-all", {"x": (3, 33, 1), "h": (65, 1), "D": (1,)}, {"causal": False}),
        Case("both-sides-one-tap", {"x": (2, 5, 3), "h": (1, 3)}, {"causal": False}),
        Case(
            "both-sides-long",
            {"x": (3, 500, 9), "h": (999, 9), "D": (9,)},
            {"causal": False},
            differences=False,
        ),
        Case("no-tokens", {"x": (2, 0, 3), "h": (4, 3), "D": (3,)}),
        Case("empty-batch", {"x": (0, 5, 3), "h": (5, 3), "D": (3,)}),
        Case("empty-batch-long", {"x": (0, 900, 3), "h": (900, 3), "D": (3,)}, differences=False),
        Case("no-channels", {"x": (2, 5, 0), "h": (5, 0), "D": (0,)}),
    ]


@pytest.mark.parametrize("taps", [1, 5, 12, 30])
def test_reference_is_a_truncated_convolution(taps):
    rng = numpy.random.default_rng(0)
    x, h, D = rng.standard_normal((2, 12, 3)), rng.standard_normal((taps, 3)), rng.standard_normal(3)
    want = x * D
    for b in range(2):
        for c in range(3):
            want[b, :, c] += numpy.convolve(x[b, :, c], h[:, c])[:12]
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(ops.long_conv1d(x, h, D), want, atol=1e-13)


@pytest.mark.parametrize("taps", [1, 5, 11, 25])
def test_reference_is_a_centred_convolution(taps):
    rng = numpy.random.default_rng(0)
    x, h = rng.standard_normal((1, 11, 1)), rng.standard_normal((taps, 1))
    full = scipy.signal.fftconvolve(x[0], h, axes=0)
    with mixers.use_backend("reference"):
        y = ops.long_conv1d(x, h, causal=False)
    numpy.testing.assert_allclose(y[0], full[taps // 2 : taps // 2 + 11], atol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("length", [60, 1000, 5000])
def test_causality(length, dtype):
    """A change of one token moves earlier outputs by no more than rounding of the change allows."""
    rng = numpy.random.default_rng(3)
    x = rng.standard_normal((2, length, 5)).astype(dtype)
    h = decaying(length, 5)(rng).astype(dtype)
    at, change = length // 2, 100.0
    moved = x.copy()
    moved[:, at] += change
    difference = ops.long_conv1d(moved, h) - ops.long_conv1d(x, h)
    leak = numpy.abs(difference[:, :at]).max()
    assert leak <= tolerances.CAUSALITY_LEAK[dtype] * change * numpy.abs(h).max()
    assert numpy.abs(difference[:, at:]).max() > change * 0.1


def test_filter_beyond_the_sequence_has_no_effect():
    rng = numpy.random.default_rng(4)
    x, h = rng.standard_normal((1, 400, 3)), rng.standard_normal((900, 3))
    y, saved = ops.long_conv1d.forward(x, h)
    gradients = ops.long_conv1d.backward(numpy.ones_like(y), saved)
    assert numpy.abs(y - ops.long_conv1d(x, h[:400])).max() < 1e-12
    assert not gradients.dh[400:].any()
    assert gradients.dh[:400].any()


@pytest.mark.parametrize(("length", "items"), [(40, slice(2, 3)), (700, slice(2, 4))])
def test_nan_stays_in_its_channel_and_transform(length, items):
    """A long convolution takes two items of the batch through one transform."""
    x = numpy.ones((5, length, 20), numpy.float32)
    x[2, 3, 17] = numpy.nan
    y = ops.long_conv1d(x, numpy.ones((length, 20), numpy.float32))
    assert numpy.isnan(y[2, 3:, 17]).all()
    y[items, :, 17] = 0
    assert not numpy.isnan(y).any()


def test_nan_beyond_a_short_filter_stays_out():
    x = numpy.ones((2, 100, 3))
    x[0, 30, 1] = numpy.nan
    y = ops.long_conv1d(x, numpy.ones((5, 3)))
    assert numpy.isnan(y[0, 30:35, 1]).all()
    y[0, 30:35, 1] = 0
    assert not numpy.isnan(y).any()


def test_a_million_tokens():
    """Against a filter of two taps, half the sequence apart."""
    x = numpy.random.default_rng(5).standard_normal((1, 1 << 20, 1), dtype=numpy.float32)
    h = numpy.zeros_like(x[0])
    h[0], h[1 << 19] = 0.5, 2.0
    y, saved = ops.long_conv1d.forward(x, h)
    want = 0.5 * x
    want[:, 1 << 19 :] += 2.0 * x[:, : 1 << 19]
    assert numpy.abs(y - want).max() < 1e-5
    dx, dh, _ = ops.long_conv1d.backward(numpy.ones_like(y), saved)
    want = numpy.full_like(x, 0.5)
    want[:, : 1 << 19] += 2.0
    assert numpy.abs(dx - want).max() < 1e-5
    totals = numpy.cumsum(x[0].astype("float64"), axis=0)
    assert numpy.abs(dh[::-1] - totals).max() < 1e-4 * numpy.abs(totals).max()


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    b=st.integers(0, 3),
    length=st.one_of(st.integers(0, 40), st.integers(200, 700)),
    c=st.integers(0, 20),
    reach=st.one_of(st.integers(1, 40), st.integers(200, 700)),
    causal=st.booleans(),
    skip=st.booleans(),
    dtype=st.sampled_from(["float64", "float32", "bfloat16"]),
)
def test_any_shape(b, length, c, reach, causal, skip, dtype):
    arrays = {"x": (b, length, c), "h": decaying(reach if causal else 2 * reach - 1, c)}
    case = Case("any", arrays | ({"D": (c,)} if skip else {}), {"causal": causal})
    check_backend(ops.long_conv1d, case, "cpu", dtype)


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
def test_offsets_beyond_2_to_31():
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    case = Case("end", {"x": (1, 4, 4096), "h": (4, 4096), "D": (4096,)})
    arguments = case.draw("bfloat16")
    want, _ = reference(ops.long_conv1d, arguments)
    end = arguments.pop("x")
    with cuda_emulator.activate(last_blocks=4) as device:
        x = device.zeros((2**31 // end.size + 2, *end.shape[1:]), end.dtype)
        x[-1:] = device.to_device(end)
        y = ops.long_conv1d(x, **{n: device.to_device(a) for n, a in arguments.items()})
        # the last blocks compute the last channels of the last item
        got = device.to_host(y[-1:, :, -128:])
    assert_close("y", got, want[..., -128:], tolerances.FORWARD["bfloat16"])


@pytest.mark.parametrize(
    ("x", "h", "D", "options", "error", "message"),
    [
        ((2, 3), (3, 3), None, {}, ValueError, r"x must have shape \(b, l, c\), got \(2, 3\)"),
        ((2, 3, 4), (3, 5), None, {}, ValueError, r"h must have shape \(k, c\) with c = 4, got \(3, 5\)"),
        ((2, 3, 4), (0, 4), None, {}, ValueError, r"h must have at least one tap, got shape \(0, 4\)"),
        (
            (2, 3, 4),
            (4, 4),
            None,
            {"causal": False},
            ValueError,
            r"h must have an odd number of taps \(2 k - 1\), got shape \(4, 4\)",
        ),
        ((2, 3, 4), (3, 4), (3,), {}, ValueError, r"D must have shape \(c,\) = \(4,\), got \(3,\)"),
        ((2, 3, 4), (3, 4), None, {"causal": 1}, TypeError, "causal must be True or False, got 1"),
    ],
)
def test_errors(x, h, D, options, error, message):
    D = None if D is None else numpy.zeros(D)
    with pytest.raises(error, match=f"long_conv1d: {message}"):
        ops.long_conv1d(numpy.zeros(x), numpy.zeros(h), D, **options)
