"""CupyDevice without a GPU: what it asks of CuPy and cuBLAS, against stand-ins that follow their definitions."""

import ctypes
import sys
import types

import ml_dtypes
import numpy
import pytest

from mixers.gpu import device as seam
from mixers.gpu.device import Kernel


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


def draw(shape, dtype):
    return numpy.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


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
