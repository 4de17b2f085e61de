"""The mixer mechanism on small mixers made for the purpose, and the registry."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy
import pytest

import mixers
from mixers import initializers, ops
from mixers.graph import Value
from mixers.mixer import Metadata, Mixer, Parameter


def metadata(name, ranks=(1,), recurrent=False, grid_tied=False):
    return Metadata(name, "test", "none", 2026, "", ranks, True, recurrent, grid_tied, "O(L)")


@dataclass(frozen=True)
class Gate(Mixer):
    """y = x * a + b, with a bias that can be turned off and a frozen table."""

    dim: int
    bias: bool = True

    metadata = metadata("gate", (1, 2))

    def parameters(self):
        found = {"a": Parameter((self.dim,), initializers.ones)}
        if self.bias:
            found["b"] = Parameter((self.dim,), initializers.normal(0.1))
        return found | {"table": Parameter((self.dim,), initializers.constant(2.0), trainable=False)}

    def mix(self, p, x):
        y = x * p.a * p.table
        return y if p.b is None else y + p.b


class SumState(NamedTuple):
    total: numpy.ndarray


@dataclass(frozen=True)
class RunningSum(Mixer):
    """A recurrent mixer: h[t] = a h[t-1] + x[t]."""

    dim: int

    metadata = metadata("running_sum", recurrent=True)

    def parameters(self):
        return {"a": Parameter((self.dim,), initializers.constant(0.5))}

    def mix(self, p, x, *, state=None, return_state=False):
        decay = x * 0.0 + p.a
        h0 = None if state is None else state.total
        if not return_state:
            return ops.linear_scan(decay, x, h0)
        h, last = ops.linear_scan(decay, x, h0, return_last_state=True)
        return h, SumState(last)


@dataclass(frozen=True)
class Pair(Mixer):
    """Two inputs, two outputs."""

    dim: int

    metadata = metadata("pair")

    def mix(self, p, x, g):
        return x * g, x + g


@dataclass(frozen=True)
class Centred(Mixer):
    """Batch statistics: what a batch norm does with p.training and p.updates."""

    dim: int

    metadata = metadata("centred")

    def parameters(self):
        return {"mean": Parameter((self.dim,), initializers.zeros, trainable=False)}

    def mix(self, p, x):
        if not p.training:
            return x - p.mean
        mean = x.mean(axis=(0, 1))
        plain = mean.array if isinstance(mean, Value) else mean
        p.updates["mean"] = 0.9 * p.mean + 0.1 * plain
        return x - mean


@pytest.fixture(autouse=True)
def _reference():
    with mixers.use_backend("reference"):
        yield


rng = numpy.random.default_rng(0)
x = rng.standard_normal((2, 5, 3))


def test_init_is_reproducible_and_typed():
    mixer = Gate(dim=3)
    one, two = mixer.init(numpy.random.default_rng(7)), mixer.init(7)
    assert list(one) == ["a", "b", "table"]
    assert all(one[n].tobytes() == two[n].tobytes() and one[n].dtype == numpy.float32 for n in one)
    assert mixer.init(0, dtype="bfloat16")["a"].dtype.name == "bfloat16"
    assert mixer.parameter_count == 6
    assert "b" not in Gate(dim=3, bias=False).init(0)


def test_call_forward_and_backward():
    mixer = Gate(dim=3)
    params = mixer.init(0, "float64")
    y, saved = mixer.forward(params, x)
    numpy.testing.assert_array_equal(y, mixer(params, x))
    dy = rng.standard_normal(y.shape)
    dparams, dx = mixer.backward(dy, saved)
    assert list(dparams) == list(params)
    assert dparams["table"] is None
    numpy.testing.assert_allclose(dx, dy * params["a"] * 2.0)
    numpy.testing.assert_allclose(dparams["a"], (dy * x * 2.0).sum((0, 1)))
    numpy.testing.assert_allclose(dparams["b"], dy.sum((0, 1)))


def test_gradients_have_the_dtypes_of_their_arrays():
    mixer = Gate(dim=3)
    params = mixer.init(0, "float64")
    y, saved = mixer.forward(params, x.astype("float32"))
    dparams, dx = mixer.backward(numpy.ones_like(y), saved)
    assert (y.dtype, dx.dtype, dparams["a"].dtype) == ("float32", "float32", "float64")


def test_backward_twice_needs_keep():
    mixer = Gate(dim=3)
    y, saved = mixer.forward(mixer.init(0), x)
    first = mixer.backward(y, saved, keep=True)[1]
    assert mixer.backward(y, saved)[1].tobytes() == first.tobytes()
    with pytest.raises(RuntimeError, match="keep=True"):
        mixer.backward(y, saved)


def test_several_inputs_and_outputs():
    mixer = Pair(dim=3)
    g = rng.standard_normal(x.shape)
    (product, total), saved = mixer.forward({}, x, g)
    numpy.testing.assert_array_equal(product, x * g)
    numpy.testing.assert_array_equal(total, x + g)
    dparams, (dx, dg) = mixer.backward((numpy.ones_like(x), None), saved)
    assert dparams == {}
    numpy.testing.assert_array_equal(dx, g)
    numpy.testing.assert_array_equal(dg, x)


def test_state_in_state_out_and_its_gradients():
    mixer = RunningSum(dim=3)
    params = mixer.init(0, "float64")
    start = SumState(rng.standard_normal((2, 3)))
    (y, state), saved = mixer.forward(params, x, state=start, return_state=True)
    whole, saved_whole = mixer.forward(params, x)
    numpy.testing.assert_allclose(y[:, 0], x[:, 0] + 0.5 * start.total)
    numpy.testing.assert_array_equal(state.total, y[:, -1])
    dstate = SumState(rng.standard_normal((2, 3)))
    _, (dx, dstart) = mixer.backward(numpy.zeros_like(y), saved, dstate=dstate)
    numpy.testing.assert_allclose(dx[:, -1], dstate.total)
    numpy.testing.assert_allclose(dstart.total, 0.5**5 * dstate.total)
    assert type(dstart) is SumState
    _, dx = mixer.backward(numpy.ones_like(whole), saved_whole)
    numpy.testing.assert_allclose(dx[0, :, 0], (1 - 0.5 ** numpy.arange(5, 0, -1)) / 0.5)


def test_training_returns_updated_statistics():
    mixer = Centred(dim=3)
    params = mixer.init(0, "float64")
    y, updates = mixer(params, x, training=True)
    numpy.testing.assert_allclose(updates["mean"], 0.1 * x.mean((0, 1)))
    (y, updates), saved = mixer.forward(params, x, training=True)
    dparams, dx = mixer.backward(numpy.ones_like(y), saved)
    numpy.testing.assert_allclose(dx, 0.0, atol=1e-12)
    assert dparams == {"mean": None}
    numpy.testing.assert_array_equal(mixer(params, x), x)


class Foreign:
    pass


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m, p: m({}, x),
            ValueError,
            "gate: params must have the keys a, b, table; missing a, b, table",
        ),
        (lambda m, p: m(p | {"c": p["a"]}, x), ValueError, "gate: params must have .*; surplus c"),
        (
            lambda m, p: m(p | {"a": p["a"][:2]}, x),
            ValueError,
            r"gate: params\['a'\] must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda m, p: m(p | {"a": 1.0}, x),
            ValueError,
            r"gate: params\['a'\] must have shape \(3,\), got float",
        ),
        (
            lambda m, p: m(p | {"a": p["a"].astype(int)}, x),
            TypeError,
            r"gate: params\['a'\] must be float16, .* got int64",
        ),
        (
            lambda m, p: m(p, x[0]),
            ValueError,
            r"gate: x must have shape \(b, l, c\) or \(b, h, w, c\) with c = 3",
        ),
        (lambda m, p: m(p, x[..., :2]), ValueError, r"with c = 3, got \(2, 5, 2\)"),
        (lambda m, p: m(p, x.astype(int)), TypeError, "gate: x must be float16, .* got int64"),
        (lambda m, p: m(p, [1.0]), TypeError, "gate: x must be an array, got list"),
        (lambda m, p: m(p), TypeError, "gate: expects the inputs x, got 0 arrays"),
        (lambda m, p: m(p, x, x), TypeError, "gate: expects the inputs x, got 2 arrays"),
        (lambda m, p: m(p, x, state=1), TypeError, r"gate: has no option 'state'; known: \(none\)"),
        (lambda m, p: m.step(p, x, None), NotImplementedError, "gate: has no state"),
        (lambda m, p: m.initial_state(2), NotImplementedError, "gate: has no state"),
        (
            lambda m, p: m.backward(x[:1], m.forward(p, x)[1]),
            ValueError,
            r"gate: dy must have the shape of the output \(2, 5, 3\), got \(1, 5, 3\)",
        ),
    ],
)
def test_errors(call, error, message):
    mixer = Gate(dim=3)
    with pytest.raises(error, match=message):
        call(mixer, mixer.init(0, "float64"))


def test_mixers_are_frozen_and_comparable():
    assert Gate(dim=3) == Gate(dim=3)
    assert hash(Gate(dim=3)) == hash(Gate(dim=3))
    with pytest.raises(AttributeError):
        Gate(dim=3).dim = 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mixers.create("pol", dim=3),
            ValueError,
            "create: there is no mixer 'pol'; did you mean pool",
        ),
        (
            lambda: mixers.create("zzz", dim=3),
            ValueError,
            r"there is no mixer 'zzz'; mixers.list_mixers\(\) names all",
        ),
        (
            lambda: mixers.create("pool", dim=3, size=2),
            TypeError,
            "pool: has no option 'size'; its options are dim, pool_size",
        ),
        (lambda: mixers.create("pool"), TypeError, "pool: dim must be given; its options are dim, pool_size"),
        (lambda: mixers.create("pool", dim=0), ValueError, "pool: dim must be an integer >= 1, got 0"),
        (lambda: mixers.create("pool", dim=2.0), TypeError, "pool: dim must be an integer >= 1, got 2.0"),
    ],
)
def test_create_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_listing_filters():
    everything = mixers.list_mixers()
    assert everything == sorted(everything)
    assert "pool" in mixers.list_mixers("mlp", rank=2, causal=False)
    assert "pool" not in mixers.list_mixers(recurrent=True)
    assert mixers.describe("pool").year == 2022
