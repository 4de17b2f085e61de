"""The emulated device: mixers.gpu.device.Device on the CPU, with a schedule, poison and a checker."""

import contextlib
import ctypes
import functools
import unittest
from typing import Any, NamedTuple

import numpy
import scipy.fft

from mixers import backend
from mixers.gpu.device import Device, register_device

from . import build
from .arrays import DeviceArray, on_device
from .build import EmulatorError

SCHEDULES = ("fifo", "lifo", "random")

# larger arrays are left to the operating system, which gives pages only when they are touched
_LAZY_BYTES = 1 << 28


class Launched(NamedTuple):
    """What a test may ask about a launch."""

    kernel: Any
    grid: tuple
    block: tuple
    shared: int


class EmulatedDevice(Device):
    """A device that runs kernels on the CPU, one thread after another.

    Parameters
    ----------
    schedule : {"fifo", "lifo", "random"}
        Which thread goes on when several could, and the order of blocks.
    seed : int
        Of the random schedule.
    poison : int
        The byte that fills ``empty`` arrays and shared memory: 0xFF is NaN and -1, 0x3F a small number.
    checked : bool
        Build the kernels with checks: races, bounds, uninitialised shared memory, undefined behaviour.
    last_blocks : int, optional
        Run only that many blocks at the end of each grid, for arrays too large to compute in full.
    dry : bool
        Note launches without running them; arrays keep their poison.

    Attributes
    ----------
    launches : list of Launched
        What was launched, in order.
    time_limit : float
        Seconds of processor time a launch may take; then it is taken for an endless loop.
    skipped_barrier : tuple of (file, line) or None
        A barrier that does nothing.
    sm_count, compute_capability, max_shared : int
        May be set, to test the geometry that launchers choose for a GPU.
    """

    array_type = DeviceArray
    sm_count = 4
    compute_capability = 80
    max_shared = 99 << 10
    time_limit = 60.0

    def __init__(self, schedule="fifo", seed=1, poison=0xFF, checked=False, last_blocks=None, dry=False):
        self.schedule, self.seed, self.poison, self.checked = schedule, seed, poison, checked
        self.last_blocks, self.dry = last_blocks, dry
        self.launches = []
        self.skipped_barrier = None
        self.recording = False

    def empty(self, shape, dtype):
        array = numpy.empty(shape, dtype)
        if array.nbytes < _LAZY_BYTES:
            array.reshape(-1).view(numpy.uint8).fill(self.poison)
        return array.view(DeviceArray)

    def zeros(self, shape, dtype):
        return numpy.zeros(shape, dtype).view(DeviceArray)

    def to_device(self, array):
        return numpy.array(array, order="C", subok=False).view(DeviceArray)

    def to_host(self, array):
        if not isinstance(array, DeviceArray):
            raise TypeError(f"to_host: array must be a device array, got {type(array).__name__}")
        return numpy.array(array, subok=False)

    def synchronize(self):
        pass

    def fft(self, array, n=None, axis=-1, norm=None):
        return self._transform(scipy.fft.fft, array, n, axis, norm)

    def ifft(self, array, n=None, axis=-1, norm=None):
        return self._transform(scipy.fft.ifft, array, n, axis, norm)

    def rfft(self, array, n=None, axis=-1, norm=None):
        return self._transform(scipy.fft.rfft, array, n, axis, norm)

    def irfft(self, array, n=None, axis=-1, norm=None):
        return self._transform(scipy.fft.irfft, array, n, axis, norm)

    def _transform(self, function, array, n, axis, norm):
        if array.dtype.itemsize == 2:
            raise TypeError(f"{function.__name__}: array must be float32 or float64, got {array.dtype}")
        return on_device(function(array.view(numpy.ndarray), n, axis, norm))

    def gemm(self, sizes, left, right, out, batch):
        """The product as a BLAS computes it from addresses and steps (see mixers.gpu.matrix)."""
        m, n, k = sizes
        wide = numpy.float32 if left.array.dtype.itemsize == 2 else left.array.dtype
        product = _matrices(left, batch, m, k).astype(wide) @ _matrices(right, batch, k, n).astype(wide)
        out.view(numpy.ndarray).reshape(batch, m, n)[...] = product

    def barriers(self):
        """Places (file, line) of the barriers met since ``recording`` was set."""
        places = (_Place * build.runtime().emulator_recorded(None))()
        build.runtime().emulator_recorded(places)
        return {(place.file.decode(), place.line) for place in places}

    def _start(self, kernel, grid, block, args, shared):
        self.launches.append(Launched(kernel, grid, block, shared))
        if self.dry:
            return
        library = _library(kernel.source(), self.checked)
        entry = library.entry(kernel.name)
        if block[0] * block[1] * block[2] > entry.max_threads:
            raise EmulatorError(
                f"{kernel.name}: block {block} exceeds __launch_bounds__({entry.max_threads})"
            )
        cells = _cells(kernel.name, args, entry.parameters)
        regions = _regions(args)
        skipped_file, skipped_line = self.skipped_barrier or (None, 0)
        message = ctypes.create_string_buffer(1024)
        blocks = grid[0] * grid[1] * grid[2]
        launch = _Launch(
            entry=entry.address,
            arguments=(ctypes.c_void_p * max(1, len(cells)))(*map(ctypes.addressof, cells)),
            grid=grid,
            block=block,
            dynamic_bytes=shared,
            static_begin=library.static_range[0],
            static_end=library.static_range[1],
            regions=(_Region * max(1, len(regions)))(*regions),
            region_count=len(regions),
            schedule=SCHEDULES.index(self.schedule),
            seed=self.seed,
            poison=self.poison,
            checked=self.checked,
            time_limit_ms=int(1000 * self.time_limit),
            first_block=max(0, blocks - self.last_blocks) if self.last_blocks else 0,
            last_block=blocks - 1,
            skipped_file=skipped_file and skipped_file.encode(),
            skipped_line=skipped_line,
            recording=self.recording,
            message=ctypes.cast(message, ctypes.c_void_p),
            message_size=len(message),
        )
        if build.runtime().emulator_launch(ctypes.byref(launch)):
            place = f" at {library.place(launch.error_address)}" if launch.error_address else ""
            raise EmulatorError(f"{kernel.name}: {message.value.decode()}{place}")


