"""State-space scans with one decay per head and token in NumPy."""

import types

import numpy
from scipy import special

from mixers.reference.scan import forget, kept, where

# the longest run of tokens between two saved states
_LONGEST = 64


def ssd_scan_forward(
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    dt_softplus=False,
    dt_limit=None,
    h0=None,
    chunk_size=256,
    return_last_state=False,
    sequence_starts=None,
    mask=None,
    save=True,
):
    """S[t] = exp(d[t] A) S[t-1] + d[t] x[t] B[t]^T; y[t] = (S[t] C[t] + D x[t]) silu(z[t]), token by token.

    At a start S[t-1] counts as 0; a token of padding leaves the state and has the output 0.
    """
    x, dt, B, C, z = kept(mask, x, dt, B, C, z)
    b, l, h, p = x.shape
    n = B.shape[-1]
    q = min(chunk_size, _LONGEST)
    step = _step_size(dt, dt_bias, dt_softplus, dt_limit)
    S = numpy.zeros((b, h, p, n), x.dtype) if h0 is None else h0.copy()
    s = numpy.empty(x.shape, x.dtype)
    states = numpy.empty((b, -(-l // q), h, n, p), x.dtype)
    for t in range(l):
        if t % q == 0:
            states[:, t // q] = S.swapaxes(2, 3)
        before = forget(S, sequence_starts, t)
        S = where(mask, t, _advance(before, x[:, t], step[:, t], A, B[:, t]), before)
        s[:, t] = (S * _per_head(C[:, t], h)).sum(axis=-1)
    if D is not None:
        s += _skip(D) * x
    y = s if z is None else s * _silu(z)
    y = y if mask is None else numpy.where(mask[..., None, None], y, 0)
    return (y, S if return_last_state else None), (states if save else None,)


def ssd_scan_backward(dout, saved):
    """Adjoint recurrence, from the last token to the first, with the states recomputed chunk by chunk.

    Forward was, with s the output before the gate, and backward is, read upwards,

        d = clip(softplus(dt + dt_bias))   ddt = dd sigmoid(dt + dt_bias) within the bounds, ddt_bias = sum ddt
        a[t] = exp(d[t] A)                 w[t] = <Lambda[t], a[t] S[t-1]>, the adjoint of d[t] A
                                           dA = sum d[t] w[t]; dd[t] = x[t] . q[t] + A w[t]
        S[t] = a[t] S[t-1] + d[t] x[t] B[t]^T
                                           Lambda[t] = ds[t] C[t]^T + a[t+1] Lambda[t+1], the adjoint of S[t]
                                           dB[t] = sum_heads d[t] Lambda[t]^T x[t]; dh0 = a[first] Lambda[first]
                                           q[t] = Lambda[t] B[t]; dx[t] = d[t] q[t] + D ds[t]
        s[t] = S[t] C[t] + D x[t]          dC[t] = sum_heads S[t]^T ds[t]; dD = sum ds x
        y[t] = s[t] silu(z[t])             ds = dy silu(z), dz = dy s silu'(z)

    The cotangent of the last state starts Lambda; the sums over heads stay within a group.
    """
    A, D, starts, mask = saved.A, saved.D, saved.sequence_starts, saved.mask
    x, dt, B, C, z = kept(mask, saved.x, saved.dt, saved.B, saved.C, saved.z)
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    q = min(saved.chunk_size, _LONGEST)
    step = _step_size(dt, saved.dt_bias, saved.dt_softplus, saved.dt_limit)
    dy = numpy.zeros_like(x) if dout.y is None else dout.y
    if mask is not None:
        dy = numpy.where(mask[..., None, None], dy, 0)
    ds = dy if z is None else dy * _silu(z)
    s, dx, dstep = numpy.empty(x.shape, x.dtype), numpy.empty(x.shape, x.dtype), numpy.empty_like(step)
    dA = numpy.zeros(A.shape, A.dtype)
    dB, dC = numpy.empty(B.shape, B.dtype), numpy.empty(C.shape, C.dtype)
    carried = numpy.zeros((b, h, p, n), x.dtype) if dout.last_state is None else dout.last_state.copy()
    for chunk in reversed(range(saved.states.shape[1])):
        tokens = range(chunk * q, min(l, (chunk + 1) * q))
        last, pairs = saved.states[:, chunk].swapaxes(2, 3), []
        for t in tokens:
            before = forget(last, starts, t)
            last = where(mask, t, _advance(before, x[:, t], step[:, t], A, B[:, t]), before)
            pairs.append((before, last))
        for t in reversed(tokens):
            before, after = pairs.pop()
            s[:, t] = (after * _per_head(C[:, t], h)).sum(axis=-1)
            adjoint = ds[:, t, :, :, None] * _per_head(C[:, t], h) + carried
            # padding passes its adjoint on, and a start does not
            decayed = numpy.exp(step[:, t] * A)[:, :, None, None] * adjoint
            carried = forget(where(mask, t, decayed, adjoint), starts, t)
            adjoint, decayed = where(mask, t, adjoint, 0.0), where(mask, t, decayed, 0.0)
            w = (decayed * before).sum(axis=(2, 3))
            pulled = (adjoint * _per_head(B[:, t], h)).sum(axis=-1)
            dx[:, t] = step[:, t, :, None] * pulled
            dstep[:, t] = (x[:, t] * pulled).sum(axis=-1) + A * w
            dA += (step[:, t] * w).sum(axis=0)
            drive = (step[:, t, :, None] * x[:, t])[..., None]
            dB[:, t] = (adjoint * drive).sum(axis=2).reshape(b, g, h // g, n).sum(axis=2)
            dC[:, t] = (after * ds[:, t, :, :, None]).sum(axis=2).reshape(b, g, h // g, n).sum(axis=2)
    dD = dz = ddt_bias = None
    if D is not None:
        s += _skip(D) * x
        dx += _skip(D) * ds
        dD = (ds * x).sum(axis=(0, 1, 3) if D.ndim == 1 else (0, 1))
    if z is not None:
        dz = dy * s * _silu_slope(z)
    ddt = _step_size_backward(dstep, dt, saved.dt_bias, saved.dt_softplus, saved.dt_limit)
    if saved.dt_bias is not None:
        ddt_bias = ddt.sum(axis=(0, 1))
    return dx, ddt, dA, dB, dC, dD, dz, ddt_bias, None if saved.h0 is None else carried


def ssd_state_update_forward(
    state,
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    dt_softplus=False,
    dt_limit=None,
    out_state=None,
    save=True,
):
    """One token of ssd_scan."""
    S = _advance(state, x, _step_size(dt, dt_bias, dt_softplus, dt_limit), A, B)
    s = (S * _per_head(C, x.shape[1])).sum(axis=-1)
    if D is not None:
        s = s + _skip(D) * x
    if out_state is not None:
        out_state[...] = S
        S = out_state
    return (s if z is None else s * _silu(z), S), ()


def ssd_state_update_backward(dout, saved):
    """The scan over a sequence of one token, whose saved states are the one before it."""
    token = lambda a: None if a is None else a[:, None]
    sequence = {name: token(getattr(saved, name)) for name in ("x", "dt", "B", "C", "z")}
    constant = {name: getattr(saved, name) for name in ("A", "D", "dt_bias", "dt_softplus", "dt_limit")}
    states = token(saved.state.swapaxes(2, 3))
    tables = {"sequence_starts": None, "mask": None}
    scan = types.SimpleNamespace(
        **sequence, **constant, **tables, h0=saved.state, states=states, chunk_size=1
    )
    douts = types.SimpleNamespace(y=token(dout.y), last_state=dout.state)
    dx, ddt, dA, dB, dC, dD, dz, ddt_bias, dstate = ssd_scan_backward(douts, scan)
    first = lambda a: None if a is None else a[:, 0]
    return dstate, first(dx), first(ddt), dA, first(dB), first(dC), dD, first(dz), ddt_bias


def _advance(S, x, step, A, B):
    """The state (b, h, p, n) after one more token."""
    decay = numpy.exp(step * A)[:, :, None, None]
    return decay * S + (step[:, :, None] * x)[..., None] * _per_head(B, x.shape[1])


def _per_head(coefficients, h):
    """(b, g, n) repeated for the heads of each group, (b, h, 1, n)."""
    return coefficients.repeat(h // coefficients.shape[1], axis=1)[:, :, None]


def _skip(D):
    """D as (h, 1) or (h, p)."""
    return D[:, None] if D.ndim == 1 else D


def _step_size(dt, dt_bias, softplus, limit):
    step = _raw_step(dt, dt_bias)
    step = numpy.logaddexp(0, step) if softplus else step
    return step if limit is None else step.clip(*limit)


def _step_size_backward(dstep, dt, dt_bias, softplus, limit):
    """Zero where a bound changed the step; the slope of softplus is the sigmoid."""
    if limit is not None:
        free = _step_size(dt, dt_bias, softplus, None)
        dstep = numpy.where((free < limit[0]) | (free > limit[1]), 0, dstep)
    return dstep * special.expit(_raw_step(dt, dt_bias)) if softplus else dstep


def _raw_step(dt, dt_bias):
    return dt if dt_bias is None else dt + dt_bias


def _silu(z):
    return z * special.expit(z)


def _silu_slope(z):
    s = special.expit(z)
    return s * (1 + z * (1 - s))
