"""Dense products on the GPU: how strided arrays are handed to cuBLAS without a copy where possible."""

from typing import Any, NamedTuple

import numpy


class Operand(NamedTuple):
    """A stack of matrices in the terms of a BLAS, strides counted in items.

    ``transposed`` is False for rows that are contiguous; ``leading`` is the step between rows (or
    columns, if transposed), ``stride`` that between matrices, 0 if all are one and the same.
    """

    array: Any
    transposed: bool
    leading: int
    stride: int


def matmul(device, a, b, dtype=None):
    """See :meth:`mixers.gpu.device.Device.matmul`."""
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: b must have shape (..., {a.shape[-1]}, n), got {b.shape} for a {a.shape}")
    if a.dtype != b.dtype:
        wider = numpy.promote_types(a.dtype, b.dtype)
        a, b = a.astype(wider, copy=False), b.astype(wider, copy=False)
    m, k, n = *a.shape[-2:], b.shape[-1]
    wanted = a.dtype if dtype is None else numpy.dtype(dtype)
    # half operands may give a float32 result; no BLAS narrows
    direct = wanted if wanted == numpy.float32 and a.dtype.itemsize == 2 else a.dtype
    batch_shape = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = device.empty((*batch_shape, m, n), direct)
    if out.size == 0 or k == 0:
        return device.zeros(out.shape, wanted)
    batch = out.size // (m * n)
    left, right = operand(device, a, batch_shape), operand(device, b, batch_shape)
    # one matrix for the whole batch: the rows of all left matrices are one tall matrix
    if right.stride == 0 and not left.transposed and left.stride == m * left.leading:
        m, batch = m * batch, 1
    device.gemm((m, n, k), left, right, out, batch)
    return out.astype(wanted, copy=False)


def operand(device, array, batch_shape):
    """The array as an Operand for every matrix of `batch_shape`, copied only if its strides demand it."""
    described = _describe(array, batch_shape)
    if described is None:
        described = _describe(device.contiguous(array), batch_shape)
    if described is None:
        # contiguous, but repeated along an inner axis of the batch only
        repeated = device.empty((*batch_shape, *array.shape[-2:]), array.dtype)
        repeated[...] = array
        described = _describe(repeated, batch_shape)
    return described


def _describe(array, batch_shape):
    rows, columns = array.shape[-2:]
    *batch_steps, row_step, column_step = (step // array.itemsize for step in array.strides)
    stride = _common_step(array.shape[:-2], batch_steps, batch_shape)
    if stride is None or stride < 0:
        return None
    if columns == 1 or column_step == 1:
        leading = row_step if rows > 1 else columns
        if leading >= columns:
            return Operand(array, False, leading, stride)
    if rows == 1 or row_step == 1:
        leading = column_step if columns > 1 else rows
        if leading >= rows:
            return Operand(array, True, leading, stride)
    return None


def _common_step(shape, steps, batch_shape):
    """The one step that walks the whole batch, or None if there is no such step."""
    missing = len(batch_shape) - len(shape)
    steps = [0] * missing + [0 if size == 1 else step for size, step in zip(shape, steps)]
    walked, common = 1, 0
    for size, step in zip(reversed(batch_shape), reversed(steps)):
        if size == 1:
            continue
        if walked == 1:
            common = step
        elif step != common * walked:
            return None
        walked *= size
    return common
