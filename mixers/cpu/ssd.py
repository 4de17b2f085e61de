"""State-space scans with one decay per head on the CPU: chunks of tokens as products of matrices."""

from types import SimpleNamespace

import numpy

from mixers import single_step
from mixers.cpu import aligned, ssd_kernels
from mixers.cpu.aligned import flat
from mixers.cpu.elementwise import softplus_backward, softplus_forward
from mixers.cpu.matrix import no_bias
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import run
from mixers.sequences import zeroed

# the longest chunk, and the heads of a task: more share products, but their states leave the caches
_LONGEST = 64
_HEADS = (4, 3, 2, 1)

# tasks below which heads are not put together, chunks too few to be computed apart, values of a state that a task
# passes on, and heads of a task of a single step
_TASKS = 8
_FEW_CHUNKS = 4
_PASSED = 1024
_UPDATED = 8


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
    """Chunk after chunk, for some heads at a time."""
    x, dt, B, C, z = (zeroed(a, mask) for a in (x, dt, B, C, z))
    scan = _Scan(x, B, chunk_size)
    y = aligned.empty(x.shape, x.dtype)
    last_state = aligned.empty(scan.state if return_last_state else 0, x.dtype)
    states = aligned.empty(scan.states if save or scan.apart else 0, x.dtype)
    # padding has steps of zero
    steps = zeroed(_step_size(dt, dt_bias, dt_softplus, dt_limit), mask)
    arrays = (*_flattened(x, steps, A, B, C, _by_channel(D, x.shape[3]), z), _resets(sequence_starts))
    [starts], outs = _flattened(h0, like=x), [a.reshape(-1) for a in (last_state, y, states)]
    for mode in scan.modes:
        scan.run(ssd_kernels.forward, mode, arrays, starts, *outs)
        if mode == ssd_kernels.ADD:
            scan.pass_states(arrays, starts, outs[2], outs[0], backward=False)
    return (zeroed(y, mask), last_state if return_last_state else None), (states if save else None,)


def ssd_scan_backward(dout, saved):
    """The chunks from last to first; the products of a chunk are computed again."""
    A, D, mask = saved.A, saved.D, saved.mask
    x, dt, B, C, z = (zeroed(a, mask) for a in (saved.x, saved.dt, saved.B, saved.C, saved.z))
    scan = _Scan(x, B, saved.chunk_size)
    h, p = x.shape[2:]
    steps = zeroed(_step_size(dt, saved.dt_bias, saved.dt_softplus, saved.dt_limit), mask)
    dy = numpy.zeros(x.shape, x.dtype) if dout.y is None else zeroed(dout.y, mask)
    dx, dsteps = aligned.empty(x.shape, x.dtype), aligned.empty(steps.shape, x.dtype)
    dz = aligned.empty(x.shape if z is not None else 0, x.dtype)
    dB, dC = (aligned.empty((scan.parts, B.size), x.dtype) for _ in range(2))
    dA, dD = aligned.zeros((scan.slots, h), x.dtype), aligned.zeros((scan.slots, h * p), x.dtype)
    dh0 = aligned.empty(0 if saved.h0 is None else scan.state, x.dtype)
    arrays = (*_flattened(x, steps, A, B, C, _by_channel(D, p), z), _resets(saved.sequence_starts))
    results = tuple(a.reshape(-1) for a in (dx, dsteps, dz, dB, dC, dA, dD, dh0))
    [ends] = _flattened(dout.last_state, like=x)
    adjoints = aligned.empty(scan.states if scan.apart else 0, x.dtype).reshape(-1)
    inputs = arrays, flat(dy), flat(saved.states), ends, adjoints
    for mode in scan.modes:
        scan.run(ssd_kernels.backward, mode, *inputs, results)
        if mode == ssd_kernels.ADD:
            scan.pass_states(arrays, ends, adjoints, results[-1], backward=True)
    ddt = _step_size_backward(dsteps, dt, saved.dt_bias, saved.dt_softplus, saved.dt_limit)
    ddt = zeroed(ddt, mask)
    dskip = dD.sum(axis=0).reshape(h, p)
    return (
        dx,
        ddt,
        dA.sum(axis=0),
        _summed(dB).reshape(B.shape),
        _summed(dC).reshape(C.shape),
        None if D is None else dskip.sum(axis=1) if D.ndim == 1 else dskip,
        None if z is None else dz,
        None if saved.dt_bias is None else ddt.sum(axis=(0, 1)),
        None if saved.h0 is None else dh0,
    )


