"""The seam between launchers and GPU: its rules on the emulated device, and CupyDevice without a GPU.

What CupyDevice asks of CuPy and cuBLAS goes to stand-ins that follow their definitions.
"""

import ctypes
import sys
import types

import cuda_emulator
import ml_dtypes
import numpy
import pytest

import mixers
from mixers.gpu import device as seam
from mixers.gpu.device import Kernel


def draw(shape, dtype="float32"):
    return numpy.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


class Array(numpy.ndarray):
    """An array as CuPy presents it."""

    device = types.SimpleNamespace(id=0)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


class Function:
    def __init__(self, name):
        self.name, self.launches, self.opted_in = name, [], []

    def __call__(self, grid, block, args, shared_mem):
        self.launches.append((grid, block, args, shared_mem))

    max_dynamic_shared_size_bytes = property(fset=lambda self, size: self.opted_in.append(size))


class RawModule:
    made = []

    def __init__(self, code, options):
        self.code, self.options, self.functions = code, options, {}
        RawModule.made.append(self)

    def get_function(self, name):
        self.functions[name] = Function(name)
        return self.functions[name]


CUDA_TYPES = {
    0: "float32",
    1: "float64",
    2: "float16",
    4: "complex64",
    5: "complex128",
    14: ml_dtypes.bfloat16,
}
COMPUTE_TYPES = {68: "32F", 70: "64F"}


def column_major(address, cuda_type, rows, columns, leading, stride, batch):
    """The (batch, rows, columns) view of memory that cuBLAS takes its arguments for."""
    dtype = numpy.dtype(CUDA_TYPES[cuda_type])
    items = (batch - 1) * stride + (columns - 1) * leading + rows
    memory = numpy.frombuffer((ctypes.c_char * (items * dtype.itemsize)).from_address(address), dtype)
    steps = [step * dtype.itemsize for step in (stride, 1, leading)]
    return numpy.lib.stride_tricks.as_strided(memory, (batch, rows, columns), steps)


def gemm_strided_batched(handle, transa, transb, m, n, k, alpha, *rest):
    """cublasGemmStridedBatchedEx by its definition: C = op(A) op(B), all matrices column-major."""
    a, a_type, lda, a_stride, b, b_type, ldb, b_stride, beta, c, c_type, ldc, c_stride, batch, compute, _ = (
        rest
    )
    wide = numpy.dtype(CUDA_TYPES[a_type])
    wide = numpy.dtype("float32") if wide.itemsize == 2 else wide
    assert COMPUTE_TYPES[compute] == ("64F" if wide in ("float64", "complex128") else "32F")
    assert numpy.frombuffer((ctypes.c_char * wide.itemsize).from_address(alpha), wide) == 1
    assert numpy.frombuffer((ctypes.c_char * wide.itemsize).from_address(beta), wide) == 0
    assert handle == "handle"
    assert lda >= (k if transa else m)
    assert ldb >= (n if transb else k)
    assert ldc >= m
    left = column_major(a, a_type, *((k, m) if transa else (m, k)), lda, a_stride, batch)
    right = column_major(b, b_type, *((n, k) if transb else (k, n)), ldb, b_stride, batch)
    left = left.swapaxes(1, 2) if transa else left
    right = right.swapaxes(1, 2) if transb else right
    out = column_major(c, c_type, m, n, ldc, c_stride, batch)
    # frombuffer gives a writable view here, as the buffer is one
    out[...] = left.astype(wide) @ right.astype(wide)


