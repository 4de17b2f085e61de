"""Diagonal linear recurrences in NumPy."""

import numpy
from scipy import special

# tokens between two saved states
_CHUNK = 16


def linear_scan_forward(
    a, b, h0=None, reverse=False, return_last_state=False, sequence_starts=None, mask=None, save=True
):
    """h[t] = a[t] h[t-1] + b[t], token by token; a is 0 at a start, and a token of padding repeats the state."""
    a, b = kept(mask, a, b)
    state = numpy.zeros_like(b, shape=(b.shape[0], b.shape[2])) if h0 is None else h0.copy()
    h = numpy.empty(b.shape, b.dtype)
    for t in _visits(b.shape[1], reverse):
        before = forget(state, sequence_starts, t)
        state = where(mask, t, a[:, t] * before + b[:, t], before)
        h[:, t] = state
    return (h, state if return_last_state else None), ()


def linear_scan_backward(dout, saved):
    """The adjoint lambda[t] of h[t] is a scan in the other direction.

    h[t] enters the output and h[t+1] = a[t+1] h[t] + b[t+1], so lambda[t] = dh[t] + a[t+1] lambda[t+1], with
    dlast_state added at the last token. From h[t] = a[t] h[t-1] + b[t] follow db[t] = lambda[t],
    da[t] = lambda[t] h[t-1], and dh0 = a[first] lambda[first].
    """
    starts, mask, h0 = saved.sequence_starts, saved.mask, saved.h0
    a, b = kept(mask, saved.a, saved.b)
    visits = _visits(b.shape[1], saved.reverse)
    (h, _), _ = linear_scan_forward(a, b, h0, saved.reverse, sequence_starts=starts, mask=mask)
    first_state = numpy.zeros(h.shape[::2], h.dtype) if h0 is None else h0
    carried = numpy.zeros(h.shape[::2], h.dtype) if dout.last_state is None else dout.last_state.copy()
    da, db = numpy.empty(b.shape, b.dtype), numpy.empty(b.shape, b.dtype)
    for i in reversed(range(len(visits))):
        t = visits[i]
        adjoint = carried if dout.h is None else dout.h[:, t] + carried
        before = forget(h[:, visits[i - 1]] if i else first_state, starts, t)
        db[:, t] = where(mask, t, adjoint, 0.0)
        da[:, t] = where(mask, t, adjoint * before, 0.0)
        carried = forget(where(mask, t, a[:, t] * adjoint, adjoint), starts, t)
    return da, db, None if h0 is None else carried


