"""Linear maps on the GPU: cuBLAS, and kernels for what comes after a product and for the bias' gradient.

Half types go through the tensor cores: w is rounded to the type of x, products are summed in float32, the bias
is added in float32 and the result is rounded once.
"""

import math
from typing import Any, NamedTuple

import numpy

from mixers.gpu import elementwise
from mixers.gpu.device import Kernel, c_type, device_of

_WARP, _WARPS = 32, 8
_BIAS_ROWS = 64
_SUM_ROWS = 512
_ACTIVATIONS = {
    name: (getattr(elementwise, f"{name}_forward"), getattr(elementwise, f"{name}_backward"))
    for name in ("gelu", "gelu_tanh", "relu", "silu")
}


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


def token_mlp_forward(x, w_in, w_out, b_in=None, b_out=None, activation="gelu", save=True):
    device, wide = device_of(x), _wide(x)
    w_in, w_out = (w.astype(x.dtype, copy=False) for w in (w_in, w_out))
    product = device.matmul(w_in, device.contiguous(x), dtype=wide)
    v = device.empty(product.shape, wide) if save else product
    _finish(device, product, b_in, product if save else None, v, True, ACTIVATION=activation)
    y = _wide_product(device, w_out, v)
    if b_out is not None:
        _finish(device, y, b_out, None, y, True)
    return y, (product if save else None,)


def token_mlp_backward(dout, saved):
    device, hidden, wide = device_of(dout), saved.hidden, _wide(dout)
    x, dout = device.contiguous(saved.x), device.contiguous(dout)
    w_in, w_out = (w.astype(x.dtype, copy=False) for w in (saved.w_in, saved.w_out))
    forward, backward = _ACTIVATIONS[saved.activation]
    (v, _), dv = forward(hidden), device.matmul(w_out.swapaxes(0, 1), dout, dtype=wide)
    (dhidden,) = backward(dv, _Step(hidden))
    dx = _wide_product(device, w_in.swapaxes(0, 1), dhidden)
    dw_out = _wide_product(device, dout, v.swapaxes(1, 2)).sum(axis=0)
    # the factors in the other order, as only the right one may be wide
    dw_in = _wide_product(device, x, dhidden.swapaxes(1, 2)).sum(axis=0).swapaxes(0, 1)
    db_in = None if saved.b_in is None else _row_sum(device, dhidden)
    return dx, dw_in, dw_out, db_in, (None if saved.b_out is None else _row_sum(device, dout))


def _wide_product(device, left, right):
    """left @ right in the dtype of `right`, which is float32 beside half types.

    For the tensor cores `right` becomes the sum of two half numbers, which keeps its digits.
    """
    if left.dtype == right.dtype:
        return device.matmul(left, right)
    high = right.astype(left.dtype)
    low = (right - high.astype(right.dtype)).astype(left.dtype)
    return device.matmul(left, high, dtype=right.dtype) + device.matmul(left, low, dtype=right.dtype)


class _Step(NamedTuple):
    """What the backward of an activation takes."""

    x: Any


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
    _finish(device, product, bias, None, y, by_row)
    return y


def _finish(device, product, bias, before, y, by_row, **macros):
    n, columns = product.shape[-2:]
    rows = product.size // columns if columns else 0
    if rows:
        per_thread = 16 // product.dtype.itemsize
        grid = (-(-rows // _BIAS_ROWS) * -(-columns // (_WARP * per_thread)),)
        bias = None if bias is None else device.contiguous(bias)
        sizes = (numpy.int64(rows), numpy.int64(columns), numpy.int32(n), numpy.bool_(by_row))
        kernel = Kernel("finish", "linear.cu", T=c_type(y.dtype), **macros)
        device.launch(kernel, grid, (_WARP, _WARPS), (product, bias, before, y, *sizes))


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
