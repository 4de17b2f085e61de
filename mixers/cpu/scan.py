"""Diagonal linear recurrences on the CPU: channels in the lanes, tokens one after the other."""

import numpy

from mixers import single_step
from mixers.cpu import aligned, scan_linear
from mixers.cpu.aligned import flat
from mixers.cpu.runner import run
from mixers.cpu.scan_backward import backward
from mixers.cpu.scan_common import ONE
from mixers.cpu.scan_forward import forward
from mixers.cpu.scan_plan import Plan, flattened, rates
from mixers.cpu.scan_segments import segment_sums
from mixers.cpu.scan_update import update
from mixers.cpu.simd import lanes
from mixers.sequences import frozen_steps, zeroed

# channels of a task of a single step
_UPDATED = 256


def linear_scan_forward(
    a, b, h0=None, reverse=False, return_last_state=False, sequence_starts=None, mask=None, save=True
):
    """One sweep over the tokens per block of channels; decays are 0 at a start and 1 at padding."""
    a, b = _linear_inputs(a, b, sequence_starts, mask)
    h, held = aligned.empty(a.shape, a.dtype), _start(h0, a)
    _run_linear(scan_linear.linear_forward, a, reverse, flat(a), flat(b), held.reshape(-1), h.reshape(-1))
    return (h, held if return_last_state else None), ()


def linear_scan_backward(dout, saved):
    """A sweep for the states and one in the other direction for the adjoints."""
    starts, mask, h0 = saved.sequence_starts, saved.mask, saved.h0
    a, b = _linear_inputs(saved.a, saved.b, starts, mask)
    dh = numpy.zeros(a.shape, a.dtype) if dout.h is None else dout.h
    held, adjoint = _start(h0, a), _start(dout.last_state, a)
    da, db = aligned.empty(a.shape, a.dtype), aligned.empty(a.shape, a.dtype)
    arrays = (flat(dh), flat(a), flat(b), *(x.reshape(-1) for x in (held, adjoint, da, db)))
    _run_linear(scan_linear.linear_backward, a, saved.reverse, *arrays)
    if starts is not None:
        da = zeroed(da, ~starts)
    return zeroed(da, mask), zeroed(db, mask), None if h0 is None else adjoint


def _linear_inputs(a, b, starts, mask):
    a = zeroed(a, mask, 1.0)
    return (a if starts is None else zeroed(a, ~starts)), zeroed(b, mask)


