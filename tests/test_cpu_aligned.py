"""Aligned allocation, and arrays in the form that kernels take."""

import numba
import numpy
import pytest
from numpy.testing import assert_array_equal

from mixers.cpu import aligned
from mixers.cpu.aligned import contiguous, flat


@pytest.mark.parametrize("shape", [(), (0,), 5, (3, 1), (7, 33, 5), (2, 0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", numpy.int64])
def test_allocation(shape, dtype):
    for make in (aligned.empty, aligned.zeros):
        array = make(shape, dtype)
        assert array.shape == numpy.empty(shape).shape
        assert array.dtype == dtype
        assert array.ctypes.data % 64 == 0
        assert array.flags.carray
    assert not array.any()


def test_a_fitting_array_is_returned_as_it_is():
    a = numpy.ones((3, 4), "float32")
    assert contiguous(a) is a
    assert contiguous(a, "float32") is a
    assert numpy.shares_memory(flat(a), a)


def unfitting():
    a = numpy.arange(24.0).reshape(4, 6)
    misplaced = numpy.frombuffer(bytearray(24 * 8 + 1), "float64", offset=1)
    misplaced[:] = a.ravel()
    yield a.T
    yield a[::-1]
    yield a[:, ::2]
    yield numpy.broadcast_to(a[0], (5, 6))
    yield misplaced
    yield a.astype(">f8").astype("float64")[1:, 1:]


@pytest.mark.parametrize("array", list(unfitting()), ids=lambda a: str(a.strides))
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_other_arrays_are_copied(array, dtype):
    before = array.copy()
    result = contiguous(array, dtype)
    assert result.flags.carray
    assert not numpy.shares_memory(result, array)
    assert result.dtype == (dtype or array.dtype)
    assert_array_equal(result, array)
    result[...] = 0
    assert_array_equal(array, before)
    assert_array_equal(flat(array, dtype), before.ravel())


def test_read_only_arrays_have_the_type_of_ordinary_ones_without_a_copy():
    a = numpy.arange(6.0).reshape(2, 3)
    fixed = a.view()
    fixed.flags.writeable = False
    result = contiguous(fixed)
    assert numpy.shares_memory(result, a)
    assert numba.typeof(result) == numba.typeof(a) != numba.typeof(fixed)
    assert not fixed.flags.writeable
    del a, fixed
    assert_array_equal(result, [[0, 1, 2], [3, 4, 5]])


def test_subclasses_become_plain_arrays():
    class Special(numpy.ndarray):
        pass

    a = numpy.ones(3).view(Special)
    assert type(contiguous(a)) is numpy.ndarray
    assert numpy.shares_memory(contiguous(a), a)


def test_no_dimension_and_no_element():
    assert flat(numpy.float32(3).reshape(())).shape == (1,)
    assert contiguous(numpy.zeros((3, 0, 2))).shape == (3, 0, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(
    "shape", [(3, 70, 131), (200, 129), (2, 3, 64, 64), (1, 20000), (20000, 1), (30, 40)]
)
def test_copies_of_turned_arrays(dtype, shape):
    array = numpy.random.default_rng(0).integers(0, 1000, shape).astype(dtype)
    array.flags.writeable = False
    turned = array.swapaxes(-1, -2)
    copy = aligned.contiguous(turned)
    numpy.testing.assert_array_equal(copy, turned)
    assert copy.flags.c_contiguous