def selective_scan_forward(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    h0=None,
    return_last_state=False,
    reverse=False,
    order=None,
    sequence_starts=None,
    mask=None,
    save=True,
):
    """h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t]; y[t] = (C[t] . h[t] + D u[t]) silu(z[t]), token by token.

    At a start h[t-1] counts as 0; a token of padding leaves the state and has the output 0.
    """
    u, delta, B, C, z = kept(mask, u, delta, B, C, z)
    b, l, c = u.shape
    n = A.shape[1]
    visits = _visits(l, reverse, order)
    step = _step_size(delta, delta_bias, delta_softplus)
    h = numpy.zeros((b, c, n), u.dtype) if h0 is None else h0.copy()
    s = numpy.empty(u.shape, u.dtype)
    states = numpy.empty((b, -(-l // _CHUNK), n, c), u.dtype)
    for i, t in enumerate(visits):
        if i % _CHUNK == 0:
            states[:, i // _CHUNK] = h.swapaxes(1, 2)
        before = forget(h, sequence_starts, t)
        h = where(mask, t, _advance(before, u[:, t], step[:, t], A, B[:, t]), before)
        s[:, t] = (_per_channel(C[:, t], c) * h).sum(axis=-1)
    if D is not None:
        s = s + D * u
    y = s if z is None else s * _silu(z)
    y = y if mask is None else numpy.where(mask[..., None], y, 0)
    return (y, h if return_last_state else None), (states if save else None,)


def selective_scan_backward(dout, saved):
    """Adjoint recurrence, from the last token to the first, with the states recomputed chunk by chunk.

    Forward was, with s the output before the gate, and backward is, read upwards,

        d = softplus(delta + delta_bias)   ddelta = dd sigmoid(delta + delta_bias), ddelta_bias = sum ddelta
        a[t] = exp(d[t] A)                 w[t] = lambda[t] a[t] h[t-1], the adjoint of d[t] A
                                           dA = sum d[t] w[t]; dd[t] = u[t] q[t] + sum_n A w[t]
        h[t] = a[t] h[t-1] + d[t] B[t] u[t]
                                           lambda[t] = C[t] ds[t] + a[t+1] lambda[t+1], the adjoint of h[t]
                                           dB[t] = sum_channels lambda[t] d[t] u[t]; dh0 = a[first] lambda[first]
                                           q[t] = sum_n lambda[t] B[t]; du[t] = d[t] q[t] + D ds[t]
        s[t] = sum_n C[t] h[t] + D u[t]    dC[t] = sum_channels ds[t] h[t]; dD = sum ds u
        y[t] = s[t] silu(z[t])             ds = dy silu(z), dz = dy s silu'(z)

    The cotangent of the last state starts lambda; the sums over channels stay within a group.
    """
    A, D, h0, starts, mask = saved.A, saved.D, saved.h0, saved.sequence_starts, saved.mask
    u, delta, B, C, z = kept(mask, saved.u, saved.delta, saved.B, saved.C, saved.z)
    b, l, c = u.shape
    n = A.shape[1]
    visits = _visits(l, saved.reverse, saved.order)
    step = _step_size(delta, saved.delta_bias, saved.delta_softplus)
    dy = numpy.zeros_like(u) if dout.y is None else dout.y
    if mask is not None:
        dy = numpy.where(mask[..., None], dy, 0)
    ds = dy if z is None else dy * _silu(z)
    s = numpy.zeros(u.shape, u.dtype)
    du, dstep = numpy.empty(u.shape, u.dtype), numpy.empty(u.shape, u.dtype)
    dA = numpy.zeros(A.shape, A.dtype)
    dB, dC = numpy.empty(B.shape, B.dtype), numpy.empty(C.shape, C.dtype)
    carried = numpy.zeros((b, c, n), u.dtype) if dout.last_state is None else dout.last_state.copy()
    for chunk in reversed(range(saved.states.shape[1])):
        tokens = visits[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        last, before, h = saved.states[:, chunk].swapaxes(1, 2), [], []
        for t in tokens:
            before.append(forget(last, starts, t))
            last = where(mask, t, _advance(before[-1], u[:, t], step[:, t], A, B[:, t]), before[-1])
            h.append(last)
        for j in reversed(range(len(tokens))):
            t = tokens[j]
            b_t, c_t = _per_channel(B[:, t], c), _per_channel(C[:, t], c)
            s[:, t] = (c_t * h[j]).sum(axis=-1)
            adjoint = c_t * ds[:, t, :, None] + carried
            # padding passes its adjoint on, and a start does not
            decayed = numpy.exp(step[:, t, :, None] * A) * adjoint
            carried = forget(where(mask, t, decayed, adjoint), starts, t)
            adjoint, decayed = where(mask, t, adjoint, 0.0), where(mask, t, decayed, 0.0)
            w = decayed * before[j]
            q = (adjoint * b_t).sum(axis=-1)
            du[:, t] = step[:, t] * q
            dstep[:, t] = u[:, t] * q + (A * w).sum(axis=-1)
            dA += (step[:, t, :, None] * w).sum(axis=0)
            dB[:, t] = _per_group(adjoint * (step[:, t] * u[:, t])[..., None], B.shape[2])
            dC[:, t] = _per_group(ds[:, t, :, None] * h[j], C.shape[2])
    dD = dz = ddelta_bias = None
    if D is not None:
        s += D * u
        du += D * ds
        dD = (ds * u).sum(axis=(0, 1))
    if z is not None:
        dz = dy * s * _silu_slope(z)
    ddelta = _step_size_backward(dstep, delta, saved.delta_bias, saved.delta_softplus)
    if saved.delta_bias is not None:
        ddelta_bias = ddelta.sum(axis=(0, 1))
    return du, ddelta, dA, dB, dC, dD, dz, ddelta_bias, None if h0 is None else carried


def kept(mask, *arrays):
    """The arrays with zeros for padding: what they hold there may be anything."""
    if mask is None:
        return arrays
    keep = lambda a: numpy.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), a, 0).astype(a.dtype)
    return [None if a is None else keep(a) for a in arrays]


def forget(state, starts, t):
    """The state (b, ...) before token t: zero where a sequence starts."""
    return state if starts is None else where(~starts, t, state, 0.0)


def where(table, t, array, other):
    """Entries of one array (b, ...) or another, by a table (b, l) of booleans at token t."""
    if table is None:
        return array
    return numpy.where(table[:, t].reshape(-1, *[1] * (array.ndim - 1)), array, other).astype(array.dtype)


def selective_state_update_forward(
    state,
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    out_state=None,
    save=True,
):
    """One token of selective_scan."""
    h = _advance(state, u, _step_size(delta, delta_bias, delta_softplus), A, B)
    s = (_per_channel(C, u.shape[1]) * h).sum(axis=-1)
    if D is not None:
        s = s + D * u
    if out_state is not None:
        out_state[...] = h
        h = out_state
    return (s if z is None else s * _silu(z), h), ()


def selective_state_update_backward(dout, saved):
    """The formulas of selective_scan_backward at one token."""
    state, u, A, B, C, D, z = saved.state, saved.u, saved.A, saved.B, saved.C, saved.D, saved.z
    c, g = u.shape[1], B.shape[1]
    step = _step_size(saved.delta, saved.delta_bias, saved.delta_softplus)
    h = _advance(state, u, step, A, B)
    dy = numpy.zeros_like(u) if dout.y is None else dout.y
    ds = dy if z is None else dy * _silu(z)
    adjoint = _per_channel(C, c) * ds[..., None]
    if dout.state is not None:
        adjoint = adjoint + dout.state
    dstate = numpy.exp(step[..., None] * A) * adjoint
    w = dstate * state
    q = (adjoint * _per_channel(B, c)).sum(axis=-1)
    du = step * q
    ddelta = _step_size_backward(
        u * q + (A * w).sum(axis=-1), saved.delta, saved.delta_bias, saved.delta_softplus
    )
    dA = (step[..., None] * w).sum(axis=0)
    dB = _per_group(adjoint * (step * u)[..., None], g)
    dC = _per_group(ds[..., None] * h, g)
    dD = dz = ddelta_bias = None
    s = (_per_channel(C, c) * h).sum(axis=-1)
    if D is not None:
        s = s + D * u
        du = du + D * ds
        dD = (ds * u).sum(axis=0)
    if z is not None:
        dz = dy * s * _silu_slope(z)
    if saved.delta_bias is not None:
        ddelta_bias = ddelta.sum(axis=0)
    return dstate, du, ddelta, dA, dB, dC, dD, dz, ddelta_bias


def _visits(l, reverse, order=None):
    """The tokens in the order of the recurrence."""
    visits = numpy.arange(l) if order is None else order
    return visits[::-1] if reverse else visits


def _advance(h, u, step, A, B):
    """One step of the recurrence: h (b, c, n), u and step (b, c), A (c, n), B (b, g, n)."""
    return numpy.exp(step[..., None] * A) * h + (step * u)[..., None] * _per_channel(B, u.shape[-1])


def _per_channel(B, c):
    """(b, g, n) to (b, c, n): each group serves c / g channels."""
    return numpy.repeat(B, c // B.shape[1], axis=1)


def _per_group(x, g):
    """(b, c, n) to (b, g, n): the sum over the channels of a group, the transpose of _per_channel."""
    b, c, n = x.shape
    return x.reshape(b, g, c // g, n).sum(axis=2)


def _step_size(delta, delta_bias, softplus):
    r = delta if delta_bias is None else delta + delta_bias
    return numpy.logaddexp(r, numpy.zeros((), r.dtype)) if softplus else r


def _step_size_backward(dstep, delta, delta_bias, softplus):
    r = delta if delta_bias is None else delta + delta_bias
    return dstep * special.expit(r) if softplus else dstep


def _silu(z):
    return z * special.expit(z)


def _silu_slope(z):
    s = special.expit(z)
    return s * (1.0 + z * (1.0 - s))
