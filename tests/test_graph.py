"""The tape: gradients of every operator and of whole expressions, freeing, errors."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import graph, ops

rng = numpy.random.default_rng(0)

EXPRESSIONS = {
    "add": lambda a, b: a + b,
    "add-scalars": lambda a, b: (1.5 + a) + (b + 2),
    "sub": lambda a, b: a - b,
    "sub-scalars": lambda a, b: (1.0 - a) - (b - 2),
    "mul": lambda a, b: a * b,
    "mul-scalars": lambda a, b: 3 * a * 0.5 + b,
    "div": lambda a, b: a / (b * b + 1.0),
    "div-scalars": lambda a, b: 2.0 / (a * a + 1.0) + b / 4,
    "negate": lambda a, b: -a + b,
    "broadcast": lambda a, b: a * b[0, 0] + b[:1],
    "used-twice": lambda a, b: a * a * b + a,
    "reshape": lambda a, b: a.reshape(6, 4) * b.reshape(6, 4),
    "transpose": lambda a, b: a.transpose(2, 0, 1) * b.transpose((2, 0, 1)),
    "reversed-axes": lambda a, b: a.transpose() + b.transpose(),
    "swapaxes": lambda a, b: a.swapaxes(0, 1) * b.swapaxes(0, 1),
    "slice": lambda a, b: a[:, ::-1] * b[:, 1:2],
    "newaxis": lambda a, b: a[:, None] * b[..., None, :],
    "sum": lambda a, b: a.sum() * b,
    "sum-axes": lambda a, b: a.sum(axis=(0, 2), keepdims=True) * b + b.sum(axis=-1, keepdims=True),
    "mean": lambda a, b: a.mean(axis=1, keepdims=True) * b,
    "concatenate": lambda a, b: graph.concatenate([a, b, a], axis=1) * 2.0,
    "split": lambda a, b: graph.split(a, [1, 3])[1] * graph.split(b, [3, 1])[0],
    "split-part-unused": lambda a, b: graph.split(a, [1, 2], axis=1)[0] * b[:, :1],
    "ops": lambda a, b: ops.layer_norm(ops.silu(a), eps=0.1) * ops.gelu(b),
    "constant": lambda a, b: (a * b).astype(a.dtype) * graph.constant([1, 2, 3, 4], like=a),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_gradients(name):
    expression = EXPRESSIONS[name]
    arrays = {"a": rng.standard_normal((2, 3, 4)), "b": rng.standard_normal((2, 3, 4))}

    def backward(arrays, dout):
        tape = graph.Tape()
        values = {n: tape.value(a) for n, a in arrays.items()}
        out = expression(**values)
        gradients = tape.backward([(out, dout)], list(values.values()))
        return dict(zip(values, gradients))

    with mixers.use_backend("reference"):
        tape = graph.Tape()
        traced = expression(*(tape.value(a) for a in arrays.values()))
        plain = expression(**arrays)
        numpy.testing.assert_array_equal(traced.array, plain)
        check_differences(lambda a: expression(**a), backward, arrays)


def test_arrays_on_the_left_stay_on_the_tape():
    tape = graph.Tape()
    x = tape.value(numpy.ones(3))
    with mixers.use_backend("reference"):
        y = numpy.full(3, 2.0) * x - numpy.ones(3)
    assert isinstance(y, graph.Value)
    assert tape.backward([(y, numpy.ones(3))], [x])[0].tolist() == [2.0, 2.0, 2.0]


def test_unreached_target_has_no_gradient():
    tape = graph.Tape()
    x, y = tape.value(numpy.ones(2)), tape.value(numpy.ones(2))
    assert tape.backward([(x * 2.0, numpy.ones(2))], [x, y])[1] is None


def test_stop_gradient():
    tape = graph.Tape()
    x = tape.value(numpy.full(2, 3.0))
    with mixers.use_backend("reference"):
        y = x * graph.stop_gradient(x)
    assert tape.backward([(y, numpy.ones(2))], [x])[0].tolist() == [3.0, 3.0]


def test_second_sweep_needs_keep():
    tape = graph.Tape()
    x = tape.value(numpy.ones(2))
    y = x * 2.0
    first = tape.backward([(y, numpy.ones(2))], [x], keep=True)
    second = tape.backward([(y, numpy.ones(2))], [x])
    assert first[0].tolist() == second[0].tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="freed by an earlier backward; pass keep=True"):
        tape.backward([(y, numpy.ones(2))], [x])


def test_saved_values_are_freed_as_the_sweep_passes():
    tape = graph.Tape()
    x = tape.value(numpy.ones(2))
    alive = []

    def pull(name):
        def pulled(d):
            alive.append((name, len(tape._steps)))
            return (d,)

        return pulled

    y = tape.record(x.array + 1, (x,), pull("first"))
    z = tape.record(y.array + 1, (y,), pull("second"))
    tape.backward([(z, numpy.ones(2))], [x])
    assert alive == [("second", 1), ("first", 0)]


def test_split_checks_sizes():
    with pytest.raises(ValueError, match=r"split: sizes must add up to 4, got \[1, 2\]"):
        graph.split(numpy.zeros((2, 4)), [1, 2])


def test_casts_return_gradients_in_the_own_dtype():
    tape = graph.Tape()
    x = tape.value(numpy.ones((2, 3), numpy.float32))
    wide = x.astype(numpy.float64)
    with mixers.use_backend("reference"):
        [dx] = tape.backward([(wide * wide, numpy.ones((2, 3)))], [x])
    assert (wide.dtype, dx.dtype) == (numpy.float64, numpy.float32)
    assert x.astype(numpy.float32) is x