@pytest.fixture
def cupy(monkeypatch):
    attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448}
    runtime = types.SimpleNamespace(
        **{
            "CUDA_R_32F": 0,
            "CUDA_R_64F": 1,
            "CUDA_R_16F": 2,
            "CUDA_C_32F": 4,
            "CUDA_C_64F": 5,
            "CUDA_R_16BF": 14,
        },
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
    )
    cupy = types.ModuleType("cupy")
    cupy.ndarray, cupy.RawModule = Array, RawModule
    cupy.empty = lambda shape, dtype: numpy.full(shape, 9, dtype).view(Array)
    cupy.zeros = lambda shape, dtype: numpy.zeros(shape, dtype).view(Array)
    cupy.cuda = types.SimpleNamespace(
        Device=lambda number: types.SimpleNamespace(attributes=attributes, compute_capability="90"),
        runtime=runtime,
        device=types.SimpleNamespace(get_cublas_handle=lambda: "handle"),
    )
    libs = types.ModuleType("cupy_backends.cuda.libs")
    libs.cublas = types.SimpleNamespace(
        gemmStridedBatchedEx=gemm_strided_batched,
        CUBLAS_COMPUTE_32F=68,
        CUBLAS_COMPUTE_64F=70,
        CUBLAS_GEMM_DEFAULT=-1,
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libs)
    monkeypatch.setattr(seam, "_cupy_devices", {})
    monkeypatch.setattr(RawModule, "made", [])
    return cupy


@pytest.fixture
def device(cupy):
    return seam.device_of(cupy.empty(3, "float32"))


def test_one_device_per_number(cupy, device):
    assert seam.device_of(cupy.empty(2, "int8")) is device
    assert (device.sm_count, device.compute_capability, device.max_shared) == (132, 90, 232448)


def test_the_current_device_must_be_the_array_s(cupy):
    array = cupy.empty(2, "int8")
    array.device = types.SimpleNamespace(id=1)
    with pytest.raises(
        RuntimeError, match=r"on CUDA device 1 but the current device is 0; use `with cupy.cuda.Device\(1\)"
    ):
        seam.device_of(array)
    with pytest.raises(RuntimeError, match="number must be below 1"):
        seam.cupy_device(1)


def test_modules_are_compiled_once(cupy, device):
    x = cupy.empty(3, "float32")
    args = (x, None, numpy.int64(3))
    for name in ("unary_forward", "unary_backward", "unary_forward"):
        device.launch(Kernel(name, "elementwise.cu", T="float", OP="gelu"), (1,), (32,), args)
    (module,) = RawModule.made
    assert module.options == ("--std=c++17",)
    assert module.code.startswith("#define T float\n#define OP gelu\n")
    assert module.functions["unary_forward"].launches == [((1, 1, 1), (32, 1, 1), args, 0)] * 2
    device.launch(Kernel("unary_forward", "elementwise.cu", T="double", OP="gelu"), (1,), (32,), args)
    assert len(RawModule.made) == 2


def test_large_shared_memory_is_asked_for_once(device):
    kernel = Kernel("unary_forward", "elementwise.cu", T="float", OP="exp")
    for shared in (0, 40 << 10, 60 << 10, 60 << 10, 50 << 10, 70 << 10):
        device.launch(kernel, (1,), (32,), (), shared)
    function = RawModule.made[0].functions["unary_forward"]
    assert function.opted_in == [60 << 10, 70 << 10]
    with pytest.raises(ValueError, match="shared must be at most 232448 bytes"):
        device.launch(kernel, (1,), (32,), (), 230 << 10)


@pytest.mark.parametrize("dtype", list(CUDA_TYPES.values()))
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda t: draw((2, 5, 3), t), lambda t: draw((3, 4), t)),
        (lambda t: draw((7, 3), t).T, lambda t: draw((4, 7), t).T),
        (lambda t: draw((6, 5), t), lambda t: draw((2, 4, 5, 3), t)),
        (lambda t: draw((2, 4, 5, 3), t), lambda t: draw((2, 4, 6, 3), t).swapaxes(2, 3)),
        (lambda t: draw((2, 3, 5), t).swapaxes(1, 2), lambda t: draw((2, 3, 4), t)),
        (lambda t: draw((2, 5, 4, 3), t).swapaxes(1, 2), lambda t: draw((2, 4, 3, 6), t)),
        (lambda t: draw((3, 1), t), lambda t: draw((1, 4), t)),
        (lambda t: draw((9, 8), t)[2:7, 1:4], lambda t: draw((9, 8), t)[3:6, 2:7]),
    ],
)
def test_cublas_gets_the_product(device, left, right, dtype):
    left, right = left(dtype), right(dtype)
    got = device.matmul(left.view(Array), right.view(Array))
    assert got.dtype == dtype
    exact = left.astype("complex128") @ right.astype("complex128")
    tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-5}.get(got.itemsize, 1e-12)
    numpy.testing.assert_allclose(got.astype("complex128"), exact, rtol=tolerance, atol=tolerance)


