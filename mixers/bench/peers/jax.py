"""JAX under jit: the recurrences as lax.scan, lax.associative_scan or chunks. Backward only together with forward."""

import numpy

from mixers.bench.contender import Contender

INSTALL = "jax"


def contenders(subject, backend, backward, threads):
    import jax

    if backend != "cpu" or subject.arrays[subject.inputs[0]].dtype != numpy.float32:
        return []
    forms = {
        "linear_scan": {"jax scan": _linear_scan, "jax associative": _linear_scan_associative},
        "selective_scan": {"jax scan": _selective_scan},
        "ssd_scan": {"jax": _ssd_scan},
    }
    cpu = jax.devices("cpu")[0]
    arrays = {n: jax.device_put(a, cpu) for n, a in subject.arrays.items()}
    return [
        _contender(jax, name, form, arrays, backward) for name, form in forms.get(subject.name, {}).items()
    ]


def _contender(jax, name, form, arrays, backward):
    compiled = jax.jit(lambda arrays: form(jax, **arrays))
    call = lambda: compiled(arrays).block_until_ready()
    output = lambda: numpy.asarray(call())
    if not backward:
        return Contender(name, call, None, None, output)
    dout = jax.numpy.ones_like(call())

    @jax.jit
    def gradients(arrays, dout):
        return jax.vjp(lambda arrays: form(jax, **arrays), arrays)[1](dout)

    both = lambda: jax.block_until_ready(gradients(arrays, dout))
    return Contender(name, call, None, both, output)


def _linear_scan(jax, a, b):
    def step(h, token):
        h = token[0] * h + token[1]
        return h, h

    first = lambda t: t.swapaxes(0, 1)
    return first(jax.lax.scan(step, jax.numpy.zeros_like(a[:, 0]), (first(a), first(b)))[1])


def _linear_scan_associative(jax, a, b):
    join = lambda left, right: (right[0] * left[0], right[0] * left[1] + right[1])
    return jax.lax.associative_scan(join, (a, b), axis=1)[1]


def _selective_scan(jax, u, delta, A, B, C, D, z):
    """The states are never stored for all tokens; one group."""
    xp = jax.numpy

    def step(h, token):
        u, delta, B, C = token
        h = xp.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B
        return h, (h * C).sum(-1)

    first = lambda t: t.swapaxes(0, 1)
    start = xp.zeros((u.shape[0], *A.shape), u.dtype)
    y = first(jax.lax.scan(step, start, tuple(map(first, (u, delta, B, C))))[1])
    return (y + D * u) * jax.nn.silu(z)


def _ssd_scan(jax, x, dt, A, B, C, D, chunk=64):
    """Products of matrices within chunks of tokens, as in Mamba-2's paper, and lax.scan over the chunks."""
    xp = jax.numpy
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    grow = lambda a: xp.pad(a, [(0, 0), (0, -l % chunk)] + [(0, 0)] * (a.ndim - 2))
    # chunks first, tokens of a chunk behind batch and heads
    cut = lambda a, *heads: xp.moveaxis(grow(a).reshape(b, -1, chunk, *heads, *a.shape[3:]), (1, 2), (0, -2))
    drive = cut(x * dt[..., None], g, h // g)
    alpha = cut((dt * A)[..., None], g, h // g)[..., 0].cumsum(-1)
    B, C = cut(B, g, 1), cut(C, g, 1)
    inside = xp.tri(chunk, dtype=bool)
    decay = xp.exp(xp.where(inside, alpha[..., :, None] - alpha[..., None, :], -xp.inf))
    within = (C @ B.mT * decay) @ drive
    local = B.mT @ (drive * xp.exp(alpha[..., -1:] - alpha)[..., None])

    def step(state, chunk):
        alpha, local, C = chunk
        y = C @ state * xp.exp(alpha)[..., None]
        return xp.exp(alpha[..., -1, None, None]) * state + local, y

    start = xp.zeros((b, g, h // g, n, p), x.dtype)
    y = within + jax.lax.scan(step, start, (alpha, local, C))[1]
    y = xp.moveaxis(y, (0, -2), (1, 2)).reshape(b, -1, h, p)[:, :l]
    return y + D[:, None] * x
