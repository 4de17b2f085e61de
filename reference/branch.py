"""Attention over branches, as defined."""

import math

import numpy

from mixers.reference import elementwise


def branch_attention_forward(
    z0, z1, z2, w_in, w_out, b_in=None, b_out=None, pool="mean", order="fastest", save=True
):
    """Pool, MLP, softmax over the branches, weighted sum."""
    branches = _tokens(z0, z1, z2)
    pooled = branches.sum(axis=(0, 2)) * _factor(z0, pool)
    hidden = pooled @ w_in
    if b_in is not None:
        hidden = hidden + b_in
    o = elementwise.gelu_forward(hidden)[0] @ w_out
    if b_out is not None:
        o = o + b_out
    logits = _by_branch(o, order)
    weights = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    y = (weights.swapaxes(0, 1)[:, :, None] * branches).sum(axis=0)
    return y.reshape(z0.shape), (pooled, hidden, weights)


def branch_attention_backward(dout, saved):
    """Backward of the steps in reverse.

    forward was: a = f sum z_k; hidden = a w_in + b_in; o = gelu(hidden) w_out + b_out; weights = softmax(o);
    y = sum_k weights_k z_k. So dweights_k = sum over tokens of dy z_k; the softmax gives do_k = weights_k (dweights_k
    - sum_j weights_j dweights_j); the linears give da; and z_k is reached twice: dz_k = weights_k dy + f da.
    """
    branches = _tokens(saved.z0, saved.z1, saved.z2)
    dy, weights = dout.reshape(branches.shape[1:]), saved.weights
    dweights = (branches * dy).sum(axis=2).swapaxes(0, 1)
    dlogits = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
    do = _by_column(dlogits, saved.order)
    v, _ = elementwise.gelu_forward(saved.hidden)
    (dhidden,) = elementwise.gelu_backward(do @ saved.w_out.T, _Step(saved.hidden))
    dpooled = dhidden @ saved.w_in.T * _factor(saved.z0, saved.pool)
    dz = weights.swapaxes(0, 1)[:, :, None] * dy + dpooled[:, None]
    return (
        *(d.reshape(saved.z0.shape) for d in dz),
        saved.pooled.T @ dhidden,
        v.T @ do,
        None if saved.b_in is None else dhidden.sum(axis=0),
        None if saved.b_out is None else do.sum(axis=0),
    )


class _Step:
    """What the backward of an activation takes."""

    def __init__(self, x):
        self.x = x


def _tokens(*branches):
    """(3, b, tokens, c)."""
    b, *tokens, c = branches[0].shape
    return numpy.stack([z.reshape(b, math.prod(tokens), c) for z in branches])


def _factor(z, pool):
    return 1.0 / max(math.prod(z.shape[1:-1]), 1) if pool == "mean" else 1.0


def _by_branch(o, order):
    """(b, 3 c) -> (b, 3, c)."""
    b, c = len(o), o.shape[1] // 3
    return o.reshape(b, c, 3).swapaxes(1, 2) if order == "fastest" else o.reshape(b, 3, c)


def _by_column(logits, order):
    """The inverse of _by_branch."""
    b, _, c = logits.shape
    return (logits.swapaxes(1, 2) if order == "fastest" else logits).reshape(b, 3 * c)
