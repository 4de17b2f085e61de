"""Pieces that several mixers are built from, each with its parameters."""

from mixers import graph, initializers, ops
from mixers.mixer import Parameter

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
