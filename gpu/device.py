"""How launchers reach a GPU: one small surface, implemented by CuPy and, in the tests, by an emulator.

A launcher asks ``device_of(x)`` for the device of its main input and then uses only the methods of
:class:`Device`: memory, launches, dense products, Fourier transforms. It imports neither CuPy nor NumPy
functions on device arrays, so that the same lines run on a GPU and in the tests.
"""

import functools
import importlib.resources
import re
import sys

import numpy

from mixers.gpu import matrix

INSTALL = 'pip install "token-mixers[cuda12]"'

# more dynamic shared memory than this must be asked for, once per function
_SHARED_WITHOUT_OPT_IN = 48 << 10

_C_TYPES = {"float32": "float", "float64": "double", "float16": "f16_t", "bfloat16": "bf16_t"}


class Kernel:
    """A kernel's entry point and the macros its file is compiled with; immutable and hashable.

    Parameters
    ----------
    name : str
        The ``extern "C"`` function.
    file : str
        File of gpu/kernels.
    **defines : str or int
        Macros, put in front of the source: ``T="float"`` is the storage type, sizes follow.

    Examples
    --------
    >>> Kernel("selective_scan_forward", "scan.cu", T="float", N=16)
    Kernel('selective_scan_forward', 'scan.cu', T='float', N=16)
    """

    __slots__ = ("_hash", "defines", "file", "name")

    def __init__(self, name, file, **defines):
        self.name, self.file = name, file
        self.defines = tuple(defines.items())
        self._hash = hash((name, file, self.defines))

    def __eq__(self, other):
        return isinstance(other, Kernel) and (
            (self.name, self.file, self.defines) == (other.name, other.file, other.defines)
        )

    def __hash__(self):
        return self._hash

    def __repr__(self):
        defines = "".join(f", {name}={value!r}" for name, value in self.defines)
        return f"Kernel({self.name!r}, {self.file!r}{defines})"

    def source(self):
        """What is compiled: the macros, then the file with its includes resolved (see :func:`source_text`).

        Macros are lines of the source, not compiler options: a name such as T or N given as an option
        would reach the compiler's own headers too.
        """
        return "".join(f"#define {name} {value}\n" for name, value in self.defines) + source_text(self.file)


def c_type(dtype):
    """Name in kernels of a storage type: float, double, f16_t or bf16_t."""
    return _C_TYPES[numpy.dtype(dtype).name]


@functools.cache
def source_text(file):
    """A kernel file with every ``#include "..."`` put in place, once each, so that nobody needs a search path.

    Names are relative to gpu/kernels; an absolute path is taken as it is.
    """
    return "".join(_resolved(file, set()))


def _resolved(file, seen):
    seen.add(file)
    yield f'#line 1 "{file}"\n'
    text = (importlib.resources.files("mixers.gpu") / "kernels" / file).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if include is None:
            yield line
        elif include[1] in seen:
            yield "\n"
        else:
            yield from _resolved(include[1], seen)
            yield f'\n#line {number + 1} "{file}"\n'


class Device:
    """What every device offers; a subclass supplies the rest (see :class:`CupyDevice`).

    Attributes
    ----------
    array_type : type
        Its arrays: a type with NumPy's attributes, methods and operators.
    sm_count, compute_capability, max_shared : int
        Multiprocessors; 80 for sm_80; bytes of shared memory a block may use at most.
    """

    array_type = None

    def launch(self, kernel, grid, block, args, shared=0):
        """Start a kernel on the current stream.

        Parameters
        ----------
        kernel : Kernel
        grid, block : tuple of int
            Up to three sizes each, none of them zero: an op of no work returns before it launches.
        args : sequence
            Arrays of this device, None for a null pointer, NumPy scalars of the exact C type
            (``numpy.int64`` for ``long long``, ``numpy.int32`` for ``int``, ...).
        shared : int
            Bytes of dynamic shared memory.

        Raises
        ------
        TypeError
            If an argument is of another type (a Python number, a host array).
        ValueError
            If a size is out of the hardware's range.
        """
        for number, argument in enumerate(args):
            if not (argument is None or isinstance(argument, (self.array_type, numpy.generic))):
                raise TypeError(
                    f"{kernel.name}: argument {number} must be an array of the device, a NumPy scalar or None, "
                    f"got {type(argument).__name__}"
                )
        grid, block = _three(grid), _three(block)
        if not (0 < grid[0] < 2**31 and 0 < grid[1] < 65536 and 0 < grid[2] < 65536):
            raise ValueError(f"{kernel.name}: grid must be within (2**31 - 1, 65535, 65535), got {grid}")
        if min(block) < 1 or block[2] > 64 or block[0] * block[1] * block[2] > 1024:
            raise ValueError(f"{kernel.name}: block must hold 1 to 1024 threads, got {block}")
        if shared > self.max_shared:
            raise ValueError(
                f"{kernel.name}: shared must be at most {self.max_shared} bytes on this device, got {shared}"
            )
        self._start(kernel, grid, block, args, shared)

    def contiguous(self, array):
        """The array itself if it is C-contiguous, else a contiguous copy; any strides come in."""
        return array if array.flags.c_contiguous else array.copy()

    def matmul(self, a, b, dtype=None):
        """Matrix product over the last two axes, batched and broadcast over the others.

        Parameters
        ----------
        a, b : array (..., m, k), (..., k, n)
            Any strides: a transposed view or one that repeats along the batch is not copied.
            Half types accumulate in float32; float32 is computed in float32, never in TF32. Mixed
            dtypes are computed in the wider one.
        dtype : dtype, optional
            Of the result: by default that of the operands; float32 is possible for half operands.

        Returns
        -------
        array (..., m, n)
        """
        return matrix.matmul(self, a, b, dtype)


