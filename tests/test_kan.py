"""Kolmogorov-Arnold attention."""

import tracemalloc

import cuda_emulator
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, reference, run
from tolerances import BACKWARD, FORWARD

import mixers
from mixers import ops


def arrays(b, n, h, d, g, r):
    """Shapes of the arguments; coefficients of a size that keeps z of order one."""
    small = lambda shape: lambda rng: rng.standard_normal(shape) / max(1, n * g) ** 0.5
    heads = (b, n, h, d)
    return {
        "q": heads,
        "k": heads,
        "v": heads,
        "phi_cos": small((h, n, g, r)),
        "phi_sin": small((h, n, g, r)),
        "w_up": small((h, n, r)),
    }


class TestKanAttention(OpSuite):
    op = ops.kan_attention
    cases = [
        Case("plain", arrays(2, 13, 2, 8, 3, 4)),
        Case("one-token", arrays(3, 1, 1, 3, 1, 1)),
        Case("two-tokens", arrays(1, 2, 3, 1, 2, 3), {"base": "gelu"}),
        Case("odd-sizes", arrays(1, 33, 2, 33, 2, 7), {"base": "silu"}),
        Case("scale", arrays(2, 17, 1, 5, 3, 12), {"scale": 0.3, "base": "identity"}),
        Case("gelu", arrays(1, 31, 2, 8, 3, 5), {"base": "gelu"}),
        # small logits: an error of their last bit is multiplied by the frequency
        Case("many-frequencies", arrays(1, 9, 1, 4, 40, 2), {"scale": 0.02}),
        Case("high-rank", arrays(1, 10, 1, 3, 1, 33), {"scale": -0.5}),
        Case("query-tiles", arrays(1, 131, 1, 3, 2, 2), differences=False),
        Case("vision", arrays(1, 197, 3, 64, 3, 12), emulated=False, differences=False),
        Case("long", arrays(1, 1025, 1, 8, 1, 3), {"base": "silu"}, emulated=False, differences=False),
        Case("no-frequencies", arrays(1, 5, 2, 3, 0, 2), {"base": "identity"}),
        Case("no-ranks", arrays(1, 5, 2, 3, 2, 0), {"base": "silu"}),
        Case("no-tokens", arrays(2, 0, 2, 4, 3, 2)),
        Case("empty-batch", arrays(0, 5, 2, 4, 3, 2), {"base": "silu"}),
    ]


def sums(b, n, h, d, g, r):
    """The arguments of the sums alone."""
    named = arrays(b, n, h, d, g, r)
    return {"qk": (b, n, 2, h, d), "phi_cos": named["phi_cos"], "phi_sin": named["phi_sin"]}


class TestKanSums(OpSuite):
    op = ops.kan_sums
    cases = [
        Case("plain", sums(2, 13, 2, 8, 3, 4)),
        Case("one-token", sums(3, 1, 1, 3, 1, 1)),
        Case("odd-sizes", sums(1, 33, 2, 33, 2, 7), {"base": "silu"}),
        Case("scale", sums(2, 17, 1, 5, 3, 12), {"scale": 0.3, "base": "identity"}),
        Case("many-frequencies", sums(1, 9, 1, 4, 40, 2), {"scale": 0.02}),
        Case("many-keys", sums(2, 131, 1, 3, 2, 2), differences=False),
        Case("vision", sums(1, 197, 3, 64, 3, 12), emulated=False, differences=False),
        Case("no-ranks", sums(1, 5, 2, 3, 2, 0), {"base": "silu"}),
        Case("no-tokens", sums(2, 0, 2, 4, 3, 2)),
        Case("empty-batch", sums(0, 5, 2, 4, 3, 2)),
    ]


def test_sums_are_those_of_the_attention():
    """With w_up = 1 for one key and values that tell its ranks apart, the attention shows its sums."""
    needs("cpu")
    arguments = Case("sums", arrays(2, 13, 2, 8, 3, 4), {"base": "gelu"}).draw()
    arguments["w_up"][...] = numpy.eye(13, 4)
    arguments["v"][...] = numpy.eye(13, 8)[None, :, None]
    y = ops.kan_attention(**arguments)
    qk = numpy.stack([arguments["q"], arguments["k"]], axis=2)
    z = ops.kan_sums(qk, arguments["phi_cos"], arguments["phi_sin"], base="gelu")
    numpy.testing.assert_allclose(y[..., :4], z, rtol=1e-12)


def test_second_form():
    """The map of the logits written out: S = w_up z, y = S v; no low-rank order."""
    rng = numpy.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 5, 4))
    phi_cos, phi_sin = rng.standard_normal((2, 5, 2, 3))
    w_up = rng.standard_normal((5, 3))
    y = numpy.empty_like(v)
    for i in range(5):
        row = k @ q[i] / 2.0
        z = numpy.zeros(3)
        for j, a in enumerate(row):
            z += a / (1 + numpy.exp(-a))
            for m in (1, 2):
                z += numpy.cos(m * a) * phi_cos[j, m - 1] + numpy.sin(m * a) * phi_sin[j, m - 1]
        y[i] = (w_up @ z) @ v
    heads = lambda a: a[None, :, None]
    with mixers.use_backend("reference"):
        got = ops.kan_attention(*map(heads, (q, k, v)), phi_cos[None], phi_sin[None], w_up[None], base="silu")
    numpy.testing.assert_allclose(got[0, :, 0], y, rtol=1e-12)


