"""Norms with statistics over tokens in NumPy."""

import numpy


def batch_norm_forward(x, scale, bias, mean, var, eps=1e-5, training=False, save=True):
    """y = n scale + bias, n = (x - m) rstd; m and v are given, or those of the batch."""
    m, v = mean, var
    if training:
        axes = tuple(range(x.ndim - 1))
        m = x.mean(axis=axes)
        v = ((x - m) ** 2).mean(axis=axes)
    rstd = 1.0 / numpy.sqrt(v + eps)
    y = (x - m) * rstd * scale + bias
    return (y, m, v) if training else (y, None, None), (m, rstd)


def batch_norm_backward(dout, saved):
    """dscale = sum dy n, dbias = sum dy; dx = rstd q, or rstd (q - mean(q) - n mean(q n)) when training.

    With given statistics y is affine in x. With those of the batch the argument of layer_norm holds per
    channel, with means over batch and tokens; besides, over the M tokens of the batch,
    dbatch_mean / M and 2 (x - m) dbatch_var / M. The running statistics are data: no gradient.
    """
    x, dy = saved.x, dout.y
    dy = numpy.zeros_like(x) if dy is None else dy
    axes = tuple(range(dy.ndim - 1))
    n = (x - saved.centre) * saved.rstd
    q = dy * saved.scale
    dx = q * saved.rstd
    if saved.training:
        count = x.size // x.shape[-1]
        dx = saved.rstd * (q - q.mean(axis=axes) - n * (q * n).mean(axis=axes))
        if dout.batch_mean is not None:
            dx = dx + dout.batch_mean / count
        if dout.batch_var is not None:
            dx = dx + 2.0 * (x - saved.centre) * dout.batch_var / count
    return dx, (dy * n).sum(axis=axes), dy.sum(axis=axes), None, None


def group_norm_forward(x, scale=None, bias=None, groups=1, eps=1e-5, save=True):
    """y = n scale + bias, n = (x - mean) rstd with the statistics of each group (b, groups)."""
    grouped = _grouped(x, groups)
    mean = _mean(grouped)
    rstd = 1.0 / numpy.sqrt(_mean((grouped - mean) ** 2) + eps)
    y = ((grouped - mean) * rstd).reshape(x.shape)
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    return y, (mean[:, 0, :, 0], rstd[:, 0, :, 0])


def group_norm_backward(dout, saved):
    """dx = rstd (q - mean(q) - n mean(q n)), q = dy scale, means over tokens and channels of the group.

    As for layer_norm: the map of dx to dn is symmetric, whatever the axes of the statistics.
    """
    x, groups = saved.x, saved.groups
    mean, rstd = saved.mean[:, None, :, None], saved.rstd[:, None, :, None]
    n = (_grouped(x, groups) - mean) * rstd
    q = _grouped(dout if saved.scale is None else dout * saved.scale, groups)
    dx = (rstd * (q - _mean(q) - n * _mean(q * n))).reshape(x.shape)
    axes = tuple(range(x.ndim - 1))
    dscale = None if saved.scale is None else (dout * n.reshape(x.shape)).sum(axis=axes)
    return dx, dscale, None if saved.bias is None else dout.sum(axis=axes)


def _grouped(x, groups):
    """(b, tokens, groups, channels of a group)."""
    b, c = x.shape[0], x.shape[-1]
    tokens = int(numpy.prod(x.shape[1:-1]))
    return x.reshape(b, tokens, groups, c // groups)


def _mean(grouped):
    """Mean over tokens and channels of each group, kept broadcastable; 0 without tokens."""
    count = max(grouped.shape[1] * grouped.shape[3], 1)
    return grouped.sum(axis=(1, 3), keepdims=True) / count