class _Scan:
    """How a scan is cut into tasks, which its shape decides alone.

    With enough heads a task walks through all chunks of some. Otherwise the chunks are computed apart, in three passes:
    what each adds to the state, the states one after the other, and what follows from them.
    """

    def __init__(self, x, B, chunk_size):
        (b, l, h, p), (g, n) = x.shape, B.shape[2:]
        self.q = min(chunk_size, _LONGEST, max(l, 1))
        chunks = -(-l // self.q)
        self.apart = b * h < _TASKS and chunks > _FEW_CHUNKS
        self.slots = b * chunks if self.apart else b
        self.heads = _heads(self.slots, h, g)
        self.parts = h // g // self.heads
        self.state, self.states = (b, h, p, n), (b, chunks, h, n, p)
        self.modes = (ssd_kernels.ADD, ssd_kernels.USE) if self.apart else (ssd_kernels.WALK,)
        self._sizes, self._none = (b, l, h, p, g, n), no_bias(x)
        self._work = x.size * (self.q + 2 * n) / 4

    def run(self, kernel, mode, *arguments):
        _, h, p, _ = self.state
        count = self.slots * h // self.heads if h * p else 0
        cut = self.q, self.heads, mode
        run(kernel, count, *arguments, self._sizes, cut, self._none, work=self._work)

    def pass_states(self, arrays, starts, states, last, backward):
        """From what each chunk adds to the states before it, or to the adjoints behind it; in place."""
        _, steps, A, *_, resets = arrays
        b, h, p, n = self.state
        count = b * h * -(-n * p // _PASSED)
        cut = self.q, _PASSED, backward
        args = steps, A, resets, starts, states, last, self._sizes, cut
        run(ssd_kernels.pass_states, count, *args, work=2 * states.size)


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
    """One sweep over the state."""
    b, h, p = x.shape
    g, n = B.shape[1:]
    y = aligned.empty(x.shape, x.dtype)
    in_place = out_state is not None and out_state.flags.c_contiguous and out_state.flags.writeable
    new_state = out_state if in_place else aligned.empty(state.shape, x.dtype)
    steps = _step_size(dt, dt_bias, dt_softplus, dt_limit)
    run(
        ssd_kernels.update,
        b * -(-h // _UPDATED) if x.size else 0,
        _flattened(x, steps, A, B, C, _by_channel(D, p), z),
        *(flat(numpy.exp(steps * A)), flat(state), new_state.reshape(-1), y.reshape(-1)),
        *((b, h, p, g, n), _UPDATED),
        work=state.size * 3,
    )
    if out_state is not None and not in_place:
        out_state[...] = new_state
        new_state = out_state
    return (y, new_state), ()


def ssd_state_update_backward(dout, saved):
    return single_step.backward(ssd_scan_backward, dout, saved)


def _heads(b, h, g):
    """Heads of a task: of one group, and few enough for many tasks."""
    return next(r for r in _HEADS if h // g % r == 0 and (r == 1 or b * h // r >= _TASKS))


def _flattened(*arrays, like=None):
    """Each array in one axis, of none where there is none; the dtype is that of `like`, or of the first."""
    none = numpy.empty(0, (arrays[0] if like is None else like).dtype)
    return tuple(none if a is None else flat(a) for a in arrays)


def _summed(parts):
    return parts[0] if len(parts) == 1 else sum_rows(parts)


def _resets(starts):
    return flat(numpy.empty(0, bool) if starts is None else starts)


def _by_channel(D, p):
    """D as (h, p)."""
    return D if D is None or D.ndim == 2 else numpy.repeat(D[:, None], p, axis=1)


def _step_size(dt, dt_bias, softplus, limit):
    step = _raw_step(dt, dt_bias)
    if softplus:
        step = softplus_forward(step, save=False)[0]
    return step if limit is None else step.clip(*limit)


def _step_size_backward(dstep, dt, dt_bias, softplus, limit):
    """Zero where a bound changed the step."""
    if limit is not None:
        free = _step_size(dt, dt_bias, softplus, None)
        dstep = numpy.where((free < limit[0]) | (free > limit[1]), dstep.dtype.type(0), dstep)
    if softplus:
        [dstep] = softplus_backward(dstep, SimpleNamespace(x=_raw_step(dt, dt_bias)))
    return dstep


def _raw_step(dt, dt_bias):
    return dt if dt_bias is None else dt + dt_bias
