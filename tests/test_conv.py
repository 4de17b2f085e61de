"""Short convolutions: depthwise 2-D, causal depthwise 1-D and its streaming form."""

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
import tolerances
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, device_of, outputs, reference
from scipy import ndimage, signal

import mixers
from mixers import ops


def image(name, grid, channels, kernel, batch=2, bias=True, options=None, **kwargs):
    arrays = {"x": (batch, *grid, channels), "w": (*kernel, channels), "b": (channels,) if bias else None}
    return Case(name, arrays, options or {}, **kwargs)


class TestDepthwiseConv2d(OpSuite):
    op = ops.depthwise_conv2d
    cases = [
        image("k3", (5, 7), 8, (3, 3)),
        image("k3-tails", (6, 4), 33, (3, 3), batch=3, bias=False),
        image("k3-wide", (9, 31), 16, (3, 3), batch=1),
        image("k3-one-pixel", (1, 1), 3, (3, 3), batch=1),
        image("k3-one-row", (1, 33), 3, (3, 3), batch=1),
        image("k3-one-column", (33, 1), 1, (3, 3), batch=1),
        image("k3-valid", (6, 5), 8, (3, 3), options={"padding": ((0, 0), (0, 0))}),
        image("k3-padded", (3, 4), 3, (3, 3), options={"padding": ((4, 1), (0, 5))}),
        image("k5", (9, 6), 33, (5, 5)),
        image("k7", (14, 14), 20, (7, 7), batch=1),
        image("k7-tails", (9, 11), 33, (7, 7), bias=False),
        image("k7-over-grid", (3, 2), 8, (7, 7)),
        image("k7-two-column-blocks", (3, 65), 3, (7, 7), batch=1),
        image("many-images", (3, 4), 3, (3, 3), batch=17),
        image("many-images-k7", (3, 4), 3, (7, 7), batch=17, bias=False),
        image("k9", (8, 6), 8, (9, 9), batch=1),
        image("k13-long-side", (4, 17), 3, (1, 13), batch=1),
        image("k11-high", (17, 3), 3, (11, 1), batch=1),
        image("even", (5, 6), 8, (4, 2)),
        image("k1", (3, 4), 3, (1, 1), batch=1),
        image("dilated", (12, 9), 8, (7, 7), batch=1, options={"dilation": 3}),
        image("dilated-k3", (5, 8), 3, (3, 3), options={"dilation": 2}),
        image("dilated-even", (6, 5), 3, (2, 4), options={"dilation": 2}),
        image("dilated-over-grid", (3, 4), 3, (5, 3), options={"dilation": 4}),
        image("valid-dilated", (9, 8), 3, (3, 2), options={"dilation": 3, "padding": ((1, 0), (0, 2))}),
        image("empty-output", (2, 5), 3, (3, 3), options={"padding": ((0, 0), (1, 1))}),
        image("no-rows", (0, 4), 3, (3, 3)),
        image("bias-alone", (0, 4), 3, (2, 1), options={"padding": ((1, 1), (0, 0))}),
        image("empty-batch", (4, 4), 3, (7, 7), batch=0),
        image("large", (56, 56), 40, (7, 7), emulated=False, differences=False),
        image("large-k3", (57, 63), 24, (3, 3), emulated=False, differences=False),
        image("long-row", (2, 1025), 3, (3, 5), batch=1, emulated=False, differences=False),
    ]


def sequence(name, length, channels, taps, batch=2, bias=True, state=False, options=None, **kwargs):
    arrays = {
        "x": (batch, length, channels),
        "w": (taps, channels),
        "b": (channels,) if bias else None,
        "initial_state": (batch, taps - 1, channels) if state else None,
    }
    return Case(name, arrays, options or {}, **kwargs)


class TestCausalConv1d(OpSuite):
    op = ops.causal_conv1d
    cases = [
        sequence("k4", 33, 8, 4),
        sequence("k4-no-silu", 32, 3, 4, bias=False, options={"activation": "none"}),
        sequence("k4-states", 65, 33, 4, state=True, options={"return_final_state": True}),
        sequence("final-state", 31, 8, 3, options={"return_final_state": True}),
        sequence("shorter-than-kernel", 2, 3, 4, state=True, options={"return_final_state": True}),
        sequence("shorter-without-state", 2, 3, 4, options={"return_final_state": True}),
        sequence("one-token", 1, 8, 4, batch=3, state=True),
        sequence("k1", 5, 3, 1, state=True, options={"return_final_state": True}),
        sequence("k2", 64, 20, 2, bias=False),
        sequence("k3", 127, 33, 3, batch=1, state=True),
        sequence("k8", 63, 3, 8, state=True),
        sequence("long-kernel", 40, 8, 11, state=True, options={"return_final_state": True}),
        sequence("long-kernel-no-silu", 20, 3, 37, batch=1, options={"activation": "none"}),
        sequence("no-tokens", 0, 3, 4, state=True, options={"return_final_state": True}),
        sequence("empty-batch", 5, 3, 4, batch=0, state=True),
        sequence("long", 1025, 33, 4, state=True, emulated=False, differences=False),
        sequence("long-thousand", 1000, 8, 3, batch=3, emulated=False, differences=False),
    ]