def test_cublas_widens_half_types(device):
    left, right = draw((4, 100), "float16"), draw((100, 5), "float16")
    got = device.matmul(left.view(Array), right.view(Array), dtype="float32")
    assert got.dtype == numpy.float32
    numpy.testing.assert_allclose(got, left.astype("float64") @ right.astype("float64"), rtol=1e-4, atol=1e-4)


class TestSeam:
    def test_arrays_dispatch_while_active(self):
        x = numpy.linspace(-1, 1, 5, dtype="float32")
        with cuda_emulator.activate() as outer:
            there = outer.to_device(x)
            assert seam.device_of(there) is outer
            with cuda_emulator.activate(checked=True) as inner:
                assert seam.device_of(there) is inner
                mixers.ops.silu(there)
                assert len(inner.launches) == 1
            assert seam.device_of(there) is outer
            assert not outer.launches
        with pytest.raises(TypeError, match="device_of: array must be a CuPy array, got DeviceArray"):
            seam.device_of(there)

    def test_contiguous(self):
        with cuda_emulator.activate() as device:
            x = device.to_device(numpy.arange(6.0).reshape(2, 3))
            assert device.contiguous(x) is x
            for odd in (x.T, x[:, ::-1], numpy.broadcast_to(x[0], (4, 3))):
                got = device.contiguous(odd)
                assert got.flags.c_contiguous
                assert got.flags.writeable
                numpy.testing.assert_array_equal(device.to_host(got), device.to_host(odd))

    def test_includes_are_resolved_once(self):
        text = Kernel("unary_forward", "elementwise.cu", T="float", OP="gelu").source()
        assert text.startswith("#define T float\n#define OP gelu\n#line 1")
        assert "#include" not in text
        assert text.count('#line 1 "common.cuh"') == 1

    def test_kernels_are_values(self):
        one, same = Kernel("f", "f.cu", T="float", N=3), Kernel("f", "f.cu", T="float", N=3)
        assert one == same
        assert hash(one) == hash(same)
        assert one != Kernel("f", "f.cu", T="float", N=4)
        assert repr(one) == "Kernel('f', 'f.cu', T='float', N=3)"

    def test_missing_cupy_is_explained(self):
        try:
            seam.cupy_device()
        except RuntimeError as error:
            assert 'pip install "token-mixers[cuda12]"' in str(error)
        else:
            pytest.skip("a CUDA device is here")

    def test_transforms(self):
        x = numpy.random.default_rng(0).standard_normal((3, 10, 2)).astype("float32")
        with cuda_emulator.activate() as device:
            there = device.to_device(x)
            spectrum = device.rfft(there, 16, axis=1)
            assert spectrum.dtype == numpy.complex64
            back = device.irfft(spectrum, 16, axis=1)
            numpy.testing.assert_allclose(device.to_host(back)[:, :10], x, atol=1e-6)
            both = device.ifft(device.fft(there, axis=0, norm="ortho"), axis=0, norm="ortho")
            numpy.testing.assert_allclose(device.to_host(both).real, x, atol=1e-6)
            with pytest.raises(TypeError, match="array must be float32 or float64"):
                device.rfft(there.astype("float16"))


