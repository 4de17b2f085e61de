"""Norms over channels in NumPy."""

import numpy


def layer_norm_forward(x, scale=None, bias=None, eps=1e-5, save=True):
    """y = n scale + bias, n = (x - mean) rstd, rstd = 1 / sqrt(var + eps)."""
    mean = x.mean(axis=-1)
    centred = x - mean[..., None]
    rstd = 1.0 / numpy.sqrt((centred * centred).mean(axis=-1) + eps)
    y = centred * rstd[..., None]
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    return y, (mean, rstd)


def layer_norm_backward(dout, saved):
    """dx = rstd (q - mean(q) - n mean(q n)) with q = dy scale; dscale = sum dy n, dbias = sum dy.

    With d for a change, n = (x - mean) rstd gives
    dn = rstd (dx - mean(dx)) + (x - mean) drstd,  drstd = -rstd^3 mean((x - mean) dx) = -rstd^2 mean(n dx),
    so dn = rstd (dx - mean(dx) - n mean(n dx)). This map of dx is symmetric: applied to q it is the gradient.
    """
    mean, rstd = saved.mean[..., None], saved.rstd[..., None]
    n = (saved.x - mean) * rstd
    q = dout if saved.scale is None else dout * saved.scale
    dx = rstd * (q - q.mean(axis=-1, keepdims=True) - n * (q * n).mean(axis=-1, keepdims=True))
    return dx, _token_sum(dout * n, saved.scale), _token_sum(dout, saved.bias)


def rms_norm_forward(x, scale=None, eps=1e-5, save=True):
    """y = n scale, n = x rstd, rstd = 1 / sqrt(mean(x^2) + eps)."""
    rstd = 1.0 / numpy.sqrt((x * x).mean(axis=-1) + eps)
    y = x * rstd[..., None]
    return (y if scale is None else y * scale), (rstd,)


def rms_norm_backward(dout, saved):
    """dx = rstd (q - n mean(q n)) with q = dy scale; dscale = sum dy n.

    As for layer_norm without the mean: dn = rstd (dx - n mean(n dx)), a symmetric map of dx.
    """
    rstd = saved.rstd[..., None]
    n = saved.x * rstd
    q = dout if saved.scale is None else dout * saved.scale
    dx = rstd * (q - n * (q * n).mean(axis=-1, keepdims=True))
    return dx, _token_sum(dout * n, saved.scale)


def _token_sum(values, parameter):
    """Sum over all axes but the last, for a parameter that was given."""
    return None if parameter is None else values.sum(axis=tuple(range(values.ndim - 1)))
