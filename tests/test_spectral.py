"""Discrete cosine transforms."""

import cuda_emulator
import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
import scipy.fft
import tolerances
from harness import BACKENDS, Case, OpSuite, assert_close, check_backend, reference

import mixers
from mixers import ops

# lengths on both sides of 64 and 512 (gpu) and of 192 (cpu), where the backends change their methods
TRANSFORMS = [
    Case("sequence", {"x": (2, 13, 6)}),
    Case("image", {"x": (2, 6, 8, 5)}),
    Case("one-token", {"x": (3, 1, 8)}),
    Case("two-tokens", {"x": (1, 2, 33)}),
    Case("three-tokens", {"x": (1, 3, 1)}),
    Case("odd-image", {"x": (3, 7, 31, 8)}),
    Case("one-row", {"x": (1, 1, 33, 3)}),
    Case("rows-only", {"x": (2, 5, 6, 3)}, {"axes": (1,)}),
    Case("columns-only", {"x": (2, 5, 6, 3)}, {"axes": (-2,)}),
    Case("axes-reversed", {"x": (2, 5, 6, 3)}, {"axes": (2, 1)}),
    Case("32x14", {"x": (1, 32, 14, 33)}),
    Case("63-tokens", {"x": (1, 63, 8)}),
    Case("64-tokens", {"x": (1, 64, 3)}),
    Case("65-tokens", {"x": (1, 65, 3)}),
    Case("large-and-small-axis", {"x": (1, 193, 5, 8)}, differences=False),
    Case("small-and-large-axis", {"x": (2, 3, 200, 3)}, differences=False),
    Case("large-axis-only", {"x": (2, 3, 65, 5)}, {"axes": (2,)}, differences=False),
    Case("64x64", {"x": (1, 64, 64, 3)}, differences=False),
    Case("600-tokens", {"x": (2, 600, 3)}, differences=False),
    Case("601-tokens", {"x": (1, 601, 2)}, differences=False),
    Case("large-image", {"x": (1, 129, 130, 2)}, emulated=False, differences=False),
    Case("wide", {"x": (1, 9, 7, 100)}),
    Case("long", {"x": (1, 1025, 3)}, emulated=False, differences=False),
    Case("no-tokens", {"x": (2, 0, 3)}),
    Case("no-columns", {"x": (2, 4, 0, 3)}),
    Case("empty-batch", {"x": (0, 4, 4, 3)}),
    Case("no-channels", {"x": (2, 4, 0)}),
]


class TestDct(OpSuite):
    op = ops.dct
    cases = TRANSFORMS


class TestIdct(OpSuite):
    op = ops.idct
    cases = TRANSFORMS


@pytest.mark.parametrize("shape", [(2, 13, 3), (2, 6, 9, 3), (1, 1000, 1)])
def test_reference_is_the_textbook_transform(shape):
    x = numpy.random.default_rng(0).standard_normal(shape)
    axes = tuple(range(1, x.ndim - 1))
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(
            ops.dct(x), scipy.fft.dctn(x, type=2, norm="ortho", axes=axes), atol=1e-12
        )
        numpy.testing.assert_allclose(
            ops.idct(x), scipy.fft.idctn(x, type=2, norm="ortho", axes=axes), atol=1e-12
        )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("grid", [(33,), (14, 14), (200, 3), (150, 140)])
def test_round_trip_and_energy(backend, grid):
    """The transform is orthogonal: it is undone by its inverse and keeps the norm."""
    x = numpy.random.default_rng(1).standard_normal((2, *grid, 5))
    with mixers.use_backend(backend):
        F = ops.dct(x)
        numpy.testing.assert_allclose(ops.idct(F), x, atol=1e-13)
    assert abs(numpy.linalg.norm(F) / numpy.linalg.norm(x) - 1) < 1e-13


