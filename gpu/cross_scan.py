"""The selective scan along several orders on the GPU.

The kernels of the selective scan run once per direction, one after the other, and add what they make to y, or to du,
where the tokens are stored: nothing is permuted, and no two blocks of a launch write the same token.
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
    scans = _directions(u, delta, A, B, C, orders, delta_softplus, ordered_coefficients)
    device, wide = scans[0].device, scans[0].wide
    b, l, c = u.shape
    y = device.empty(u.shape, wide)
    states = device.empty((len(scans), b, -(-l // CHUNK), A.shape[2], c), wide) if save else None
    if y.size:
        u, *arrays = given(device, u, delta, A, B, C, D, delta_bias)
        for i, scan in enumerate(scans):
            delta, A, B, C, D, delta_bias = _own(i, *arrays)
            kept = states[i] if save else None
            scan.forward(u, delta, A, B, C, D, None, delta_bias, None, y, kept, None)
    return y, (states,)


def cross_selective_scan_backward(dout, saved):
    """Gradients of what several directions read are sums, in the dtype of sums."""
    u, D, delta_bias = saved.u, saved.D, saved.delta_bias
    arrays = saved.delta, saved.A, saved.B, saved.C
    options = saved.orders, saved.delta_softplus, saved.ordered_coefficients
    scans = _directions(u, *arrays, *options)
    device, wide = scans[0].device, scans[0].wide
    du = device.empty(u.shape, wide)
    ddelta = device.empty(saved.delta.shape, wide if scans[0].sums_steps else u.dtype)
    dA, dB, dC, dD, dbias = (
        None if x is None else device.zeros(x.shape, wide) for x in (*arrays[1:], D, delta_bias)
    )
    if u.size:
        u, dy, *arrays = given(device, u, dout, *arrays, D, delta_bias)
        for i, scan in enumerate(scans):
            delta, A, B, C, D, delta_bias = _own(i, *arrays)
            inputs = u, delta, A, B, C, D, None, delta_bias, dy, None, saved.states[i]
            results = du, _along(i, ddelta), None, None, _along(i, dB), _along(i, dC)
            add = (i > 0 and x.shape[2] == 1 for x in (dB, dC))
            for total, share in zip((dA, dD, dbias), scan.backward(inputs, results, *add)):
                if total is not None:
                    total[_entry(i, total.shape[0])] += share
    return du, ddelta, dA, dB, dC, dD, dbias


def _directions(u, delta, A, B, C, orders, softplus, ordered):
    """One scan for each order."""
    scans = [Scan(u, 1, A.shape[2], softplus) for _ in orders]
    tables = scans[0].device.to_device(numpy.ascontiguousarray(orders, numpy.int32))
    shared = len(scans) > 1 and delta.shape[2] == 1
    for i, scan in enumerate(scans):
        scan.order, scan.cross = tables[i], 1 if ordered else 2
        scan.rows = tuple(x.shape[2] * x.shape[3] for x in (delta, B, C))
        scan.add, scan.add_steps = i > 0, i > 0 and shared
        scan.sums_steps = shared or scan.has_parts(backward=True)
    return scans


def _own(i, delta, A, B, C, D, delta_bias):
    """The views of what direction i reads."""
    parameter = lambda x: None if x is None else x[_entry(i, x.shape[0])]
    return _along(i, delta), parameter(A), _along(i, B), _along(i, C), parameter(D), parameter(delta_bias)


def _along(i, array):
    """The entry of direction i of an array (b, l, k, ...)."""
    return array[:, :, _entry(i, array.shape[2])]


def _entry(i, size):
    """Where direction i is along an axis that the directions may share."""
    return i if size > 1 else 0