def _three(sizes):
    return (*sizes, 1, 1)[:3]


class CupyDevice(Device):
    """A CUDA device reached through CuPy: its memory pool, its current stream, NVRTC, cuBLAS and cuFFT."""

    def __init__(self, number):
        import cupy

        self._cupy = cupy
        self.array_type = cupy.ndarray
        device = cupy.cuda.Device(number)
        self.sm_count = device.attributes["MultiProcessorCount"]
        self.max_shared = device.attributes["MaxSharedMemoryPerBlockOptin"]
        self.compute_capability = int(device.compute_capability)
        runtime = cupy.cuda.runtime
        self._blas_types = {
            "float16": runtime.CUDA_R_16F,
            "bfloat16": runtime.CUDA_R_16BF,
            "float32": runtime.CUDA_R_32F,
            "float64": runtime.CUDA_R_64F,
            "complex64": runtime.CUDA_C_32F,
            "complex128": runtime.CUDA_C_64F,
        }
        self._modules = {}
        self._functions = {}
        self._allowed_shared = {}

    def empty(self, shape, dtype):
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape, dtype):
        return self._cupy.zeros(shape, dtype)

    def to_device(self, array):
        return self._cupy.asarray(array)

    def to_host(self, array):
        return self._cupy.asnumpy(array)

    def synchronize(self):
        self._cupy.cuda.get_current_stream().synchronize()

    def fft(self, array, n=None, axis=-1, norm=None):
        return self._cupy.fft.fft(array, n, axis, norm)

    def ifft(self, array, n=None, axis=-1, norm=None):
        return self._cupy.fft.ifft(array, n, axis, norm)

    def rfft(self, array, n=None, axis=-1, norm=None):
        return self._cupy.fft.rfft(array, n, axis, norm)

    def irfft(self, array, n=None, axis=-1, norm=None):
        return self._cupy.fft.irfft(array, n, axis, norm)

    def _start(self, kernel, grid, block, args, shared):
        function = self._functions.get(kernel) or self._bind(kernel)
        # remembered here, because CuPy asks the driver for the present value
        if shared > self._allowed_shared.get(kernel, _SHARED_WITHOUT_OPT_IN):
            function.max_dynamic_shared_size_bytes = shared
            self._allowed_shared[kernel] = shared
        function(grid, block, args, shared_mem=shared)

    def _bind(self, kernel):
        key = kernel.file, kernel.defines
        if key not in self._modules:
            self._modules[key] = self._cupy.RawModule(code=kernel.source(), options=("--std=c++17",))
        self._functions[kernel] = self._modules[key].get_function(kernel.name)
        return self._functions[kernel]

    def gemm(self, sizes, left, right, out, batch):
        from cupy_backends.cuda.libs import cublas

        m, n, k = sizes
        types = self._blas_types
        wide = left.array.dtype.name in ("float64", "complex128")
        compute = cublas.CUBLAS_COMPUTE_64F if wide else cublas.CUBLAS_COMPUTE_32F
        real = numpy.float64 if wide else numpy.float32
        scale = numpy.result_type(real, numpy.complex64) if left.array.dtype.kind == "c" else real
        one, zero = numpy.ones(1, scale), numpy.zeros(1, scale)
        # cuBLAS is column-major: the product of the transposes gives the transpose, which is row-major
        cublas.gemmStridedBatchedEx(
            self._cupy.cuda.device.get_cublas_handle(),
            *(int(right.transposed), int(left.transposed), n, m, k, one.ctypes.data),
            *(right.array.data.ptr, types[right.array.dtype.name], right.leading, right.stride),
            *(left.array.data.ptr, types[left.array.dtype.name], left.leading, left.stride),
            *(zero.ctypes.data, out.data.ptr, types[out.dtype.name], n, m * n),
            *(batch, compute, cublas.CUBLAS_GEMM_DEFAULT),
        )


_registered = {}
_cupy_devices = {}


def register_device(array_type, device):
    """Let `device` serve arrays of `array_type`; returns a function that takes this back."""
    before = _registered.get(array_type)
    _registered[array_type] = device

    def undo():
        if before is None:
            _registered.pop(array_type, None)
        else:
            _registered[array_type] = before

    return undo


def device_of(array):
    """The device that an array lives on.

    Raises
    ------
    RuntimeError
        If the array is on another CUDA device than the current one.
    TypeError
        If it is no device array.
    """
    device = _registered.get(type(array))
    if device is not None:
        return device
    cupy = sys.modules.get("cupy")
    if cupy is None or not isinstance(array, cupy.ndarray):
        raise TypeError(f"device_of: array must be a CuPy array, got {type(array).__name__}")
    number, current = array.device.id, cupy.cuda.runtime.getDevice()
    if number != current:
        raise RuntimeError(
            f"device_of: the array is on CUDA device {number} but the current device is {current}; "
            f"use `with cupy.cuda.Device({number}):`"
        )
    return cupy_device(number)


def cupy_device(number=0):
    """The CUDA device of that number, made when first asked for.

    Raises
    ------
    RuntimeError
        If CuPy is not installed or finds no CUDA device.
    """
    if number not in _cupy_devices:
        try:
            import cupy

            found = cupy.cuda.runtime.getDeviceCount()
        except Exception as error:
            # CuPy reports a missing driver, a missing library or a broken install by many types
            raise RuntimeError(
                f"cupy_device: the gpu backend needs CuPy >= 14 and a CUDA device; install with {INSTALL} ({error})"
            ) from error
        if number >= found:
            raise RuntimeError(
                f"cupy_device: number must be below {found}, the devices CUDA finds, got {number}"
            )
        _cupy_devices[number] = CupyDevice(number)
    return _cupy_devices[number]