@pytest.mark.parametrize("n", [16, 65, 500])
def test_nan_stays_in_its_line(n):
    x = numpy.zeros((1, n, 20), numpy.float32)
    x[0, 3, 17] = numpy.nan
    F = ops.dct(x)
    assert numpy.isnan(F[0, :, 17]).all()
    assert not numpy.isnan(numpy.delete(F, 17, axis=2)).any()


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    grid=st.lists(st.integers(0, 40), min_size=1, max_size=2),
    b=st.integers(0, 3),
    c=st.integers(0, 40),
    dtype=st.sampled_from(["float64", "float32", "bfloat16"]),
)
def test_any_shape(grid, b, c, dtype):
    case = Case("any", {"x": (b, *grid, c)})
    check_backend(ops.dct, case, "cpu", dtype)
    check_backend(ops.idct, case, "cpu", dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "kernel", "channels"),
    [
        ((64, 14, 14, 384), "float32", "transform_images", 32),
        ((64, 56, 56, 64), "float32", "transform_images", 8),
        ((64, 56, 56, 64), "float16", "transform_images", 16),
        ((4, 64, 64, 64), "float64", "transform_images", 4),
        ((64, 196, 5, 64), "float32", "transform_lines", None),
        ((8, 63, 64), "float32", "transform_lines", None),
    ],
)
def test_what_a_large_gpu_launches(shape, dtype, kernel, channels):
    """Images go through shared memory once, in pieces of at least 32 bytes per token."""
    if "emulated" not in BACKENDS:
        pytest.skip("emulated is not among MIXERS_TEST_BACKENDS")
    with cuda_emulator.activate(dry=True) as device:
        device.max_shared = 227 << 10
        ops.dct(device.empty(shape, dtype))
    [launch] = device.launches
    assert launch.kernel.name == kernel
    assert dict(launch.kernel.defines).get("CHANNELS") == channels
    assert launch.shared <= device.max_shared


@pytest.mark.huge
@pytest.mark.skipif("emulated" not in BACKENDS, reason="emulated is not among MIXERS_TEST_BACKENDS")
@pytest.mark.parametrize("grid", [(4,), (3, 4)])
@pytest.mark.parametrize("op", [ops.dct, ops.idct], ids=["dct", "idct"])
def test_offsets_beyond_2_to_31(op, grid):
    """The end of an array of more than 2^31 values, of which only the last pages are touched."""
    c = 4096
    end = Case("end", {"x": (1, *grid, c)}).draw("bfloat16")["x"]
    want, _ = reference(op, {"x": end})
    with cuda_emulator.activate(last_blocks=4) as device:
        x = device.zeros((2**31 // end.size + 2, *grid, c), end.dtype)
        x[-1:] = device.to_device(end)
        # the last blocks compute at least the last channels of the last item
        got = device.to_host(op(x)[-1:, ..., -64:])
    assert_close("y", got, want[..., -64:], tolerances.FORWARD["bfloat16"])


@pytest.mark.parametrize("op", [ops.dct, ops.idct], ids=["dct", "idct"])
@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((2, 3), None, r"x must have 3 or 4 axes, got shape \(2, 3\)"),
        ((2, 3, 4), (0,), r"axes must be token axes of x with shape \(2, 3, 4\), got \(0,\)"),
        ((2, 3, 4), (-1,), r"axes must be token axes of x with shape \(2, 3, 4\), got \(-1,\)"),
        ((2, 3, 4), (5,), r"axes must be token axes of x with shape \(2, 3, 4\), got \(5,\)"),
        ((2, 3, 4, 5), (1, -3), r"axes must differ, got \(1, -3\)"),
        ((2, 3, 4, 5), (), r"axes must be a tuple of one or two token axes, got \(\)"),
        ((2, 3, 4, 5), 1, "axes must be a tuple of one or two token axes, got 1"),
    ],
)
def test_errors(op, shape, axes, message):
    with pytest.raises(ValueError, match=f"{op.name}: {message}"):
        op(numpy.zeros(shape), axes=axes)


def test_axis_type():
    with pytest.raises(TypeError, match=r"dct: axes must be an integer, got 1\.0"):
        ops.dct(numpy.zeros((2, 3, 4)), axes=(1.0,))
