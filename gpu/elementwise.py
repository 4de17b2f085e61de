"""Elementwise ops on the GPU: one kernel file for the unary ones, the arrays' operators for arithmetic."""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_THREADS = 256


def _unary(name):
    """Forward and backward of one unary op; both read and write each element once."""

    def forward(x, save=True):
        return _launch("unary_forward", name, x), ()

    def backward(dout, saved):
        return (_launch("unary_backward", name, dout, saved.x),)

    forward.__name__, backward.__name__ = f"{name}_forward", f"{name}_backward"
    return forward, backward


def _launch(kernel, name, *arrays):
    device = device_of(arrays[0])
    out = device.empty(arrays[0].shape, arrays[0].dtype)
    if out.size:
        kernel = Kernel(kernel, "elementwise.cu", T=c_type(out.dtype), OP=name)
        per_block = _THREADS * (16 // out.dtype.itemsize)
        grid = (-(-out.size // per_block),)
        args = (*map(device.contiguous, arrays), out, numpy.int64(out.size))
        device.launch(kernel, grid, (_THREADS,), args)
    return out


gelu_forward, gelu_backward = _unary("gelu")
gelu_tanh_forward, gelu_tanh_backward = _unary("gelu_tanh")
silu_forward, silu_backward = _unary("silu")
relu_forward, relu_backward = _unary("relu")
sigmoid_forward, sigmoid_backward = _unary("sigmoid")
tanh_forward, tanh_backward = _unary("tanh")
softplus_forward, softplus_backward = _unary("softplus")
sin_forward, sin_backward = _unary("sin")
exp_forward, exp_backward = _unary("exp")
absolute_forward, absolute_backward = _unary("absolute")


def add_forward(a, b, save=True):
    return a + b, ()


def add_backward(dout, saved):
    dout = _widened(dout, saved)
    return _unbroadcast(dout.copy(), saved.a.shape), _unbroadcast(dout.copy(), saved.b.shape)


def sub_forward(a, b, save=True):
    return a - b, ()


def sub_backward(dout, saved):
    dout = _widened(dout, saved)
    return _unbroadcast(dout.copy(), saved.a.shape), _unbroadcast(-dout, saved.b.shape)


def mul_forward(a, b, save=True):
    return a * b, ()


def mul_backward(dout, saved):
    dout = _widened(dout, saved)
    return _unbroadcast(dout * saved.b, saved.a.shape), _unbroadcast(dout * saved.a, saved.b.shape)


def div_forward(a, b, save=True):
    return a / b, ()


def div_backward(dout, saved):
    da = _widened(dout, saved) / saved.b
    return _unbroadcast(da, saved.a.shape), _unbroadcast(-da * saved.a / saved.b, saved.b.shape)


def _widened(dout, saved):
    """The cotangent in the compute dtype, which is that of b, so that sums and products round once."""
    return dout.astype(saved.b.dtype, copy=False)


def _unbroadcast(d, shape):
    """Sum over the axes along which an operand of this shape was broadcast."""
    leading = d.ndim - len(shape)
    repeated = (leading + i for i, n in enumerate(shape) if n == 1 and d.shape[leading + i] != 1)
    axes = (*range(leading), *repeated)
    return d.sum(axis=axes).reshape(shape) if axes else d
