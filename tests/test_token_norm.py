"""Batch norm and group norm."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops


def offset(shape, by):
    """Normal values around a common offset, which the variance must not feel."""
    return lambda rng: rng.standard_normal(shape) + by


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def statistics(c):
    return {"scale": (c,), "bias": (c,), "mean": (c,), "var": positive(c)}


class TestBatchNorm(OpSuite):
    op = ops.batch_norm
    constants = ("mean", "var")
    cases = [
        Case("sequence", {"x": (2, 5, 8), **statistics(8)}),
        Case("image", {"x": (3, 2, 3, 33), **statistics(33)}, {"eps": 0.1}),
        Case("rows", {"x": (7, 3), **statistics(3)}),
        Case("training", {"x": (2, 5, 8), **statistics(8)}, {"training": True}),
        Case("training-image", {"x": offset((3, 4, 5, 33), 3.0), **statistics(33)}, {"training": True}),
        Case(
            "training-long",
            {"x": (3, 1000, 17), **statistics(17)},
            {"training": True},
            emulated=False,
            differences=False,
        ),
        Case("no-tokens", {"x": (2, 0, 3), **statistics(3)}),
        Case("empty-batch", {"x": (0, 4, 3), **statistics(3)}),
    ]


class TestGroupNorm(OpSuite):
    op = ops.group_norm
    cases = [
        Case("sample", {"x": (2, 5, 8), "scale": (8,), "bias": (8,)}),
        Case("image", {"x": (3, 2, 3, 33), "scale": (33,), "bias": (33,)}, {"groups": 3}),
        Case("instance", {"x": (2, 7, 6)}, {"groups": 6, "eps": 0.1}),
        Case("plain", {"x": (1, 3, 4, 6)}, {"groups": 2}),
        Case("scale-only", {"x": (2, 3, 65), "scale": (65,)}, {"groups": 5}),
        Case("offset", {"x": offset((2, 9, 64), 3.0), "scale": (64,), "bias": (64,)}, {"groups": 4}),
        Case(
            "one-element",
            {"x": (2, 1, 3), "scale": (3,), "bias": (3,)},
            {"groups": 3, "eps": 0.1},
            vanishing=("x", "scale"),
        ),
        Case(
            "long",
            {"x": (3, 1025, 34), "scale": (34,), "bias": (34,)},
            {"groups": 2},
            emulated=False,
            differences=False,
        ),
        Case("no-tokens", {"x": (2, 0, 3), "scale": (3,), "bias": (3,)}),
        Case("empty-batch", {"x": (0, 4, 3), "scale": (3,), "bias": (3,)}),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 9, 30))),
    groups=st.integers(1, 5),
    channels=st.integers(2, 9),
)
def test_any_groups(sizes, groups, channels):
    c = groups * channels
    case = Case("any", {"x": (*sizes, c), "scale": (c,), "bias": (c,)}, {"groups": groups, "eps": 0.1})
    check_backend(ops.group_norm, case, "cpu", "float32")


def test_second_form():
    """Layer norm of one token is group norm with one group; instance statistics are those of each channel."""
    x = numpy.random.default_rng(0).standard_normal((4, 1, 6))
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(ops.group_norm(x), ops.layer_norm(x), rtol=1e-12)
        image = numpy.random.default_rng(0).standard_normal((2, 3, 5, 4))
        y = ops.group_norm(image, groups=4, eps=0.0)
        numpy.testing.assert_allclose(y.mean((1, 2)), 0.0, atol=1e-15)
        numpy.testing.assert_allclose(y.var((1, 2)), 1.0, rtol=1e-12)
        one, zero = numpy.ones(4), numpy.zeros(4)
        y, mean, var = ops.batch_norm(image, one, zero, zero, one, eps=0.0, training=True)
        numpy.testing.assert_allclose(mean, image.mean((0, 1, 2)))
        numpy.testing.assert_allclose(var, image.var((0, 1, 2)))
        numpy.testing.assert_allclose(y, ops.batch_norm(image, one, zero, mean, var, eps=0.0), rtol=1e-12)


def test_large_common_offset():
    """The variance is that of the centred values: mean(x^2) - mean^2 would be off by its own size here."""
    x = numpy.random.default_rng(0).standard_normal((2, 400, 4)).astype(numpy.float32) + numpy.float32(1000)
    wide = x.astype(numpy.float64)
    want = (wide - wide.mean((1, 2), keepdims=True)) / wide.std((1, 2), keepdims=True)
    with mixers.use_backend("cpu"):
        numpy.testing.assert_allclose(ops.group_norm(x, eps=0.0), want, atol=5e-4)
        one, zero = numpy.ones(4, "float32"), numpy.zeros(4, "float32")
        y = ops.batch_norm(x, one, zero, zero, one, eps=0.0, training=True).y
    want = (wide - wide.mean((0, 1))) / wide.std((0, 1))
    numpy.testing.assert_allclose(y, want, atol=5e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, c: ops.group_norm(x, groups=2),
            "group_norm: groups must divide c = 3, got 2",
        ),
        (lambda x, c: ops.group_norm(x, groups=0), "group_norm: groups must be an integer >= 1, got 0"),
        (lambda x, c: ops.group_norm(x, eps=-1.0), "group_norm: eps must be >= 0.0, got -1.0"),
        (
            lambda x, c: ops.group_norm(x, x[0, 0, :2]),
            r"group_norm: scale must have shape \(c,\) = \(3,\), got \(2,\)",
        ),
        (
            lambda x, c: ops.group_norm(c),
            r"group_norm: x must have at least 2 axes \(b, ..., c\), got shape \(3,\)",
        ),
        (
            lambda x, c: ops.batch_norm(x, c, c, c, c[:1]),
            r"batch_norm: var must have shape \(c,\) = \(3,\), got \(1,\)",
        ),
        (lambda x, c: ops.batch_norm(x, c, c, c, c, eps=-1.0), "batch_norm: eps must be >= 0.0, got -1.0"),
        (
            lambda x, c: ops.batch_norm(x[:, :0], c, c, c, c, training=True),
            "batch_norm: x must have at least one token when training",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(numpy.ones((2, 5, 3)), numpy.ones(3))


def test_running_statistics_of_a_mixers_batch_norm():
    """Nine tenths of the old value and a tenth of the batch's, with the unbiased variance; no gradient."""
    from mixers.mixer import Params
    from mixers.zoo import blocks

    x = numpy.random.default_rng(0).standard_normal((4, 5, 3))
    specs = blocks.batch_norm_parameters("bn", 3)
    p = Params({n: s.init(None, s.shape) for n, s in specs.items()})
    p.training, p.updates = True, {}
    with mixers.use_backend("reference"):
        y = blocks.batch_norm(p, "bn", x)
    numpy.testing.assert_allclose(y.mean((0, 1)), 0.0, atol=1e-15)
    numpy.testing.assert_allclose(p.updates["bn_mean"], 0.1 * x.mean((0, 1)))
    numpy.testing.assert_allclose(p.updates["bn_var"], 0.9 + 0.1 * x.var((0, 1), ddof=1))
    assert [n for n, s in specs.items() if not s.trainable] == ["bn_mean", "bn_var"]
