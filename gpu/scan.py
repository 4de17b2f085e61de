"""Diagonal linear recurrences on the GPU."""

import numpy

from mixers import single_step
from mixers.gpu.device import Kernel, c_type, device_of
from mixers.gpu.scan_launch import CHUNK, Scan, given, power, wide_of
from mixers.sequences import zeroed


def linear_scan_forward(
    a, b, h0=None, reverse=False, return_last_state=False, sequence_starts=None, mask=None, save=True
):
    a, b = _linear_inputs(a, b, sequence_starts, mask)
    device, wide = device_of(a), wide_of(a)
    h = device.empty(a.shape, a.dtype)
    last = device.zeros(a.shape[::2], wide)
    if h.size:
        _linear(device, 0, (a, b, h0), {"out": h, "last": last}, reverse)
    elif h0 is not None:
        last[...] = h0
    return (h, last if return_last_state else None), ()


def linear_scan_backward(dout, saved):
    """The states before each token, then the scan of the adjoints in the other direction."""
    starts, mask, h0 = saved.sequence_starts, saved.mask, saved.h0
    a, b = _linear_inputs(saved.a, saved.b, starts, mask)
    device, wide = device_of(a), wide_of(a)
    da, db = (device.empty(a.shape, a.dtype) for _ in range(2))
    adjoint = device.zeros(a.shape[::2], wide)
    if a.size:
        dh = device.zeros(a.shape, a.dtype) if dout.h is None else dout.h
        states = device.empty(a.shape, wide)
        _linear(device, 1, (a, b, h0), {"before": states}, saved.reverse)
        results = {"states": states, "out": db, "da": da, "last": adjoint}
        _linear(device, 2, (a, dh, dout.last_state), results, not saved.reverse)
    elif dout.last_state is not None:
        adjoint[...] = dout.last_state
    if starts is not None:
        da = zeroed(da, ~starts)
    return zeroed(da, mask), zeroed(db, mask), None if h0 is None else adjoint


def _linear_inputs(a, b, starts, mask):
    """Decays of 0 at a start and of 1 at padding."""
    a = zeroed(a, mask, 1.0)
    return (a if starts is None else zeroed(a, ~starts)), zeroed(b, mask)


def _linear(device, kind, inputs, results, reverse):
    a = inputs[0]
    (b, l, c), warps = a.shape, 16
    kernel = Kernel("linear_scan", "scan_linear.cu", T=c_type(a.dtype), KIND=kind, WARPS=warps, STEPS=8)
    arrays = [*given(device, *inputs), *(results.get(n) for n in ("states", "out", "before", "da", "last"))]
    sizes = numpy.int32(l), numpy.int32(c), numpy.bool_(reverse)
    device.launch(kernel, (b * -(-c // 32),), (32, warps), (*arrays, *sizes))


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
    scan = Scan(u, *B.shape[2:], delta_softplus, reverse, order, sequence_starts, mask)
    device, n = scan.device, A.shape[1]
    b, l, c = u.shape
    y = device.empty(u.shape, scan.wide if scan.has_parts() else u.dtype)
    states = device.empty((b, -(-l // CHUNK), n, c), scan.wide) if save else None
    last_state = device.zeros((b, c, n), scan.wide) if return_last_state else None
    if y.size:
        arrays = given(device, u, delta, A, B, C, D, z, delta_bias, h0)
        scan.forward(*arrays, y, states, last_state)
    elif last_state is not None and h0 is not None:
        last_state[...] = h0
    return (y, last_state), (states,)


def selective_scan_backward(dout, saved):
    u, B, z, h0 = saved.u, saved.B, saved.z, saved.h0
    options = saved.delta_softplus, saved.reverse, saved.order, saved.sequence_starts, saved.mask
    scan = Scan(u, *B.shape[2:], *options)
    device, wide = scan.device, scan.wide
    dtype = wide if scan.has_parts(backward=True, gated=z is not None) else u.dtype
    du, ddelta = (device.empty(u.shape, dtype) for _ in range(2))
    dz = None if z is None else device.empty(u.shape, dtype)
    dh0 = None if h0 is None else device.zeros(h0.shape, wide)
    dB, dC = (device.empty(B.shape, B.dtype) for _ in range(2))
    if u.size:
        dy = device.zeros(u.shape, u.dtype) if dout.y is None else dout.y
        arrays = u, saved.delta, saved.A, B, saved.C, saved.D, z, saved.delta_bias, dy, dout.last_state
        inputs = *given(device, *arrays), saved.states
        parameters = scan.backward(inputs, (du, ddelta, dz, dh0, dB, dC))
        dA, dD, dbias = (None if d is None else d[0] for d in parameters)
    else:
        dA, dD, dbias = (
            None if x is None else device.zeros(x.shape, wide) for x in (saved.A, saved.D, saved.delta_bias)
        )
        if dh0 is not None and dout.last_state is not None:
            dh0[...] = dout.last_state
    return du, ddelta, dA, dB, dC, dD, dz, dbias, dh0


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
    device, n = device_of(u), A.shape[1]
    y = device.empty(u.shape, u.dtype)
    in_place = out_state is not None and out_state.flags.c_contiguous
    new_state = out_state if in_place else device.empty(state.shape, wide_of(u))
    if y.size:
        lanes = min(32, power(n))
        kernel = Kernel(
            "selective_state_update",
            "scan_update.cu",
            T=c_type(u.dtype),
            LANES=lanes,
            SOFTPLUS=int(delta_softplus),
        )
        arrays = given(device, state, u, delta, A, B, C, D, z, delta_bias)
        sizes = numpy.int64(u.size), *map(numpy.int32, (u.shape[1], B.shape[1], n))
        grid = (-(-u.size * lanes // 256),)
        device.launch(kernel, grid, (256,), (*arrays, y, new_state, *sizes))
    if out_state is not None and not in_place:
        out_state[...] = new_state
        new_state = out_state
    return (y, new_state), ()


def selective_state_update_backward(dout, saved):
    return single_step.backward(selective_scan_backward, dout, saved)
