"""Linear maps on the GPU: cuBLAS, and kernels for the bias and its gradient.

Half types go through the tensor cores: w is rounded to the type of x, products are summed in float32, the bias
is added in float32 and the result is rounded once.
"""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_WARP, _WARPS = 32, 8
_BIAS_ROWS = 64
_SUM_ROWS = 512


def linear_forward(x, w, b=None, save=True):
    device = device_of(x)
    rows = device.contiguous(x).reshape(-1, x.shape[-1])
    y = _product(device, rows, w.astype(x.dtype, copy=False), b, by_row=False)
    return y.reshape(*x.shape[:-1], w.shape[1]), ()


def linear_backward(dout, saved):
    x, w = saved.x, saved.w.astype(dout.dtype, copy=False)
    device = device_of(x)
    rows, drows = (device.contiguous(a).reshape(-1, a.shape[-1]) for a in (x, dout))
    dx = device.matmul(drows, w.swapaxes(0, 1)).reshape(x.shape)
    dw = device.matmul(rows.swapaxes(0, 1), drows, dtype=_wide(x))
    return dx, dw, None if saved.b is None else _column_sum(device, drows)


def axis_linear_forward(x, w, b=None, axis=1, save=True):
    device = device_of(x)
    axis %= x.ndim
    stack = _stack(device, x, axis)
    y = _product(device, w.astype(x.dtype, copy=False), stack, b, by_row=True)
    return y.reshape(*x.shape[:axis], w.shape[0], *x.shape[axis + 1 :]), ()


def axis_linear_backward(dout, saved):
    x, w = saved.x, saved.w.astype(dout.dtype, copy=False)
    device = device_of(x)
    stack, dstack = (_stack(device, a, saved.axis % x.ndim) for a in (x, dout))
    dx = device.matmul(w.swapaxes(0, 1), dstack).reshape(x.shape)
    dw = device.matmul(dstack, stack.swapaxes(1, 2), dtype=_wide(x)).sum(axis=0)
    return dx, dw, None if saved.b is None else _row_sum(device, dstack)


def _stack(device, array, axis):
    """The array as (everything before the axis, the axis, everything behind it)."""
    before, behind = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    return device.contiguous(array).reshape(before, array.shape[axis], behind)


def _product(device, left, right, bias, by_row):
    """left @ right + bias per column or per row, in the dtype of the operands."""
    if bias is None:
        return device.matmul(left, right)
    product = device.matmul(left, right, dtype=bias.dtype)
    y = product if left.dtype == bias.dtype else device.empty(product.shape, left.dtype)
    n, columns = product.shape[-2:]
    rows = product.size // columns if columns else 0
    if rows:
        per_thread = 16 // bias.dtype.itemsize
        grid = (-(-rows // _BIAS_ROWS) * -(-columns // (_WARP * per_thread)),)
        sizes = (numpy.int64(rows), numpy.int64(columns), numpy.int32(n), numpy.bool_(by_row))
        kernel = Kernel("add_bias", "linear.cu", T=c_type(y.dtype))
        device.launch(kernel, grid, (_WARP, _WARPS), (product, device.contiguous(bias), y, *sizes))
    return y


def _column_sum(device, rows):
    """Sum over the first axis of (rows, columns)."""
    count, columns = rows.shape
    blocks = -(-count // _SUM_ROWS)
    sums = device.zeros((blocks, columns), _wide(rows))
    if sums.size:
        kernel = Kernel("column_sums", "linear.cu", T=c_type(rows.dtype))
        sizes = (numpy.int64(count), numpy.int32(columns), numpy.int32(_SUM_ROWS))
        device.launch(kernel, (blocks, -(-columns // _WARP)), (_WARP, _WARPS), (rows, sums, *sizes))
    return sums.sum(axis=0)


def _row_sum(device, stack):
    """Sum over the first and last axes of (outer, n, inner)."""
    outer, n, inner = stack.shape
    sums = device.zeros((outer, n), _wide(stack))
    if stack.size:
        kernel = Kernel("row_sums", "linear.cu", T=c_type(stack.dtype))
        sizes = (numpy.int64(outer * n), numpy.int64(inner))
        device.launch(kernel, (-(-outer * n // _WARPS),), (_WARP, _WARPS), (stack, sums, *sizes))
    return sums.sum(axis=0)


def _wide(array):
    return numpy.float64 if array.dtype == numpy.float64 else numpy.float32
