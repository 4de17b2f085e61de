"""Properties of all ops at sizes that nobody chose: drawn sizes agree with the reference or are rejected by name."""

import pytest
from harness import BACKENDS, Case, check_backend
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import mixers
from mixers import ops, samples

# the draws of some ops are slow, or often no legal call
_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


@pytest.mark.parametrize("name", ops.__all__)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=_QUIET)
@given(data=st.data())
def test_any_sizes(name, data):
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not among MIXERS_TEST_BACKENDS")
    op, small = getattr(ops, name), samples.OPS[name].small
    sizes = {
        letter: data.draw(st.one_of(st.just(size), st.integers(1, 2 * size + 3)), label=letter)
        for letter, size in small.items()
    }
    arguments = samples.op_sample(
        name, seed=data.draw(st.integers(0, 99), label="seed"), dtype="float64", **sizes
    )
    try:
        with mixers.use_backend("reference"):
            op(**arguments)
    except ValueError as error:
        # not every combination is a legal call, but then the op itself says so
        assert str(error).startswith(f"{name}: ")
        assume(False)
    arrays = {n: (lambda rng, a=a: a) for n, a in arguments.items() if n in op.arrays}
    options = {n: a for n, a in arguments.items() if n not in arrays}
    case = Case("drawn", arrays, options, vanishing=(*op.arrays, *op.outputs))
    check_backend(op, case, "cpu", "float64")