def update(name, tokens, channels, taps, kept, batch=2, bias=True, options=None):
    shape = (batch, channels) if tokens is None else (batch, tokens, channels)
    arrays = {
        "x": shape,
        "state": (batch, kept, channels),
        "w": (taps, channels),
        "b": (channels,) if bias else None,
    }
    return Case(name, arrays, options or {})


class TestCausalConv1dUpdate(OpSuite):
    op = ops.causal_conv1d_update
    cases = [
        update("one-token", None, 33, 4, 3),
        update("one-token-wide-state", None, 8, 4, 6, bias=False),
        update("tokens", 3, 8, 3, 4, options={"activation": "none"}),
        update("more-tokens-than-state", 9, 3, 4, 3, batch=1),
        update("k1-no-state", 2, 3, 1, 0),
        update("k1-kept-state", None, 3, 1, 2),
        update("long-kernel", 2, 3, 12, 14),
        update("empty-batch", None, 3, 4, 3, batch=0),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 17), st.integers(1, 20)),
    kernel=st.tuples(st.integers(1, 9), st.sampled_from([3, 4])),
    dilation=st.sampled_from([1, 2]),
    padding=st.none() | st.tuples(*[st.tuples(st.integers(0, 9), st.integers(0, 9))] * 2),
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_any_image(shape, kernel, dilation, padding, bias, dtype):
    if padding is not None:
        grown = [n + sum(p) for n, p in zip(shape[1:3], padding)]
        hypothesis.assume(all(n >= dilation * (k - 1) for n, k in zip(grown, kernel)))
    arrays = {"x": shape, "w": (*kernel, shape[3]), "b": shape[3:] if bias else None}
    options = {"dilation": dilation, "padding": padding or "same"}
    check_backend(ops.depthwise_conv2d, Case("any", arrays, options), "cpu", dtype)


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 2), st.integers(0, 140), st.integers(1, 40)),
    taps=st.sampled_from([1, 3, 4, 6]),
    state=st.booleans(),
    bias=st.booleans(),
    activation=st.sampled_from(["silu", "none"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_any_sequence(shape, taps, state, bias, activation, dtype):
    options = {"activation": activation, "return_final_state": state}
    case = sequence("any", *shape[1:], taps, batch=shape[0], bias=bias, state=state, options=options)
    check_backend(ops.causal_conv1d, case, "cpu", dtype)


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize(
    ("op", "grid", "kernel"),
    [
        (ops.depthwise_conv2d, (3, 4), (3, 3)),
        (ops.depthwise_conv2d, (3, 4), (7, 7)),
        (ops.depthwise_conv2d, (3, 4), (2, 3)),
        (ops.causal_conv1d, (20,), (4,)),
    ],
)
def test_offsets_beyond_2_to_31(op, grid, kernel):
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    c = 4096
    arguments = Case("end", {"x": (1, *grid, c), "w": (*kernel, c), "b": (c,)}).draw("bfloat16")
    end = arguments.pop("x")
    want, want_gradients = reference(op, {"x": end, **arguments}, dout=end)
    with cuda_emulator.activate(last_blocks=4) as device:
        x = device.zeros((2**31 // end.size + 2, *grid, c), end.dtype)
        x[-1:] = device.to_device(end)
        y, saved = op.forward(x, **{n: device.to_device(a) for n, a in arguments.items()})
        dx = op.backward(x, saved).dx
        # the last blocks compute at least the last channels of the last token
        for name, got, wanted in (("y", y, want), ("dx", dx, want_gradients.dx)):
            got, wanted = (a[(-1,) * (a.ndim - 1)][-512:] for a in (got, wanted))
            assert_close(name, device.to_host(got), wanted, tolerances.BACKWARD["bfloat16"])


@pytest.mark.parametrize("kernel", [(3, 3), (7, 5), (4, 2)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_conv2d_second_form(kernel, dilation):
    """A zero-padded correlation with the dilated kernel, as SciPy computes it."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((8, 9)), rng.standard_normal(kernel)
    spread = numpy.zeros([dilation * (k - 1) + 1 for k in kernel])
    spread[::dilation, ::dilation] = w
    # ndimage centres an even kernel one later than "same" padding does
    origin = [-1 if k % 2 == 0 else 0 for k in spread.shape]
    want = ndimage.correlate(x, spread, mode="constant", origin=origin)
    with mixers.use_backend("reference"):
        y = ops.depthwise_conv2d(x[None, :, :, None], w[..., None], dilation=dilation)[0, :, :, 0]
    numpy.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-13)


def test_causal_conv1d_second_form():
    """A direct-form filter with the taps reversed, as SciPy computes it."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal(50), rng.standard_normal(4)
    with mixers.use_backend("reference"):
        y = ops.causal_conv1d(x[None, :, None], w[:, None], activation="none")[0, :, 0]
    numpy.testing.assert_allclose(y, signal.lfilter(w[::-1], 1.0, x), rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
class TestStreaming:
    """Properties of the causal convolution that its state is for."""

    rng = numpy.random.default_rng(3)
    x, w, b = rng.standard_normal((2, 90, 5)), rng.standard_normal((4, 5)), rng.standard_normal(5)

    def run(self, backend, function):
        if backend not in BACKENDS:
            pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
        with device_of(backend) as (to, back):
            return [back(o) for o in outputs(function(to))]

    def test_split_equals_whole(self, backend):
        def whole(to):
            return ops.causal_conv1d(to(self.x), to(self.w), to(self.b), return_final_state=True)

        def split(to):
            first, state = ops.causal_conv1d(
                to(self.x[:, :37]), to(self.w), to(self.b), return_final_state=True
            )
            second, state = ops.causal_conv1d(
                to(self.x[:, 37:]), to(self.w), to(self.b), initial_state=state, return_final_state=True
            )
            return first, second, state

        y, state = self.run(backend, whole)
        first, second, last = self.run(backend, split)
        tolerance = tolerances.FORWARD["float64"].worst
        numpy.testing.assert_allclose(numpy.concatenate([first, second], axis=1), y, atol=tolerance)
        numpy.testing.assert_array_equal(last, state)

    def test_updates_equal_whole(self, backend):
        def stepped(to):
            w, b, state, tokens = to(self.w), to(self.b), to(numpy.zeros((2, 3, 5))), []
            for t in range(10):
                y, state = ops.causal_conv1d_update(to(self.x[:, t]), state, w, b)
                tokens.append(y)
            return (*tokens, state)

        [whole] = self.run(backend, lambda to: ops.causal_conv1d(to(self.x), to(self.w), to(self.b)))
        *tokens, state = self.run(backend, stepped)
        tolerance = tolerances.FORWARD["float64"].worst
        numpy.testing.assert_allclose(numpy.stack(tokens, axis=1), whole[:, :10], atol=tolerance)
        numpy.testing.assert_array_equal(state, self.x[:, 7:10])

    def test_causal(self, backend):
        changed = self.x.copy()
        changed[:, 60:] = numpy.nan
        for k in (4, 11):
            w = numpy.random.default_rng(k).standard_normal((k, 5))
            [y] = self.run(backend, lambda to, w=w: ops.causal_conv1d(to(self.x), to(w)))
            [later] = self.run(backend, lambda to, w=w: ops.causal_conv1d(to(changed), to(w)))
            assert y[:, :60].tobytes() == later[:, :60].tobytes()
            assert numpy.isnan(later[:, 60]).all()


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
@pytest.mark.parametrize("part", ["y", "final_state"])
def test_one_cotangent(backend, part):
    """A cotangent of one output alone: the other counts as zero."""
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    rng = numpy.random.default_rng(1)
    x, w, b = rng.standard_normal((2, 9, 3)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    state, d = rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 9 if part == "y" else 3, 3))

    def gradients(to, back):
        out, saved = ops.causal_conv1d.forward(
            to(x), to(w), to(b), initial_state=to(state), return_final_state=True
        )
        dout = type(out)(**{n: to(d) if n == part else None for n in out._fields})
        return [back(g) for g in ops.causal_conv1d.backward(dout, saved)]

    with mixers.use_backend("reference"):
        want = gradients(lambda a: a, lambda a: a)
    with device_of(backend) as (to, back):
        got = gradients(to, back)
    for g, r in zip(got, want, strict=True):
        numpy.testing.assert_allclose(g, r, atol=1e-12)


@pytest.mark.parametrize("part", ["y", "state"])
@pytest.mark.parametrize("backend", ["cpu", "emulated"])
def test_update_one_cotangent(backend, part):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    rng = numpy.random.default_rng(1)
    x, state = rng.standard_normal((2, 2, 3)), rng.standard_normal((2, 5, 3))
    w, b, d = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal((2, 5, 3))

    def gradients(to, back):
        out, saved = ops.causal_conv1d_update.forward(to(x), to(state), to(w), to(b))
        dout = type(out)(
            **{n: to(d[:, : getattr(out, n).shape[1]]) if n == part else None for n in out._fields}
        )
        return [back(g) for g in ops.causal_conv1d_update.backward(dout, saved)]

    with mixers.use_backend("reference"):
        want = gradients(lambda a: a, lambda a: a)
    with device_of(backend) as (to, back):
        got = gradients(to, back)
    for g, r in zip(got, want, strict=True):
        numpy.testing.assert_allclose(g, r, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (5, 4)])
def test_nan_reaches_its_window_only(backend, kernel):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    x, w = numpy.ones((1, 20, 20, 2), numpy.float32), numpy.ones((*kernel, 2), numpy.float32)
    x[0, 10, 10, 1] = numpy.nan
    with device_of(backend) as (to, back):
        found = numpy.isnan(back(ops.depthwise_conv2d(to(x), to(w))))
    want = numpy.zeros_like(found)
    top, left = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    rows = slice(10 + top - kernel[0] + 1, 10 + top + 1)
    columns = slice(10 + left - kernel[1] + 1, 10 + left + 1)
    want[0, rows, columns, 1] = True
    numpy.testing.assert_array_equal(found, want)


X, W = numpy.zeros((2, 5, 6, 4)), numpy.zeros((3, 3, 4))
S, K = numpy.zeros((2, 5, 4)), numpy.zeros((3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.depthwise_conv2d(S, W),
            r"depthwise_conv2d: x must have shape \(b, h, w, c\), got \(2, 5, 4\)",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W[..., :3]),
            r"depthwise_conv2d: w must have shape \(kh, kw, c\) with c = 4, got \(3, 3, 3\)",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W[:0]),
            r"depthwise_conv2d: w must have kernel sizes >= 1, got shape \(0, 3, 4\)",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, numpy.zeros(3)),
            r"depthwise_conv2d: b must have shape \(c,\) = \(4,\), got \(3,\)",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, dilation=0),
            "depthwise_conv2d: dilation must be an integer >= 1, got 0",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, padding="valid"),
            "depthwise_conv2d: padding must be one of 'same', got 'valid'",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, padding=3),
            r"depthwise_conv2d: padding must be 'same' or \(\(top, bottom\), \(left, right\)\), got 3",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, padding=((0, 0), (-1, 0))),
            r"depthwise_conv2d: padding \(left\) must be an integer >= 0, got -1",
        ),
        (
            lambda: ops.depthwise_conv2d(X, W, dilation=3, padding=((0, 0), (0, 0))),
            "depthwise_conv2d: padding must make the padded grid at least as large as the kernel",
        ),
        (
            lambda: ops.causal_conv1d(S, K, activation="relu"),
            "causal_conv1d: activation must be one of 'silu', 'none', got 'relu'",
        ),
        (
            lambda: ops.causal_conv1d(S, K[:0]),
            r"causal_conv1d: w must have at least one tap, got shape \(0, 4\)",
        ),
        (
            lambda: ops.causal_conv1d(S, K, initial_state=numpy.zeros((2, 3, 4))),
            r"causal_conv1d: initial_state must have shape \(b, k - 1, c\) = \(2, 2, 4\), got \(2, 3, 4\)",
        ),
        (
            lambda: ops.causal_conv1d_update(S, numpy.zeros((2, 1, 4)), K),
            "causal_conv1d_update: state must hold at least k - 1 = 2 tokens, got 1",
        ),
        (
            lambda: ops.causal_conv1d_update(S[0, 0], numpy.zeros((2, 2, 4)), K),
            r"causal_conv1d_update: x must have 2 or 3 axes, got shape \(4,\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("start", [0, 5, 16])
def test_channels_of_wider_arrays_are_read_in_place(start, monkeypatch):
    """A slice of the channels, as a split leaves it: the bits of a copy, and no copy."""
    from mixers.cpu import aligned

    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((2, 6, 5, 40), dtype="float32")[..., start : start + 19]
    w, dy = rng.standard_normal((3, 3, 19), dtype="float32"), rng.standard_normal(x.shape, dtype="float32")
    want, saved = ops.depthwise_conv2d.forward(x.copy(), w)
    gradients = ops.depthwise_conv2d.backward(dy, saved)
    copies = []
    empty = aligned.empty
    monkeypatch.setattr(aligned, "empty", lambda shape, dtype: copies.append(shape) or empty(shape, dtype))
    got, saved = ops.depthwise_conv2d.forward(x, w)
    numpy.testing.assert_array_equal(got, want)
    for d, g in zip(ops.depthwise_conv2d.backward(dy, saved), gradients, strict=True):
        numpy.testing.assert_array_equal(d, g)
    assert x.shape not in copies
