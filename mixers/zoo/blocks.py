"""Pieces that several mixers are built from, each with its parameters."""

from mixers import graph, initializers, ops
from mixers.mixer import Parameter
from mixers.op import compute_dtype

MOMENTUM = 0.1


def norm_parameters(name, c):
    """Scale and bias of a norm without running statistics."""
    return {
        f"{name}_scale": Parameter((c,), initializers.ones),
        f"{name}_bias": Parameter((c,), initializers.zeros),
    }


def batch_norm_parameters(name, c):
    """Parameters of a batch norm: scale and bias, and the running statistics, which have no gradient."""
    return {
        f"{name}_scale": Parameter((c,), initializers.ones),
        f"{name}_bias": Parameter((c,), initializers.zeros),
        f"{name}_mean": Parameter((c,), initializers.zeros, trainable=False),
        f"{name}_var": Parameter((c,), initializers.ones, trainable=False),
    }


def batch_norm(p, name, x, eps=1e-5):
    """Batch norm with the parameters ``<name>_scale``, ... of p.

    With ``p.training`` it uses the statistics of the batch and puts the updated running ones in p.updates:
    nine tenths of the old value plus a tenth of the batch's, the variance unbiased.
    """
    scale, bias, mean, var = (p[f"{name}_{part}"] for part in ("scale", "bias", "mean", "var"))
    if not p.training:
        return ops.batch_norm(x, scale, bias, mean, var, eps=eps)
    y, batch_mean, batch_var = ops.batch_norm(x, scale, bias, mean, var, eps=eps, training=True)
    count = x.size // x.shape[-1]
    unbiased = graph.stop_gradient(batch_var) * (count / max(count - 1, 1))
    for part, old, new in (("mean", mean, graph.stop_gradient(batch_mean)), ("var", var, unbiased)):
        p.updates[f"{name}_{part}"] = ((1 - MOMENTUM) * old + MOMENTUM * new).astype(old.dtype)
    return y


def batch_normed(p, name, function, x, w, b=None, eps=1e-5):
    """Batch norm of ``function(x, w, b)``, a linear map or convolution whose last axis of w is the channels.

    With fixed statistics the norm is an affine map, which goes into w and b: it costs no pass over the tokens.
    """
    if p.training:
        return batch_norm(p, name, function(x, w, b), eps)
    return function(x, *fold_batch_norm(p, name, w, b, compute_dtype(x.dtype), eps))


def fold_batch_norm(p, name, w, b, dtype, eps=1e-5):
    """Weights and bias of a linear map or convolution that include the batch norm after it, of fixed statistics.

    With a = scale / sqrt(var + eps): w a and (b - mean) a + bias, in the given dtype, so that folding rounds as
    little as the norm itself.
    """
    scale, bias, mean, var = (p[f"{name}_{part}"].astype(dtype) for part in ("scale", "bias", "mean", "var"))
    a = scale * (1.0 / (var + eps) ** 0.5)
    offset = bias - mean * a if b is None else bias + (b.astype(dtype) - mean) * a
    return w.astype(dtype) * a, offset


def softmax(x):
    """Softmax over the last axis, for tables of a few weights."""
    # a constant offset, which the softmax does not see
    highest = graph.stop_gradient(x).max(axis=-1, keepdims=True)
    e = ops.exp(x - highest)
    return e / e.sum(axis=-1, keepdims=True)
