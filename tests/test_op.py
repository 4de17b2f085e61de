"""The op mechanism: binding, dispatch, dtypes, errors that every op shares."""

import ml_dtypes
import numpy
import pytest

import mixers
from mixers import ops
from mixers.op import Op

ALL_OPS = [getattr(ops, n) for n in ops.__all__]


@pytest.fixture(autouse=True)
def _reference():
    with mixers.use_backend("reference"):
        yield


@pytest.mark.parametrize("op", ALL_OPS, ids=repr)
def test_every_backend_takes_the_declared_arguments(op):
    """Signatures of the backends agree with the declaration, name by name."""
    import importlib
    import inspect

    for backend in ("reference", "cpu", "gpu"):
        module = importlib.import_module(f"mixers.{backend}.{op.family}")
        forward = inspect.signature(getattr(module, f"{op.name}_forward"))
        expected = [*op.signature.parameters, "save"]
        if any(p.kind is p.VAR_KEYWORD for p in forward.parameters.values()):
            # passes a long list on as a whole; what it names itself must be declared
            named = [n for n, p in forward.parameters.items() if p.kind is not p.VAR_KEYWORD]
            assert set(named) <= set(expected), backend
        else:
            assert list(forward.parameters) == expected, backend
        backward = inspect.signature(getattr(module, f"{op.name}_backward"))
        assert list(backward.parameters) == ["dout", "saved"], backend


@pytest.mark.parametrize("op", ALL_OPS, ids=repr)
def test_docstrings_name_every_argument(op):
    assert op.__doc__, op.name
    if "Parameters\n" in op.__doc__:
        for name in op.signature.parameters:
            assert name in op.__doc__, f"{op.name}: {name} is not in the docstring"


def test_call_equals_forward():
    x = numpy.random.default_rng(0).standard_normal((2, 3))
    y, saved = ops.silu.forward(x)
    assert (ops.silu(x) == y).all()
    assert saved.x is x, "saved must reference the inputs, not copy them"
    assert ops.silu.backward(numpy.ones_like(x), saved)._fields == ("dx",)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_output_has_the_dtype_of_the_main_input(dtype):
    x = numpy.ones((2, 4)).astype(dtype)
    y, saved = ops.layer_norm.forward(x, numpy.ones(4), numpy.zeros(4, "float32"))
    gradients = ops.layer_norm.backward(y, saved)
    assert y.dtype == x.dtype
    assert [g.dtype.name for g in gradients] == [x.dtype.name, "float64", "float32"]


def test_gradient_of_an_absent_input_is_none():
    x = numpy.ones((2, 4))
    y, saved = ops.linear.forward(x, numpy.ones((4, 3)))
    assert ops.linear.backward(y, saved).db is None


def test_cost_counts_flops_and_bytes():
    flops, moved = ops.linear.cost(numpy.ones((5, 4), "float32"), numpy.ones((4, 3), "float32"))
    assert flops == 2 * 5 * 4 * 3
    assert moved == 4 * (20 + 12 + 20)


class Tensor:
    """Somebody else's array."""

    shape, dtype, ndim = (2,), numpy.dtype("float32"), 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.silu([1.0]), TypeError, "silu: x must be a NumPy or CuPy array, got list; convert"),
        (lambda: ops.silu(Tensor()), TypeError, "silu: x must be a NumPy or CuPy array, got test_op.Tensor"),
        (
            lambda: ops.silu(numpy.arange(3)),
            TypeError,
            "silu: x must be float16, bfloat16, float32 or float64, got int64",
        ),
        (lambda: ops.silu(numpy.ones(3, complex)), TypeError, "silu: x must be .* got complex128"),
        (lambda: ops.silu(), TypeError, r"silu: x must be given; the signature is silu\(x\)"),
        (lambda: ops.silu(numpy.ones(2), numpy.ones(2)), TypeError, "silu: takes at most 1 positional"),
        (lambda: ops.silu(numpy.ones(2), x=numpy.ones(2)), TypeError, "silu: x was given twice"),
        (lambda: ops.silu(numpy.ones(2), y=1), TypeError, "silu: has no argument 'y'; the signature"),
        (lambda: ops.silu(None), TypeError, "silu: x must be a NumPy or CuPy array, got NoneType"),
        (
            lambda: ops.linear(numpy.ones((2, 3)), numpy.ones((4, 5))),
            ValueError,
            r"linear: w must have shape \(c_in, c_out\) with c_in = 3, got \(4, 5\)",
        ),
        (
            lambda: ops.silu.backward(numpy.ones(4), ops.silu.forward(numpy.ones(3))[1]),
            ValueError,
            r"silu: the cotangent of y must have shape \(3,\), got \(4,\)",
        ),
        (
            lambda: ops.silu.backward(None, ops.silu.forward(numpy.ones(3))[1]),
            ValueError,
            "silu: dout must hold at least one cotangent, got None",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_backend_override_from_the_environment(monkeypatch):
    from mixers import backend

    monkeypatch.setenv("MIXERS_BACKEND", "reference")
    assert backend.select("f", {"x": numpy.ones(1)}) == "reference"
    token = backend._chosen.set(None)
    try:
        assert backend.select("f", {"x": numpy.ones(1)}) == "reference"
        monkeypatch.setenv("MIXERS_BACKEND", "quantum")
        with pytest.raises(ValueError, match="backend must be one of reference, cpu, gpu, got 'quantum'"):
            backend.select("f", {"x": numpy.ones(1)})
    finally:
        backend._chosen.reset(token)


def test_numpy_arrays_never_move_to_the_gpu():
    with (
        mixers.use_backend("gpu"),
        pytest.raises(TypeError, match=r"silu: the gpu backend takes CuPy arrays, got numpy.ndarray \(x\)"),
    ):
        ops.silu(numpy.ones(2))


def test_unknown_backend():
    with pytest.raises(ValueError, match="use_backend: backend must be one of"), mixers.use_backend("tpu"):
        pass


def test_missing_implementation_names_a_backend_that_has_it(monkeypatch):
    from mixers import backend
    from mixers.reference import elementwise

    monkeypatch.delattr(elementwise, "silu_forward")
    with pytest.raises(
        NotImplementedError, match="silu_forward: the reference backend does not have it; available in: cpu"
    ):
        backend.implementation("reference", "elementwise", "silu_forward")


def test_ops_are_ops():
    assert all(isinstance(op, Op) for op in ALL_OPS)
