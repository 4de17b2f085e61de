"""The selective scan along several orders of the tokens, in NumPy."""

from types import SimpleNamespace

import numpy

from mixers.reference.scan import selective_scan_backward, selective_scan_forward


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
    """One scan per order, each added to y at the tokens it visits."""
    y = numpy.zeros_like(u)
    states = []
    for i, order in enumerate(orders):
        arguments = _visited(i, order, ordered_coefficients, u, delta, A, B, C, D, delta_bias)
        (s, _), (kept,) = selective_scan_forward(**arguments, delta_softplus=delta_softplus)
        y[:, order] += s
        states.append(kept)
    return y, (numpy.stack(states) if save else None,)


def cross_selective_scan_backward(dout, saved):
    """The backward of each scan; what several scans read gets the sum of their gradients.

    With P the rows of one order, so that (P x)[t] = x[order[t]], and everything that the scan i takes in the order of
    its visits, forward was, and backward is,

        s_i = scan(P_i u, Q_i delta_i, A_i, Q_i B_i, Q_i C_i, D_i, bias_i)
                                    (dv, dd, dA_i, ...) = scan backward of P_i dy;
                                    du += P_i^T dv; ddelta_i = Q_i^T dd, and so on
        y = sum_i P_i^T s_i         the cotangent of s_i is P_i dy

    where Q is P, or the identity if the coefficients do not follow the orders. The transpose of P puts a row back at
    its token. An array with a single direction is read by all scans: its gradients add up.
    """
    arrays = {name: getattr(saved, name) for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")}
    gradients = {name: None if a is None else numpy.zeros_like(a) for name, a in arrays.items()}
    options = {"delta_softplus": saved.delta_softplus, "reverse": False, "order": None}
    for i, order in enumerate(saved.orders):
        arguments = _visited(i, order, saved.ordered_coefficients, **arrays)
        none = dict.fromkeys(("z", "h0", "sequence_starts", "mask"))
        scan = SimpleNamespace(**arguments, **options, **none, states=saved.states[i])
        dv, dd, dA, dB, dC, dD, _, dbias, _ = selective_scan_backward(
            SimpleNamespace(y=dout[:, order], last_state=None), scan
        )
        gradients["u"][:, order] += dv
        sources = order if saved.ordered_coefficients else slice(None)
        for name, d in (("delta", dd), ("B", dB[:, :, 0]), ("C", dC[:, :, 0])):
            gradients[name][:, sources, _own(i, arrays[name], 2)] += d
        for name, d in (("A", dA), ("D", dD), ("delta_bias", dbias)):
            if d is not None:
                gradients[name][_own(i, arrays[name], 0)] += d
    return tuple(gradients.values())


def _visited(i, order, ordered, u, delta, A, B, C, D, delta_bias):
    """The arguments of the scan i, in the order of its visits."""
    sources = order if ordered else slice(None)
    own = lambda x: None if x is None else x[_own(i, x, 0)]
    along = lambda x: x[:, sources, _own(i, x, 2)]
    return {
        "u": u[:, order],
        "delta": along(delta),
        "A": own(A),
        "B": along(B)[:, :, None],
        "C": along(C)[:, :, None],
        "D": own(D),
        "delta_bias": own(delta_bias),
    }


def _own(i, array, axis):
    """The entry of direction i along an axis that the directions may share."""
    return i if array.shape[axis] > 1 else 0
