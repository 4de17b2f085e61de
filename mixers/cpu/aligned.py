"""Memory for kernels: aligned allocation, and arguments in the one form that kernels are compiled for."""

import math

import numpy

from mixers.cpu import memory
from mixers.cpu.runner import helper, routine

# a cache line, and the widest register
ALIGNMENT = 64


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
        copy[...] = array
        return copy
    if not flags.writeable:
        return numpy.asarray(_Writable(array))
    return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)


def flat(array, dtype=None):
    """:func:`contiguous`, as one axis: the form in which most kernels take their arrays."""
    return contiguous(array, dtype).reshape(-1)


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
