"""The selective scan along several orders on the GPU.

The kernels of the selective scan run for some directions at once, each with sums of its own, and add what they make
to y, or to du, where the tokens are stored: nothing is permuted. A large batch fills the device with one direction,
and there is one sum; of few tokens all directions are launched at once, and a last pass adds their sums up.
"""

import numpy

from mixers.gpu.scan_launch import CHUNK, Scan, given


def cross_selective_scan_forward(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    delta_bias=None,
    orders=None,
    delta_softplus=False,
    ordered_coefficients=True,
    save=True,
):
    scan = _scan(u, delta, A, orders, delta_softplus, ordered_coefficients)
    device, wide, k = scan.device, scan.wide, len(orders)
    b, l, c = u.shape
    at_once = scan.at_once(k)
    y = device.empty((at_once, *u.shape), wide)
    states = device.empty((k, b, -(-l // CHUNK), A.shape[2], c), wide) if save else None
    if y.size:
        u, delta, A, B, C, D, delta_bias = given(device, u, delta, A, B, C, D, delta_bias)
        for i in range(0, k, at_once):
            part = scan.along(i, min(at_once, k - i))
            part.forward(u, delta, A, B, C, D, None, delta_bias, None, y, states, None)
    return _added(y), (states,)


def cross_selective_scan_backward(dout, saved):
    """What several directions read gets the sum of their gradients, made in the dtype of sums."""
    s, u = saved, saved.u
    scan = _scan(u, s.delta, s.A, s.orders, s.delta_softplus, s.ordered_coefficients)
    device, wide, k = scan.device, scan.wide, len(s.orders)
    at_once = scan.at_once(k, backward=True)
    shared = lambda x: k > 1 and x.shape[2] == 1
    sums = lambda x, dtype: device.empty((at_once, *x.shape) if shared(x) else x.shape, dtype)
    du = device.empty((at_once, *u.shape), wide)
    ddelta = sums(s.delta, wide if scan.sums_steps else u.dtype)
    dB, dC = (sums(x, wide) for x in (s.B, s.C))
    of_directions = [
        None if x is None else device.zeros((k, *x.shape[1:]), wide) for x in (s.A, s.D, s.delta_bias)
    ]
    if u.size:
        inputs = given(device, u, s.delta, s.A, s.B, s.C, s.D, None, s.delta_bias, dout, None)
        for i in range(0, k, at_once):
            part = scan.along(i, min(at_once, k - i))
            add = (i > 0 and shared(x) for x in (s.B, s.C))
            shares = part.backward((*inputs, s.states), (du, ddelta, None, None, dB, dC), *add)
            for total, share in zip(of_directions, shares):
                if total is not None:
                    total[i : i + at_once] = share
    ddelta, dB, dC = (_added(d) if shared(x) else d for d, x in ((ddelta, s.delta), (dB, s.B), (dC, s.C)))
    dA, dD, dbias = (
        d if d is None or x.shape[0] == k else d.sum(axis=0)[None]
        for d, x in zip(of_directions, (s.A, s.D, s.delta_bias))
    )
    return _added(du), ddelta, dA, dB, dC, dD, dbias


def _scan(u, delta, A, orders, softplus, ordered):
    """The scan along all orders."""
    scan = Scan(u, 1, A.shape[2], softplus)
    scan.cross, scan.order = (
        (1 if ordered else 2),
        scan.device.to_device(numpy.ascontiguousarray(orders, "i4")),
    )
    scan.sums_steps = scan.add_steps = len(orders) > 1 and delta.shape[2] == 1
    scan.sums_steps |= scan.has_parts(backward=True)
    return scan


def _added(sums):
    """The total of the sums that the directions of a launch have."""
    return sums[0] if len(sums) == 1 else sums.sum(axis=0)
