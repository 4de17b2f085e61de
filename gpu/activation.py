"""Activations with parameters or with a second factor on the GPU."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256
# of the sums in the backward of StarReLU, as in the kernel
_ROUNDS = 8


def star_relu_forward(x, scale=None, bias=None, save=True):
    device = device_of(x)
    y = device.empty(x.shape, x.dtype)
    if x.size:
        args = (device.contiguous(x), *_given(device, scale, bias), y, numpy.int64(x.size))
        device.launch(_kernel("star_relu_forward", x), (_blocks(x),), (_THREADS,), args)
    return y, ()


def star_relu_backward(dout, saved):
    """Each block of the kernel leaves its sums; adding those up is left to the array."""
    x, scale, bias = saved.x, saved.scale, saved.bias
    device = device_of(x)
    dx = device.empty(x.shape, x.dtype)
    blocks = -(-_blocks(x) // _ROUNDS)
    sums = device.zeros((blocks, 2), numpy.float64 if x.dtype == numpy.float64 else numpy.float32)
    if x.size:
        arrays = (device.contiguous(x), device.contiguous(dout), *_given(device, scale), dx)
        learned = None if scale is None and bias is None else sums
        args = (*arrays, learned, numpy.int64(x.size))
        device.launch(_kernel("star_relu_backward", x), (blocks,), (_THREADS,), args)
    dscale = None if scale is None else sums[:, 0].sum(axis=0).reshape(1)
    return dx, dscale, None if bias is None else sums[:, 1].sum(axis=0).reshape(1)


def gate_forward(x, z, activation="gelu", save=True):
    device = device_of(x)
    y = device.empty(x.shape, x.dtype)
    if x.size:
        arrays, layout = _rows(device, x, z)
        kernel = _kernel("gate_forward", x, OP=activation)
        device.launch(kernel, (_blocks(x),), (_THREADS,), (*arrays, y, *layout))
    return y, ()


def gate_backward(dout, saved):
    x = saved.x
    device = device_of(x)
    dx, dz = (device.empty(x.shape, x.dtype) for _ in range(2))
    if x.size:
        arrays, layout = _rows(device, x, saved.z, dout)
        kernel = _kernel("gate_backward", x, OP=saved.activation)
        device.launch(kernel, (_blocks(x),), (_THREADS,), (*arrays, dx, dz, *layout))
    return dx, dz


def _kernel(name, x, **defines):
    return Kernel(name, "activation.cu", T=c_type(x.dtype), **defines)


def _blocks(x):
    return -(-x.size // (_THREADS * (16 // x.dtype.itemsize)))


def _given(device, *arrays):
    """The arrays as kernels take them, None for one that is absent."""
    return [None if a is None else device.contiguous(a) for a in arrays]


def _rows(device, *arrays):
    """The arrays, and the number of items, of items in a row, and from row to row of each."""
    size, c = arrays[0].size, arrays[0].shape[-1] if arrays[0].ndim else 1
    steps = [_row_step(a) for a in arrays]
    arrays = [device.contiguous(a) if step is None else a for a, step in zip(arrays, steps, strict=True)]
    if all(step in (None, c) for step in steps):
        # one long row
        c, steps = size, [size] * len(steps)
    return arrays, [numpy.int64(n) for n in (size, c, *(step or c for step in steps))]


def _row_step(array):
    """Items from one row of the last axis to the next, if the same everywhere and not overlapping, else None."""
    item, shape, strides = array.itemsize, array.shape, array.strides
    if not array.ndim or (strides[-1] != item and shape[-1] > 1):
        return None
    # axes of size 1 do not matter
    axes = [(n, s) for n, s in zip(shape[:-1], strides[:-1], strict=True) if n > 1]
    if any(outer != n * inner for (_, outer), (n, inner) in zip(axes, axes[1:])):
        return None
    step = axes[-1][1] if axes else math.prod(shape) * item
    return step // item if step % item == 0 and step >= shape[-1] * item else None
