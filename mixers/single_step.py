"""The backward of a scan's single step, by that of the scan: for any backend of plain arrays."""

from types import SimpleNamespace

# what only a scan has, and what a single step has beside
_OF_SCANS = {"order": None, "reverse": False, "sequence_starts": None, "mask": None, "chunk_size": 1}
_OF_STEPS = ("state", "out_state")


def backward(scan_backward, dout, saved):
    """Gradients of a single step: the scan over a sequence of one token, whose saved states are the one before it.

    Parameters
    ----------
    scan_backward : callable
        Of the scan with the same arguments, which are the inputs u, delta, A, B, C, D, z, bias in this order.
    dout, saved
        Of the single step; its first argument is the state.

    Returns
    -------
    tuple
        One gradient per array argument of the single step.
    """
    token = lambda a: None if a is None else a[:, None]
    first = lambda a: None if a is None else a[:, 0]
    _, u, delta, _, B, C, _, z, *_ = saved._fields
    given = {n: a for n, a in saved._asdict().items() if n not in _OF_STEPS}
    given |= {n: token(given[n]) for n in (u, delta, B, C, z)}
    states = token(saved.state.swapaxes(-1, -2).copy())
    scan = SimpleNamespace(**given, **_OF_SCANS, h0=saved.state, states=states)
    gradients = scan_backward(SimpleNamespace(y=token(dout.y), last_state=dout.state), scan)
    du, ddelta, dA, dB, dC, dD, dz, dbias, dstate = gradients
    return dstate, first(du), first(ddelta), dA, first(dB), first(dC), dD, first(dz), dbias
