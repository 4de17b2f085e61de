"""Average pooling."""

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, reference
from scipy import ndimage
from tolerances import BACKWARD

import mixers
from mixers import ops


class TestAvgPool(OpSuite):
    op = ops.avg_pool
    cases = [
        Case("sequence", {"x": (2, 9, 3)}, {"size": 3}),
        Case("one-token", {"x": (1, 1, 8)}, {"size": 3}),
        Case("image", {"x": (2, 5, 7, 33)}, {"size": 3}),
        Case("image-minus-identity", {"x": (3, 7, 4, 8)}, {"size": 3, "minus_identity": True}),
        Case("window-over-grid", {"x": (1, 3, 5, 3)}, {"size": 7, "minus_identity": True}),
        Case("size-one", {"x": (1, 2, 3, 1)}, {"size": 1}),
        Case("size-five", {"x": (2, 65, 3)}, {"size": 5, "minus_identity": True}),
        Case("one-row", {"x": (1, 1, 31, 16)}, {"size": 3, "minus_identity": True}),
        Case("long", {"x": (1, 1025, 3)}, {"size": 9}, emulated=False, differences=False),
        # several blocks of columns, in tasks of any order
        Case("wide", {"x": (2, 3, 5000, 33)}, {"size": 5}, emulated=False, differences=False),
        Case("wide-three", {"x": (1, 3, 5000, 33)}, emulated=False, differences=False),
        Case("no-tokens", {"x": (2, 0, 3)}, {"size": 3}),
        Case("empty-batch", {"x": (0, 4, 4, 3)}, {"size": 3, "minus_identity": True}),
    ]


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize(("grid", "size"), [((3, 4), 3), ((4,), 3), ((4,), 5)])
def test_offsets_beyond_2_to_31(grid, size):
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    c = 4096
    arguments = Case("end", {"x": (1, *grid, c)}, {"size": size, "minus_identity": True}).draw("bfloat16")
    end = arguments.pop("x")
    want, want_gradients = reference(ops.avg_pool, {"x": end, **arguments}, dout=end)
    with cuda_emulator.activate(last_blocks=4) as device:
        x = device.zeros((2**31 // end.size + 2, *grid, c), end.dtype)
        x[-1:] = device.to_device(end)
        y, saved = ops.avg_pool.forward(x, **arguments)
        dx = ops.avg_pool.backward(x, saved).dx
        # the last blocks compute at least the last channels of the last token
        for name, got, wanted in (("y", y, want), ("dx", dx, want_gradients.dx)):
            got, wanted = (a[(-1,) * (a.ndim - 1)][-1024:] for a in (got, wanted))
            assert_close(name, device.to_host(got), wanted, BACKWARD["bfloat16"])


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9), st.integers(1, 40)),
    size=st.sampled_from([1, 3, 5, 7, 19]),
    minus_identity=st.booleans(),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
    sequence=st.booleans(),
)
def test_any_shape(shape, size, minus_identity, dtype, sequence):
    shape = (shape[0], *shape[2:]) if sequence else shape
    case = Case("any", {"x": shape}, {"size": size, "minus_identity": minus_identity})
    check_backend(ops.avg_pool, case, "cpu", dtype)


def test_second_form():
    """A normalised uniform filter, as scipy.ndimage computes it."""
    x = numpy.random.default_rng(0).standard_normal((6, 7))
    total = ndimage.uniform_filter(x, 3, mode="constant")
    counts = ndimage.uniform_filter(numpy.ones_like(x), 3, mode="constant")
    with mixers.use_backend("reference"):
        y = ops.avg_pool(x[None, :, :, None], size=3)[0, :, :, 0]
    numpy.testing.assert_allclose(y, total / counts, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 4), {"size": 2}, "avg_pool: size must be an odd integer >= 1, got 2"),
        ((2, 3, 4), {"size": -1}, "avg_pool: size must be an odd integer >= 1, got -1"),
        ((2, 3), {}, r"avg_pool: x must have 3 or 4 axes, got shape \(2, 3\)"),
    ],
)
def test_errors(shape, options, message):
    with pytest.raises(ValueError, match=message):
        ops.avg_pool(numpy.zeros(shape), **options)
