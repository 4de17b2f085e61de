"""Activations with parameters or with a second factor, in NumPy."""

import numpy
from scipy import special


def star_relu_forward(x, scale=None, bias=None, save=True):
    """y = s max(x, 0)^2 + t."""
    y = numpy.maximum(x, 0.0) ** 2
    if scale is not None:
        y = scale * y
    return y if bias is None else y + bias, ()


def star_relu_backward(dout, saved):
    """With r = max(x, 0): dx = dy s 2 r, as d(r^2)/dx = 2 r; ds = sum dy r^2, dt = sum dy."""
    x, scale, bias = saved.x, saved.scale, saved.bias
    r = numpy.maximum(x, 0.0)
    dx = dout * 2.0 * r if scale is None else dout * scale * 2.0 * r
    dscale = None if scale is None else (dout * r * r).sum().reshape(1)
    return dx, dscale, None if bias is None else dout.sum().reshape(1)


def gate_forward(x, z, activation="gelu", save=True):
    """y = act(x) z."""
    return _activate(activation, x)[0] * z, ()


def gate_backward(dout, saved):
    """Product rule: dx = dy z act'(x), dz = dy act(x)."""
    value, slope = _activate(saved.activation, saved.x)
    return dout * saved.z * slope, dout * value


def _activate(name, x):
    """act(x) and act'(x)."""
    if name == "none":
        return x, numpy.ones_like(x)
    if name == "gelu":
        density = numpy.exp(-0.5 * x * x) / numpy.sqrt(2.0 * numpy.pi)
        cumulative = special.ndtr(x)
        return x * cumulative, (cumulative + x * density).astype(x.dtype)
    s = special.expit(x)
    if name == "sigmoid":
        return s, s * (1.0 - s)
    return x * s, s * (1.0 + x * (1.0 - s))