def _run_linear(kernel, a, reverse, *arrays):
    b, _, c = a.shape
    w = lanes(a)
    # memory is fastest where whole rows follow each other, and few tasks are enough for all that it gives
    width = w * min(max(b * -(-c // w) // 4, 1), 32)
    run(kernel, b * -(-c // width) if a.size else 0, *arrays, a.shape, width, reverse, work=3 * a.size)


def _start(state, a):
    """A fresh state (b, c), of zeros if there is none."""
    held = aligned.zeros(a.shape[::2], a.dtype)
    if state is not None:
        held[...] = state
    return held


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
    """One sweep over the tokens per block of channels; few and long sequences are cut into segments."""
    delta = frozen_steps(delta, mask, delta_bias, delta_softplus)
    u, B, C, z = (zeroed(x, mask) for x in (u, B, C, z))
    plan = _plan(u, A, B, delta_softplus, reverse, order, sequence_starts)
    b, l, c, _, n = plan.sizes
    y = aligned.empty(u.shape, u.dtype)
    none = numpy.empty(0, u.dtype)
    last_state = aligned.empty((b, n, c), u.dtype) if return_last_state else none
    states = plan.states(u.dtype)[0] if save else none
    arrays = _arrays(u, delta, A, B, C, D, z, delta_bias, sequence_starts)
    starts = _boundaries(plan, h0, arrays[0], arrays, backward=False)
    if l == 0 and return_last_state:
        last_state[...] = 0 if h0 is None else h0.swapaxes(1, 2)
    elif y.size:
        run(
            forward,
            plan.count,
            arrays,
            *(starts, last_state.reshape(-1), y.reshape(-1), states.reshape(-1)),
            *plan.geometry,
            *(plan.block, ONE, delta_softplus),
            work=u.size * (12 * n + 20),
        )
    return (zeroed(y, mask), _as_state(last_state) if return_last_state else None), (
        states if save else None,
    )


def selective_scan_backward(dout, saved):
    """States and decays of a chunk are recomputed, then the chunk is walked backward."""
    A, h0, mask = saved.A, saved.h0, saved.mask
    delta = frozen_steps(saved.delta, mask, saved.delta_bias, saved.delta_softplus)
    u, B, C, z = (zeroed(x, mask) for x in (saved.u, saved.B, saved.C, saved.z))
    plan = _plan(u, A, B, saved.delta_softplus, saved.reverse, saved.order, saved.sequence_starts)
    b, l, c, _, n = plan.sizes
    dy = flat(numpy.zeros(u.shape, u.dtype) if dout.y is None else zeroed(dout.y, mask))
    arrays = _arrays(u, delta, A, B, C, saved.D, z, saved.delta_bias, saved.sequence_starts)
    ends = _boundaries(plan, dout.last_state, dy, arrays, backward=True)
    du, ddelta = aligned.empty(u.shape, u.dtype), aligned.empty(u.shape, u.dtype)
    none = numpy.empty(0, u.dtype)
    dz = none if z is None else aligned.empty(u.shape, u.dtype)
    dA, dD, dbias = plan.sums(u.dtype)
    dh0 = none if h0 is None else aligned.empty((b, n, c), u.dtype)
    partial = plan.partial(u.dtype)
    if l == 0 and h0 is not None:
        dh0[...] = 0 if dout.last_state is None else dout.last_state.swapaxes(1, 2)
    elif u.size:
        run(
            backward,
            plan.count,
            arrays,
            *(dy, flat(saved.states), ends),
            tuple(a.reshape(-1) for a in (du, ddelta, dz, partial)),
            tuple(a.reshape(-1) for a in (dA, dh0, dD, dbias)),
            *plan.geometry,
            *(plan.block, ONE, saved.delta_softplus),
            work=u.size * (40 * n + 60),
        )
    dB, dC = plan.gathered(partial)
    ddelta_bias = None if saved.delta_bias is None else dbias[0].sum(axis=(0, 1))
    if mask is not None:
        ddelta = zeroed(ddelta, mask)
        if ddelta_bias is not None:
            ddelta_bias = ddelta.sum(axis=(0, 1))
    return (
        du,
        ddelta,
        numpy.ascontiguousarray(dA[0].sum(axis=0).T),
        dB,
        dC,
        None if saved.D is None else dD[0].sum(axis=(0, 1)),
        None if z is None else dz,
        ddelta_bias,
        None if h0 is None else _as_state(dh0),
    )


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
    """One sweep over the state."""
    b, c = u.shape
    g, n = B.shape[1:]
    y = aligned.empty(u.shape, u.dtype)
    in_place = out_state is not None and out_state.flags.c_contiguous and out_state.flags.writeable
    new_state = out_state if in_place else aligned.empty(state.shape, u.dtype)
    run(
        update,
        b * -(-c // _UPDATED),
        flattened(u, delta, A, B, C, D, z, delta_bias),
        *(flat(state), new_state.reshape(-1), y.reshape(-1)),
        *((b, c, g, n), _UPDATED, delta_softplus),
        work=state.size * 12,
    )
    if out_state is not None and not in_place:
        out_state[...] = new_state
        new_state = out_state
    return (y, new_state), ()


def selective_state_update_backward(dout, saved):
    return single_step.backward(selective_scan_backward, dout, saved)


def _arrays(u, delta, A, B, C, D, z, delta_bias, starts):
    """The arrays of the kernels, flat."""
    resets = numpy.empty(0, bool) if starts is None else flat(starts)
    return (*flattened(u, delta, rates(A), B, C, D, z, delta_bias), resets)


def _plan(u, A, B, softplus, reverse, order, starts):
    """How a scan in one direction is cut into tasks."""
    tokens = numpy.arange(u.shape[1]) if order is None else order.astype(numpy.int64)
    # segments need decays that vanish; NaN in A must take the plain way
    segments = softplus and starts is None and bool((A <= 0).all())
    if reverse:
        tokens = tokens[::-1].copy()
    return Plan(u, *B.shape[2:], (tokens, tokens), segments=segments)


def _boundaries(plan, given, source, arrays, backward):
    """States before each segment, or adjoints behind each, flat (b, segments, n, c); none if they are all zero.

    A product of decays over a segment is the power of one sum of steps, so that all segments can be summed up at
    once and then be joined one after the other.
    """
    b, _, c, _, n = plan.sizes
    if given is None and plan.segments == 1:
        return numpy.empty(0, source.dtype)
    joined = aligned.zeros((b, plan.segments, n, c), source.dtype)
    walk = range(plan.segments)[::-1] if backward else range(plan.segments)
    if given is not None:
        joined[:, walk[0]] = given.swapaxes(1, 2)
    if plan.segments > 1:
        sums = aligned.empty(joined.shape, source.dtype)
        totals = aligned.empty((b, plan.segments, c), source.dtype)
        run(
            segment_sums,
            plan.count,
            *(source, arrays, sums.reshape(-1), totals.reshape(-1)),
            *plan.geometry,
            backward,
        )
        by_state = arrays[2].reshape(n, c)
        for before, after in zip(walk, walk[1:]):
            decay = numpy.exp2(totals[:, before, None] * by_state)
            joined[:, after] = decay * joined[:, before] + sums[:, before]
    return joined.reshape(-1)


def _as_state(rows):
    """(b, n, c) to (b, c, n)."""
    return numpy.ascontiguousarray(rows.swapaxes(1, 2))