@functools.cache
def _library(source, checked):
    return build.Library(source, checked)


class _Place(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("line", ctypes.c_int)]


class _Region(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_size_t), ("end", ctypes.c_size_t), ("cell_shift", ctypes.c_int)]


class _Launch(ctypes.Structure):
    """struct Launch of runtime/runtime.h."""

    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_bytes", ctypes.c_uint64),
        ("static_begin", ctypes.c_void_p),
        ("static_end", ctypes.c_void_p),
        ("regions", ctypes.POINTER(_Region)),
        ("region_count", ctypes.c_int),
        ("schedule", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("poison", ctypes.c_int),
        ("checked", ctypes.c_int),
        ("time_limit_ms", ctypes.c_int),
        ("first_block", ctypes.c_uint64),
        ("last_block", ctypes.c_uint64),
        ("skipped_file", ctypes.c_char_p),
        ("skipped_line", ctypes.c_int),
        ("recording", ctypes.c_int),
        ("message", ctypes.c_void_p),
        ("message_size", ctypes.c_int),
        ("error_address", ctypes.c_uint64),
    ]


# signed and unsigned integers are of one kind, and records are structs
_KINDS = str.maketrans("uV", "is")


def _cells(name, args, parameters):
    """The arguments as C values, checked against the kernel's parameters."""
    if len(args) != len(parameters):
        raise EmulatorError(f"{name}: {len(args)} arguments were given for {len(parameters)} parameters")
    cells = []
    for number, (argument, (kind, item, size)) in enumerate(zip(args, parameters)):
        if kind in "pP":
            cells.append(ctypes.c_void_p(None if argument is None else argument.ctypes.data))
            fault = _pointer_fault(argument, kind, item, size)
        else:
            given = getattr(argument, "dtype", numpy.dtype("V")).kind.translate(_KINDS)
            fits = isinstance(argument, numpy.generic) and given == item and argument.itemsize == size
            fault = f"{_named(argument)} given for a parameter of kind {item!r} and {size} bytes"
            if fits:
                cells.append((ctypes.c_char * size).from_buffer_copy(argument.tobytes()))
                fault = None
        if fault:
            raise EmulatorError(f"{name}: argument {number}: {fault}")
    return cells


def _pointer_fault(argument, kind, item, size):
    if argument is None:
        return None
    if not isinstance(argument, DeviceArray):
        return f"{_named(argument)} given for a pointer"
    given = argument.dtype.kind.replace("u", "i")
    # f16_t, bf16_t, float2 and the like are structs; void and char pointers take anything
    if size > 1 and (argument.itemsize != size or (item in "fi" and given != item)):
        return f"{argument.dtype} array given for a pointer to items of kind {item!r} and {size} bytes"
    if kind == "P" and not argument.flags.writeable:
        return "a read-only array given for a pointer to writable items"
    return None


def _named(argument):
    return type(argument).__name__


def _regions(args):
    """Byte bounds of the array arguments, overlapping ones merged."""
    regions = []
    for begin, end, shift in sorted(map(_bounds, filter(_is_filled, args))):
        if regions and begin < regions[-1].end:
            previous = regions.pop()
            begin, end, shift = previous.begin, max(end, previous.end), min(shift, previous.cell_shift)
        regions.append(_Region(begin, end, shift))
    return regions


def _is_filled(argument):
    return isinstance(argument, DeviceArray) and argument.size


def _bounds(array):
    low = high = array.ctypes.data
    for size, step in zip(array.shape, array.strides):
        low, high = low + min(0, (size - 1) * step), high + max(0, (size - 1) * step)
    # one cell per item, of at most 8 bytes
    return low, high + array.itemsize, min(3, array.itemsize.bit_length() - 1)


def _matrices(operand, batch, rows, columns):
    """The (batch, rows, columns) view that an Operand of mixers.gpu.matrix describes."""
    steps = (1, operand.leading) if operand.transposed else (operand.leading, 1)
    strides = [step * operand.array.itemsize for step in (operand.stride, *steps)]
    start = operand.array.view(numpy.ndarray)
    return numpy.lib.stride_tricks.as_strided(start, (batch, rows, columns), strides)


@contextlib.contextmanager
def activate(**options):
    """Make the emulated device serve DeviceArray: ``with activate() as device:``; see EmulatedDevice.

    Within the block, ops called on ``device.to_device(a)`` are computed by the gpu backend. Blocks may be
    nested; the innermost device serves. Where the emulator cannot run, a test that calls this is skipped.
    """
    device = EmulatedDevice(**options)
    reason = None if device.dry else build.missing()
    if reason:
        # pytest takes this exception of the standard library as a skip
        raise unittest.SkipTest(reason)
    undo = [register_device(DeviceArray, device)]
    if backend.array_backend(device.zeros((), "float32")) != "gpu":
        undo.append(backend.register_array_type(DeviceArray, "gpu"))
    try:
        yield device
    finally:
        for take_back in reversed(undo):
            take_back()
