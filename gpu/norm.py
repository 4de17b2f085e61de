"""Norms over channels on the GPU: a warp per token, then sums over blocks of tokens for the parameters."""

import math

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

_WARP, _WARPS = 32, 8
_BLOCK_TOKENS = 512


def layer_norm_forward(x, scale=None, bias=None, eps=1e-5, save=True):
    y, mean, rstd = _forward(x, scale, bias, eps, centred=True)
    return y, (mean, rstd)


def layer_norm_backward(dout, saved):
    return _backward(dout, saved, saved.mean, saved.bias)


def rms_norm_forward(x, scale=None, eps=1e-5, save=True):
    y, _, rstd = _forward(x, scale, None, eps, centred=False)
    return y, (rstd,)


def rms_norm_backward(dout, saved):
    return _backward(dout, saved, None, None)[:2]


def _forward(x, scale, bias, eps, centred):
    device, wide = device_of(x), _wide(x)
    y = device.empty(x.shape, x.dtype)
    mean, rstd = (device.empty(x.shape[:-1], wide) for _ in range(2))
    tokens, c = math.prod(x.shape[:-1]), x.shape[-1]
    if x.size:
        args = (device.contiguous(x), *_given(device, scale, bias), y, mean, rstd)
        sizes = (numpy.int64(tokens), numpy.int32(c), numpy.float64(eps))
        grid = (-(-tokens // _WARPS),)
        device.launch(_kernel("normalise", x, centred), grid, (_WARP, _WARPS), (*args, *sizes))
    return y, mean, rstd


def _backward(dout, saved, mean, bias):
    x, scale = saved.x, saved.scale
    device, wide = device_of(x), _wide(x)
    dx = device.empty(x.shape, x.dtype)
    tokens, c = math.prod(x.shape[:-1]), x.shape[-1]
    blocks = -(-tokens // _BLOCK_TOKENS)
    dots, sums = (device.zeros((blocks, c), wide) for _ in range(2))
    if x.size:
        centred = mean is not None
        arrays = [device.contiguous(x), device.contiguous(dout)]
        statistics = _given(device, mean, saved.rstd)
        sizes = (numpy.int64(tokens), numpy.int32(c))
        args = (*arrays, *_given(device, scale), *statistics, dx, *sizes)
        device.launch(_kernel("pull", x, centred), (-(-tokens // _WARPS),), (_WARP, _WARPS), args)
        if scale is not None or bias is not None:
            args = (*arrays, *statistics, dots, sums, *sizes, numpy.int32(_BLOCK_TOKENS))
            grid = (blocks, -(-c // _WARP))
            device.launch(_kernel("parameter_sums", x, centred), grid, (_WARP, _WARPS), args)
    dscale = None if scale is None else dots.sum(axis=0)
    return dx, dscale, None if bias is None else sums.sum(axis=0)


def _kernel(name, x, centred):
    return Kernel(name, "norm.cu", T=c_type(x.dtype), CENTRED=int(centred))


def _wide(x):
    return numpy.float64 if x.dtype == numpy.float64 else numpy.float32


def _given(device, *arrays):
    """The arrays as kernels take them, None for one that is absent."""
    return [None if a is None else device.contiguous(a) for a in arrays]
