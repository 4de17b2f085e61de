"""StarReLU, and gates with their activations."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


def off_the_kink(*shape):
    """Normal values, none of them close to 0."""

    def draw(rng):
        x = rng.standard_normal(shape)
        return x + numpy.copysign(0.01, x)

    return draw


def slice_of_wider(*shape, start):
    """The last axis taken out of a wider array, as a split leaves it."""

    def draw(rng):
        wide = rng.standard_normal((*shape[:-1], shape[-1] + 9))
        return wide[..., start : start + shape[-1]]

    return draw


class TestStarRelu(OpSuite):
    op = ops.star_relu
    cases = (
        Case("squared", {"x": off_the_kink(2, 5, 33)}),
        Case("learned", {"x": off_the_kink(3, 7, 9), "scale": (1,), "bias": (1,)}),
        Case("scale", {"x": off_the_kink(40), "scale": (1,)}),
        Case("bias", {"x": off_the_kink(1, 1), "bias": (1,)}),
        Case("parts", {"x": (17, 1025), "scale": (1,), "bias": (1,)}, differences=False),
        Case("empty", {"x": (0, 3), "scale": (1,), "bias": (1,)}, differences=False),
    )


class TestGate(OpSuite):
    op = ops.gate
    cases = (
        *(
            Case(name, {"x": (2, 5, 33), "z": (2, 5, 33)}, {"activation": name})
            for name in ("gelu", "silu", "sigmoid", "none")
        ),
        Case("one", {"x": (1,), "z": (1,)}),
        Case("long", {"x": (17, 1025), "z": (17, 1025)}, differences=False),
        Case("empty", {"x": (0, 3), "z": (0, 3)}, differences=False),
    )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("shape", [(3, 5, 33), (2, 1, 7), (1, 1, 3), (4, 64)])
def test_gate_of_slices(backend, shape):
    """Slices of wider arrays are read where they are, with the result of copies."""
    rng = numpy.random.default_rng(0)
    x, z, dy = (slice_of_wider(*shape, start=start)(rng) for start in (0, 5, 9))
    z.flags.writeable = False
    with mixers.use_backend(backend):
        for views in ((x, z, dy), (x.copy(), z, dy.copy()), (x, z[::-1, ...], dy)):
            results = []
            for a, b, d in (views, [v.copy() for v in views]):
                y, saved = ops.gate.forward(a, b)
                results.append([r.tobytes() for r in (y, *ops.gate.backward(d, saved))])
            assert results[0] == results[1]


SHAPES = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)
ANY_DTYPE = st.sampled_from(["float32", "float64", "bfloat16"])


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=SHAPES, activation=st.sampled_from(["gelu", "silu", "sigmoid", "none"]), dtype=ANY_DTYPE
)
def test_gate_of_any_shape(shape, activation, dtype):
    case = Case("any", {"x": shape, "z": shape}, {"activation": activation})
    check_backend(ops.gate, case, "cpu", dtype)


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(shape=SHAPES, scale=st.booleans(), dtype=ANY_DTYPE)
def test_star_relu_of_any_shape(shape, scale, dtype):
    # without a bias: the sum of random cotangents has no digits to compare when it happens to vanish
    case = Case("any", {"x": shape, "scale": (1,) if scale else None})
    check_backend(ops.star_relu, case, "cpu", dtype)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    wider=st.tuples(*[st.integers(0, 3)] * 4),
    start=st.integers(0, 3),
    order=st.permutations(range(4)),
)
def test_gate_of_any_slices(shape, wider, start, order):
    """Any cut out of a larger array, with its axes in any order, gives the bits of copies."""
    rng = numpy.random.default_rng(0)
    axes = [i for i in order if i < len(shape)]
    large = rng.standard_normal([shape[i] + wider[i] for i in axes]).transpose(numpy.argsort(axes))
    x = large[tuple(slice(min(start, w), min(start, w) + n) for n, w in zip(shape, wider))]
    assert x.shape == shape
    z = rng.standard_normal(shape)
    for a, b in ((x, z), (z, x)):
        y, saved = ops.gate.forward(a, b)
        want, copied = ops.gate.forward(a.copy(), b.copy())
        numpy.testing.assert_array_equal(y, want)
        for got, d in zip(ops.gate.backward(x, saved), ops.gate.backward(x.copy(), copied), strict=True):
            numpy.testing.assert_array_equal(got, d)


def test_gate_copies_no_slices(monkeypatch):
    from mixers.cpu import aligned

    wide = numpy.ones((4, 6, 32))
    copied = []
    monkeypatch.setattr(aligned, "empty", lambda *a, empty=aligned.empty: copied.append(a) or empty(*a))
    ops.gate(wide[..., :16], wide[..., 16:])
    assert len(copied) == 1, "the result and nothing else"


def test_star_relu_at_and_around_zero():
    x = numpy.array([-numpy.inf, -1.0, -0.0, 0.0, 1e-200, 3.0, numpy.inf, numpy.nan])
    for backend in ("reference", "cpu"):
        with mixers.use_backend(backend):
            y, saved = ops.star_relu.forward(x)
            dx = ops.star_relu.backward(numpy.ones(8), saved).dx
        numpy.testing.assert_array_equal(y, [0, 0, 0, 0, 0, 9, numpy.inf, numpy.nan])
        numpy.testing.assert_array_equal(dx, [0, 0, 0, 0, 2e-200, 6, numpy.inf, numpy.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.star_relu(x, x), r"star_relu: scale must have shape \(1,\) = \(1,\), got \(2, 3\)"),
        (lambda x: ops.gate(x, x[:1]), r"gate: z must have the shape \(2, 3\) of x, got \(1, 3\)"),
        (lambda x: ops.gate(x, x, activation="exp"), "gate: activation must be one of 'gelu', 'silu'"),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call(numpy.zeros((2, 3)))