class TestMatmul:
    @pytest.mark.parametrize(
        ("left", "right", "copies"),
        [
            # a stack against one matrix is one product; a transposed operand is read as it lies
            (lambda: draw((2, 5, 3)), lambda: draw((3, 4)), 0),
            (lambda: draw((5, 2, 3)).swapaxes(0, 1), lambda: draw((3, 4)), 0),
            (lambda: draw((7, 3)).T, lambda: draw((4, 7)).T, 0),
            (lambda: draw((2, 3, 5)).swapaxes(1, 2), lambda: draw((2, 3, 4)), 0),
            (lambda: draw((6, 5)), lambda: draw((2, 4, 5, 3)), 0),
            (lambda: draw((2, 4, 5, 3)), lambda: draw((2, 4, 6, 3)).swapaxes(2, 3), 0),
            (lambda: draw((2, 1, 5, 3)), lambda: draw((2, 1, 3, 6)), 0),
            (lambda: draw((1, 1, 3)), lambda: draw((4, 3, 1)), 0),
            (lambda: draw((3, 1)), lambda: draw((1, 4)), 0),
            (lambda: draw((9, 8))[2:7, 1:4], lambda: draw((9, 8))[3:6, 2:7], 0),
            # heads beside tokens, steps that are not those of a matrix, repeats along an inner axis
            (lambda: draw((2, 5, 4, 3)).swapaxes(1, 2), lambda: draw((2, 4, 3, 6)), 1),
            (lambda: draw((5, 6))[:, ::2], lambda: draw((3, 4))[::-1], 2),
            (lambda: draw((2, 1, 5, 3)), lambda: draw((2, 4, 3, 6)), 1),
            (lambda: numpy.broadcast_to(draw((3,)), (5, 3)), lambda: draw((3, 4)), 1),
            (lambda: draw((2, 5, 3)), lambda: numpy.broadcast_to(draw((3, 1)), (3, 4)), 1),
        ],
    )
    def test_strides(self, left, right, copies, monkeypatch):
        left, right = left(), right()
        with cuda_emulator.activate() as device:
            # the strides of the host arrays, which to_device would straighten
            there = [a.view(cuda_emulator.DeviceArray) for a in (left, right)]
            allocated = []
            copied = lambda a: allocated.append(a) or a.copy()
            monkeypatch.setattr(device, "contiguous", lambda a: a if a.flags.c_contiguous else copied(a))
            empty = device.empty
            monkeypatch.setattr(device, "empty", lambda *a: allocated.append(a) or empty(*a))
            got = device.to_host(device.matmul(*there))
        numpy.testing.assert_allclose(got, left @ right, rtol=1e-5, atol=1e-5)
        assert len(allocated) - 1 == copies

    @pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
    def test_half_types_accumulate_in_float32(self, dtype):
        a, b = draw((4, 1000), dtype), draw((1000, 5), dtype)
        exact = a.astype("float64") @ b.astype("float64")
        with cuda_emulator.activate() as device:
            moved = device.to_device(a), device.to_device(b)
            half = device.matmul(*moved)
            assert half.dtype == a.dtype
            wide = device.matmul(*moved, dtype="float32")
            assert wide.dtype == numpy.float32
            numpy.testing.assert_allclose(device.to_host(wide), exact, rtol=1e-4, atol=1e-4)
            numpy.testing.assert_array_equal(device.to_host(half), device.to_host(wide).astype(dtype))
            # mixed operands are computed in the wider type, a narrower result is rounded at the end
            mixed = device.matmul(moved[0], moved[1].astype("float32"), dtype=dtype)
            numpy.testing.assert_array_equal(device.to_host(mixed), device.to_host(half))

    @pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
    def test_other_types(self, dtype):
        a, b = draw((2, 3, 4)).astype(dtype), draw((4, 5)).astype(dtype)
        with cuda_emulator.activate() as device:
            got = device.to_host(device.matmul(device.to_device(a), device.to_device(b)))
        assert got.dtype == dtype
        numpy.testing.assert_allclose(got, a @ b, rtol=1e-5)

    def test_no_work(self):
        with cuda_emulator.activate() as device:
            product = lambda a, b: device.to_host(
                device.matmul(device.zeros(a, "float32"), device.zeros(b, "float32"))
            )
            assert product((0, 3), (3, 4)).shape == (0, 4)
            assert product((2, 0, 5, 3), (3, 4)).shape == (2, 0, 5, 4)
            assert product((2, 0), (0, 4)).tolist() == [[0.0] * 4] * 2

    def test_shapes_are_checked(self):
        with (
            cuda_emulator.activate() as device,
            pytest.raises(ValueError, match=r"b must have shape \(..., 3, n\)"),
        ):
            device.matmul(device.zeros((2, 3), "float32"), device.zeros((4, 5), "float32"))
