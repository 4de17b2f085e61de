"""There is a sample for everything, and the reference computes it."""

import ml_dtypes
import numpy
import pytest

import mixers
from mixers import ops, samples, subjects

EVERYTHING = [*ops.__all__, *mixers.list_mixers()]

# parameters without effect: a norm takes them away again
IDLE = {("hyper_zzw", "b_mix")}


def test_every_op_has_a_sample():
    assert sorted(samples.OPS) == sorted(ops.__all__)


@pytest.mark.parametrize("name", EVERYTHING)
def test_small_samples_run(name):
    subject = subjects.find(name, dtype="float64")
    with mixers.use_backend("reference"):
        out, saved = subject.forward(subject.arrays)
        gradients = subject.backward(samples.cotangent(out), saved)
    assert list(gradients) == list(subject.arrays)
    assert gradients[subject.inputs[0]] is not None
    for array, gradient in gradients.items():
        # statistics that are constants
        if gradient is None:
            continue
        assert gradient.shape == subject.arrays[array].shape
        assert numpy.isfinite(gradient).all(), array
        assert gradient.any() or (name, array) in IDLE, f"the sample of {name} never tests d{array}"


@pytest.mark.parametrize("name", EVERYTHING)
def test_benchmark_samples_are_accepted(name):
    subject = subjects.find(name, size="bench")
    assert sum(a.nbytes for a in subject.arrays.values()) < 300e6
    assert all(a.dtype == numpy.float32 for a in subject.arrays.values())


def test_the_seed_and_the_dtype_decide_the_values():
    first, again, other = (samples.op_sample("linear", seed=s)["x"] for s in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert samples.op_sample("linear", dtype="bfloat16")["x"].dtype == ml_dtypes.bfloat16
    assert samples.mixer_sample("pool", dtype="float64")[2][0].dtype == numpy.float64


def test_cotangents_have_the_structure_of_the_output():
    h, last = ops.linear_scan.Outputs(numpy.zeros((1, 3, 2), "float32"), None)
    dout = samples.cotangent(ops.linear_scan.Outputs(h, last))
    assert dout.h.shape == (1, 3, 2)
    assert dout.h.dtype == numpy.float32
    assert dout.last_state is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samples.op_sample("nothing"), "op_sample: there is no op 'nothing'"),
        (lambda: samples.op_sample("gelu", q=3), "op_sample: gelu has the sizes b, l, c, got q"),
        (lambda: samples.op_sample("gelu", "large"), "op_sample: size must be one of 'small', 'bench', got"),
        (lambda: samples.mixer_sample("pool", "large"), "mixer_sample: size must be one of"),
        (lambda: subjects.find("hyenna"), "there is no op or mixer 'hyenna'; did you mean hyena"),
        (lambda: subjects.find("pool", shape=subjects.parse_shape("b=2")), "pool is a mixer: give the shape"),
        (lambda: subjects.find("gelu", shape=subjects.parse_shape("2,3")), "gelu is an op: give its sizes"),
        (lambda: subjects.parse_shape("b=two"), "shape must look like"),
    ],
)
def test_bad_requests_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