def needs(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
def test_large_logits_keep_their_phase(backend):
    """Logits far beyond 2 pi that are exact, q[i] times 1: float32 must not lose the angle m a."""
    needs(backend)
    logits = numpy.array([3.0, 50.25, -777.5, 4096.0, 15000.0, -20001.5, 1e6, 3e9])
    arguments = Case("phase", arrays(1, 8, 1, 1, 20, 2), {"scale": 1.0}).draw("float32")
    arguments["q"][0, :, 0, 0] = logits
    arguments["k"][...] = 1.0
    dout = numpy.random.default_rng(1).standard_normal((1, 8, 1, 1)).astype("float32")
    want, want_gradients = reference(ops.kan_attention, arguments, dout)
    (got,), gradients = run(ops.kan_attention, arguments, dout, backend)
    assert_close("y", got, want, FORWARD["float32"])
    for name, w in zip(ops.kan_attention.arrays, want_gradients):
        assert_close(f"d{name}", gradients[name], w, BACKWARD["float32"])


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_nan_reaches_its_query_only(backend):
    """A NaN in one query is a NaN in its output row and nowhere else."""
    needs(backend)
    case = Case("nan", arrays(1, 19, 2, 5, 2, 3), {"base": "silu"})
    arguments = case.draw("float32")
    arguments["q"][0, 7, 1, 2] = numpy.nan
    dout = numpy.ones((1, 19, 2, 5), "float32")
    (y,), _ = run(ops.kan_attention, arguments, dout, backend)
    hit = numpy.zeros(y.shape, bool)
    hit[0, 7, 1] = True
    numpy.testing.assert_array_equal(numpy.isnan(y), hit)


def test_memory_is_linear_in_the_tokens():
    """Neither an n x n matrix nor a part of it that grows like one."""
    needs("cpu")
    n = 2048
    arguments = Case("memory", arrays(1, n, 1, 4, 1, 2)).draw("float32")
    tracemalloc.start()
    y, saved = ops.kan_attention.forward(**arguments)
    ops.kan_attention.backward(y, saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert saved.z.shape == (1, 1, n, 2)
    assert peak < n * n


@pytest.mark.huge
def test_offsets_beyond_2_to_31():
    """The end of arrays of more than 2^31 values, of which only the last pages are touched."""
    needs("emulated")
    d = 4096
    b = 2**31 // d + 3
    case = Case("end", arrays(1, 1, 1, 32, 1, 1), {"base": "identity", "scale": 0.1})
    end = case.draw("bfloat16")
    with mixers.use_backend("reference"):
        want, saved = ops.kan_attention.forward(**end)
        want_gradients = ops.kan_attention.backward(end["v"], saved)
    with cuda_emulator.activate(last_blocks=4) as device:
        arguments = {name: device.to_device(a) if hasattr(a, "shape") else a for name, a in end.items()}
        for name in ("q", "k", "v"):
            arguments[name] = device.zeros((b, 1, 1, d), end[name].dtype)
            # the last blocks compute the last 32 channels of the last items
            arguments[name][-1, ..., -32:] = device.to_device(end[name][0])
        y, saved = ops.kan_attention.forward(**arguments)
        gradients = ops.kan_attention.backward(arguments["v"], saved)
        for name, got, wanted in (
            ("y", y, want),
            ("dq", gradients.dq, want_gradients.dq),
            ("dk", gradients.dk, want_gradients.dk),
            ("dv", gradients.dv, want_gradients.dv),
        ):
            assert_close(name, device.to_host(got[-1:, ..., -32:]), wanted, BACKWARD["bfloat16"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "relu"}, "kan_attention: base must be one of 'zero', 'silu', 'identity', 'gelu'"),
        ({"k": numpy.zeros((2, 4, 2, 4))}, r"kan_attention: k must have shape \(b, n, h, d\)"),
        ({"v": numpy.zeros((2, 5, 2, 3))}, r"kan_attention: v must have shape \(b, n, h, d\)"),
        ({"phi_cos": numpy.zeros((2, 4, 3, 2))}, r"kan_attention: phi_cos must have shape \(h, n, g, r\)"),
        ({"phi_sin": numpy.zeros((2, 5, 2, 2))}, r"kan_attention: phi_sin must have shape \(h, n, g, r\)"),
        ({"w_up": numpy.zeros((2, 5, 3))}, r"kan_attention: w_up must have shape \(h, n, r\)"),
        ({"q": numpy.zeros((2, 5, 8))}, r"kan_attention: q must have shape \(b, n, h, d\)"),
    ],
)
def test_errors(change, message):
    arguments = Case("error", arrays(2, 5, 2, 4, 3, 2)).draw()
    with pytest.raises(ValueError, match=message):
        ops.kan_attention(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk": numpy.zeros((2, 5, 3, 2, 4))}, r"kan_sums: qk must have shape \(b, n, 2, h, d\)"),
        ({"phi_sin": numpy.zeros((2, 5, 3, 1))}, r"kan_sums: phi_sin must have shape \(h, n, g, r\)"),
        ({"base": "relu"}, "kan_sums: base must be one of 'zero', 'silu', 'identity', 'gelu'"),
    ],
)
def test_errors_of_the_sums(change, message):
    with pytest.raises(ValueError, match=message):
        ops.kan_sums(**{**Case("error", sums(2, 5, 2, 4, 3, 2)).draw(), **change})


def test_scale_must_be_a_number():
    arguments = Case("error", arrays(2, 5, 2, 4, 3, 2)).draw()
    with pytest.raises(TypeError, match="kan_attention: scale must be a number, got '1'"):
        ops.kan_attention(**arguments, scale="1")
