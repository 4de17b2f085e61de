"""Layer norm and root-mean-square norm."""

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, reference
from tolerances import BACKWARD

import mixers
from mixers import ops


def offset(shape, by):
    """Normal values around a common offset, which the variance must not feel."""
    return lambda rng: rng.standard_normal(shape) + by


class TestLayerNorm(OpSuite):
    op = ops.layer_norm
    cases = [
        Case("sequence", {"x": (2, 5, 8), "scale": (8,), "bias": (8,)}),
        Case("image", {"x": (3, 2, 3, 33), "scale": (33,), "bias": (33,)}),
        Case("plain", {"x": (2, 7, 33)}),
        Case("scale-only", {"x": (2, 3, 65), "scale": (65,)}, {"eps": 0.1}),
        Case("bias-only", {"x": (1, 4, 3), "bias": (3,)}),
        Case("offset", {"x": offset((2, 3, 64), 3.0), "scale": (64,), "bias": (64,)}),
        Case("one-channel", {"x": (1, 3, 1), "scale": (1,), "bias": (1,)}),
        Case("vector", {"x": (127,), "scale": (127,), "bias": (127,)}),
        Case("wide", {"x": (1, 2, 1025), "scale": (1025,), "bias": (1025,)}, differences=False),
        Case(
            "many-tokens", {"x": (3, 1000, 8), "scale": (8,), "bias": (8,)}, emulated=False, differences=False
        ),
        Case("no-tokens", {"x": (2, 0, 3), "scale": (3,), "bias": (3,)}),
        Case("empty-batch", {"x": (0, 4, 3), "scale": (3,), "bias": (3,)}),
    ]


class TestRmsNorm(OpSuite):
    op = ops.rms_norm
    cases = [
        Case("sequence", {"x": (2, 5, 8), "scale": (8,)}),
        Case("image", {"x": (3, 2, 3, 33), "scale": (33,)}),
        Case("plain", {"x": (2, 7, 33)}),
        Case("eps", {"x": (2, 3, 65), "scale": (65,)}, {"eps": 0.1}),
        # with a small eps the gradient of a single channel is a difference of nearly equal numbers
        Case("one-channel", {"x": (1, 3, 1), "scale": (1,)}, {"eps": 0.5}),
        Case("vector", {"x": (127,), "scale": (127,)}),
        Case("wide", {"x": (1, 2, 1025), "scale": (1025,)}, differences=False),
        Case("many-tokens", {"x": (3, 1000, 8), "scale": (8,)}, emulated=False, differences=False),
        Case("no-tokens", {"x": (2, 0, 3), "scale": (3,)}),
        Case("empty-batch", {"x": (0, 4, 3), "scale": (3,)}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    c=st.integers(2, 70),
    given=st.tuples(st.booleans(), st.booleans()),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
)
def test_any_shape(shape, c, given, dtype):
    parameters = {name: (c,) for name, wanted in zip(("scale", "bias"), given) if wanted}
    case = Case("any", {"x": (*shape, c), **parameters}, {"eps": 0.1})
    check_backend(ops.layer_norm, case, "cpu", dtype)


def test_second_form():
    """Normalised channels have mean 0 and variance 1; without an offset both norms are the same."""
    x = numpy.random.default_rng(0).standard_normal((2, 3, 7))
    with mixers.use_backend("reference"):
        y = ops.layer_norm(x, eps=0.0)
        numpy.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-15)
        numpy.testing.assert_allclose(y.var(-1), 1.0, rtol=1e-12)
        numpy.testing.assert_allclose(ops.rms_norm(y, eps=1e-3), ops.layer_norm(y, eps=1e-3), rtol=1e-12)


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("op", [ops.layer_norm, ops.rms_norm])
def test_offsets_beyond_2_to_31(op):
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    c = 4096
    end, dend = Case("end", {"x": (16, c), "dy": (16, c)}).draw("bfloat16").values()
    want, want_gradients = reference(op, {"x": end}, dout=dend)
    with cuda_emulator.activate(last_blocks=2) as device:
        x, dy = (device.zeros((2**31 // c + 16, c), end.dtype) for _ in range(2))
        x[-16:], dy[-16:] = device.to_device(end), device.to_device(dend)
        y, saved = op.forward(x)
        dx = op.backward(dy, saved).dx
        for name, got, wanted in (("y", y, want), ("dx", dx, want_gradients.dx)):
            assert_close(name, device.to_host(got[-8:]), wanted[-8:], BACKWARD["bfloat16"])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_large_common_offset(backend):
    """The variance is that of the centred values: mean(x^2) - mean^2 would be off by its own size here."""
    x = numpy.random.default_rng(0).standard_normal((4, 200)).astype(numpy.float32) + numpy.float32(1000)
    wide = x.astype(numpy.float64)
    want = (wide - wide.mean(-1, keepdims=True)) / numpy.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    with mixers.use_backend(backend):
        numpy.testing.assert_allclose(ops.layer_norm(x), want, atol=5e-4)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_constant_channels(backend):
    """Without variance the output is the bias and eps keeps the gradient finite."""
    x = numpy.full((1, 2, 5), 3.0, numpy.float32)
    bias = numpy.arange(5, dtype=numpy.float32)
    with mixers.use_backend(backend):
        y, saved = ops.layer_norm.forward(x, None, bias)
        gradients = ops.layer_norm.backward(numpy.ones_like(y), saved)
    numpy.testing.assert_array_equal(y, numpy.broadcast_to(bias, y.shape))
    numpy.testing.assert_allclose(gradients.dx, 0.0, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("op", [ops.layer_norm, ops.rms_norm])
def test_nan_stays_in_its_token(op, backend):
    x = numpy.random.default_rng(0).standard_normal((2, 3, 4))
    x[1, 2, 0] = numpy.nan
    with mixers.use_backend(backend):
        bad = numpy.isnan(op(x))
    assert bad[1, 2].all()
    assert bad.sum() == 4


@pytest.mark.parametrize(
    ("op", "shapes", "options", "message"),
    [
        (
            ops.layer_norm,
            ((2, 3), (2,)),
            {},
            r"layer_norm: scale must have shape \(c,\) = \(3,\), got \(2,\)",
        ),
        (
            ops.layer_norm,
            ((2, 3), (3,), (4,)),
            {},
            r"layer_norm: bias must have shape \(c,\) = \(3,\), got \(4,\)",
        ),
        (ops.layer_norm, ((2, 3),), {"eps": -1.0}, r"layer_norm: eps must be >= 0.0, got -1.0"),
        (ops.layer_norm, ((),), {}, r"layer_norm: x must have at least 1 axis, got shape \(\)"),
        (
            ops.rms_norm,
            ((2, 3), (2, 3)),
            {},
            r"rms_norm: scale must have shape \(c,\) = \(3,\), got \(2, 3\)",
        ),
        (ops.rms_norm, ((2, 3),), {"eps": -1e-9}, r"rms_norm: eps must be >= 0.0, got -1e-09"),
    ],
)
def test_errors(op, shapes, options, message):
    with pytest.raises(ValueError, match=message):
        op(*map(numpy.zeros, shapes), **options)
