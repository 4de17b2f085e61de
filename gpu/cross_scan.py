"""The selective scan along several orders on the GPU.

The kernels of the selective scan run once per direction, one after the other, and add what they make to y, or to du,
where the tokens are stored: nothing is permuted, and no two blocks of a launch write the same token.
"""

from mixers.gpu.device import device_of
from mixers.gpu.scan import CHUNK, Scan, given, wide_of


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
    device, wide = device_of(u), wide_of(u)
    b, l, c = u.shape
    scans = _directions(u, delta, A, B, C, orders, delta_softplus, ordered_coefficients)
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
    arrays = [getattr(saved, name) for name in ("delta", "A", "B", "C", "D", "delta_bias")]
    options = saved.orders, saved.delta_softplus, saved.ordered_coefficients
    u, delta, A, B, C = saved.u, *arrays[:4]
    scans = _directions(u, delta, A, B, C, *options)
    device, wide, k = device_of(u), wide_of(u), len(scans)
    b, _, c = u.shape
    n = A.shape[2]
    plan = scans[0].backward_plan(gated=False)
    du = device.empty(u.shape, wide)
    # gradients of what the directions share are sums, as du is
    shared_delta, shared_b, shared_c = (k > 1 and x.shape[2] == 1 for x in (delta, B, C))
    ddelta = device.empty(delta.shape, wide if shared_delta else u.dtype)
    dB, dC = (device.empty(x.shape, wide) for x in (B, C))
    shares = k, b * plan.segments[0], c
    dA, dD, dbias = (device.zeros(shape, wide) for shape in ((*shares, n), shares, shares))
    if u.size:
        u, dy, *arrays = given(device, u, dout, *arrays)
        for i, scan in enumerate(scans):
            delta, A, B, C, D, delta_bias = _own(i, *arrays)
            own_ddelta, own_dB, own_dC = (x[:, :, i if x.shape[2] > 1 else 0] for x in (ddelta, dB, dC))
            steps = (None, own_ddelta) if shared_delta else (own_ddelta, None)
            inputs = u, delta, A, B, C, D, None, delta_bias, dy, None, saved.states[i]
            results = du, *steps, None, None, dA[i], dD[i], dbias[i]
            add = scan.add and shared_b, scan.add and shared_c
            scan.backward(plan, inputs, results, own_dB, own_dC, *add)
    of_direction = lambda x, like: x.sum(axis=(0, 1))[None] if like.shape[0] == 1 else x.sum(axis=1)
    return (
        du,
        ddelta,
        of_direction(dA, saved.A),
        dB,
        dC,
        None if saved.D is None else of_direction(dD, saved.D),
        None if saved.delta_bias is None else of_direction(dbias, saved.delta_bias),
    )


def _directions(u, delta, A, B, C, orders, softplus, ordered):
    """One scan for each order."""
    scans = [Scan(u, 1, A.shape[2], softplus, order=order) for order in orders]
    for i, scan in enumerate(scans):
        scan.cross, scan.add = 1 if ordered else 2, i > 0
        scan.rows = tuple(x.shape[2] * x.shape[3] for x in (delta, B, C))
    return scans


def _own(i, delta, A, B, C, D, delta_bias):
    """The views of what direction i reads."""
    of = lambda axis: i if axis > 1 else 0
    along = lambda x: x[:, :, of(x.shape[2])]
    parameter = lambda x: None if x is None else x[of(x.shape[0])]
    return along(delta), parameter(A), along(B), along(C), parameter(D), parameter(delta_bias)
