"""Memory for kernels: aligned allocation, and arguments in the one form that kernels are compiled for."""

import math

import numpy

from mixers.cpu import memory, turn
from mixers.cpu.runner import helper, routine

# a cache line, and the widest register
ALIGNMENT = 64
# values from which copies of turned arrays go by a kernel
_LARGE, _FLOATS = 16384, (numpy.float32, numpy.float64)


def empty(shape, dtype):
    """An uninitialised C-contiguous array that begins at a multiple of 64 bytes.

    Kernels lose up to a quarter of their speed where vectors cross cache lines, as they do in most arrays
    that NumPy allocates.

    >>> empty((2, 3), "float32").ctypes.data % 64
    0
    """
    dtype = numpy.dtype(dtype)
    shape = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    size = math.prod(shape) * dtype.itemsize
    size += ALIGNMENT
    raw = numpy.empty(size, numpy.uint8) if size < memory.SMALLEST else memory.block(size)
    start = -raw.__array_interface__["data"][0] % ALIGNMENT
    return numpy.ndarray(shape, dtype, raw, start)


def zeros(shape, dtype):
    """Like :func:`empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


class _Writable:
    """Presents the memory of a read-only array as writable, and keeps it alive."""

    def __init__(self, array):
        self.array = array
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def contiguous(array, dtype=None):
    """The array as kernels take it: C-contiguous, of the given dtype, not read-only.

    Kernels only read what they get through here, so an array that is merely marked read-only is not copied:
    the result shares its memory. (Numba would compile every kernel again for read-only arrays.)

    Parameters
    ----------
    array : numpy.ndarray
        Any strides.
    dtype : dtype, optional
        Default: that of the array.

    Returns
    -------
    numpy.ndarray
        The array itself if it has that form already, else a view or an aligned copy.
    """
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and (dtype is None or array.dtype == dtype)):
        copy = empty(array.shape, dtype or array.dtype)
        if not _copy_turned(array, copy):
            copy[...] = array
        return copy
    if not flags.writeable:
        return numpy.asarray(_Writable(array))
    return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)


def _copy_turned(array, copy):
    """Copy an array whose last two axes are exchanged, if it is large: by vectors, some times as fast as NumPy."""
    if array.ndim < 2 or array.size < _LARGE or array.dtype not in _FLOATS or copy.dtype != array.dtype:
        return False
    source = array.swapaxes(-1, -2)
    if not (source.flags.c_contiguous and source.flags.aligned):
        return False
    turn.copy_turned(contiguous(source.reshape(-1, *source.shape[-2:])), copy)
    return True


def flat(array, dtype=None):
    """:func:`contiguous`, as one axis: the form in which most kernels take their arrays."""
    return contiguous(array, dtype).reshape(-1)


def strided_rows(array):
    """An array as its rows along the last axis lie in memory: :func:`flat` values, and the step from row to row.

    A slice of the channels of a larger array, as a split leaves it, is not copied: the step is then more than the
    length of a row. Other arrays that are not contiguous are.
    """
    step = _row_step(array)
    if step is None or not array.size or array.flags.c_contiguous:
        return flat(array), array.shape[-1]
    length = (array.size // array.shape[-1] - 1) * step + array.shape[-1]
    return flat(numpy.lib.stride_tricks.as_strided(array, (length,), (array.itemsize,))), step


def _row_step(array):
    """Values from one row of the last axis to the next, if the same everywhere and not overlapping, else None."""
    item, shape, strides = array.itemsize, array.shape, array.strides
    if not array.ndim or not array.flags.aligned or (strides[-1] != item and shape[-1] > 1):
        return None
    # axes of size 1 do not matter
    axes = [(n, s) for n, s in zip(shape[:-1], strides[:-1], strict=True) if n > 1]
    if any(outer != n * inner for (_, outer), (n, inner) in zip(axes, axes[1:])):
        return None
    step = axes[-1][1] if axes else shape[-1] * item
    return step // item if step % item == 0 and step >= shape[-1] * item else None


@helper
def first_aligned(scratch):
    """Inside kernels: the offset of the first value of `scratch` that begins a cache line.

    numpy.empty aligns to less there, so scratch should be ALIGNMENT values longer than what it holds.
    """
    return -scratch.ctypes.data % ALIGNMENT // scratch.itemsize


@routine
def scratch(size, like):
    """Inside kernels: an uninitialised array of that many values of the dtype of `like`, aligned."""
    raw = numpy.empty(size + ALIGNMENT, like.dtype)
    return raw[first_aligned(raw) :]
