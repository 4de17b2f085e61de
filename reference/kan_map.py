"""Attention by any Kolmogorov-Arnold map of the rows of logits, and the simplex projection, in NumPy."""

from types import SimpleNamespace

import numpy

from mixers.reference import kan, kan_edges, kan_layer


def simplex_projection_forward(x, save=True):
    """Sorted descending, rho is the last index whose value exceeds (sum so far - 1) / index; lambda that number."""
    n = x.shape[-1]
    if not x.size:
        return numpy.zeros_like(x), (numpy.zeros_like(x),)
    # the projection does not see a common offset, and without it no digits are lost
    x = x - x.max(axis=-1, keepdims=True)
    ordered = -numpy.sort(-x, axis=-1)
    mean = (numpy.cumsum(ordered, axis=-1) - 1.0) / numpy.arange(1, n + 1, dtype=x.dtype)
    rho = numpy.maximum((ordered > mean).sum(axis=-1, keepdims=True), 1)
    y = numpy.maximum(x - numpy.take_along_axis(mean, rho - 1, axis=-1), 0.0)
    return y, (y,)


def simplex_projection_backward(dout, saved):
    """On the support dx = dy minus its mean there, elsewhere 0."""
    support = saved.y > 0
    count = numpy.maximum(support.sum(axis=-1, keepdims=True), 1)
    mean = numpy.where(support, dout, 0.0).sum(axis=-1, keepdims=True) / count
    return (numpy.where(support, dout - mean, 0.0),)


def kan_map_attention_forward(q, k, v, save=True, **arguments):
    """S = map of the rows of the logits, y = S v."""
    call = SimpleNamespace(q=q, k=k, v=v, **arguments)
    s = _map(call)[-1]
    return numpy.einsum("bhij,bjhd->bihd", s, v), ()


def kan_map_attention_backward(dout, saved):
    """The chain of the forward, computed again and walked in reverse.

    y = S v              ->  dS = dy v^T, dv = S^T dy
    S = simplex(S0)      ->  dS0 by its VJP
    S0 = z w^T           ->  dz = dS0 w, dw = dS0^T z, summed over batch and rows; likewise a w^T
    z = Phi(a)           ->  da and the gradients of the functions, by layer_backward
    a = scale q k^T      ->  dq = scale da k, dk = scale da^T q
    """
    steps = _map(saved)
    a, *_, s = steps
    d = numpy.einsum("bihd,bjhd->bhij", dout, saved.v)
    dv = numpy.einsum("bhij,bihd->bjhd", s, dout)
    dphi, dpsi, dw = (None,) * 3, (None,) * 3, None
    if saved.projection == "output":
        d = _project_backward(d, s)
    if saved.operator == "full":
        d, dphi = _layer_backward(saved, _phi(saved), a, d)
    elif saved.operator == "w_phi":
        z = steps[2] if saved.projection == "hidden" else steps[1]
        dw = numpy.einsum("bhij,bhip->hjp", d, z)
        d = numpy.einsum("bhij,hjp->bhip", d, saved.w)
        if saved.projection == "hidden":
            d = _project_backward(d, z)
        d, dphi = _layer_backward(saved, _phi(saved), a, d)
    elif saved.operator == "phi_w":
        d, dphi = _layer_backward(saved, _phi(saved), steps[1], d)
        dw = numpy.einsum("bhip,bhij->hpj", d, a)
        d = numpy.einsum("bhip,hpj->bhij", d, saved.w)
    else:
        d, dpsi = _layer_backward(saved, _psi(saved), steps[1], d)
        d, dphi = _layer_backward(saved, _phi(saved), a, d)
    d = d * kan.scale_of(saved.q, saved.scale)
    dq = numpy.einsum("bhij,bjhd->bihd", d, saved.k)
    dk = numpy.einsum("bhij,bihd->bjhd", d, saved.q)
    return dq, dk, dv, *dphi, *dpsi, dw


def _phi(call):
    return call.phi, call.phi_2, call.phi_3


def _psi(call):
    return call.psi, call.psi_2, call.psi_3


def _map(call):
    """The logits (b, h, n, n) and everything that becomes of them, S last."""
    steps = [kan.logits(call.q, call.k, call.scale)]
    if call.operator == "phi_w":
        steps.append(numpy.einsum("bhij,hpj->bhip", steps[-1], call.w))
    steps.append(_layer(call, _phi(call), steps[-1]))
    if call.projection == "hidden":
        steps.append(simplex_projection_forward(steps[-1])[0])
    if call.operator == "w_phi":
        steps.append(numpy.einsum("bhip,hjp->bhij", steps[-1], call.w))
    if call.operator == "phi_phi":
        steps.append(_layer(call, _psi(call), steps[-1]))
    if call.projection == "output":
        steps.append(simplex_projection_forward(steps[-1])[0])
    return steps


def _project_backward(dy, y):
    return simplex_projection_backward(dy, SimpleNamespace(y=y))[0]


def _layer(call, arrays, a):
    """Phi of the rows of a (b, h, n, i), head by head."""
    heads = [_sum(call, a[:, h], *_of_head(arrays, h)) for h in range(a.shape[1])]
    return numpy.stack(heads, axis=1) + kan.BASES[call.base][0](a).sum(axis=3, keepdims=True)


def _sum(call, a, first, second, third):
    if call.basis == "fourier":
        return kan_layer.kan_contract_forward(a, numpy.concatenate([first, second], 1), basis="fourier")[0]
    if call.basis == "bspline":
        return kan_layer.kan_contract_forward(a, first, order=call.order, low=call.low, high=call.high)[0]
    return kan_edges.kan_edges_forward(a, first, second, third, call.basis)[0]


def _layer_backward(call, arrays, a, dz):
    """Gradients of a and of the arrays of the layer."""
    da, *parts = zip(
        *(_sum_backward(call, a[:, h], dz[:, h], *_of_head(arrays, h)) for h in range(a.shape[1]))
    )
    da = numpy.stack(da, axis=1) + kan.BASES[call.base][1](a) * dz.sum(axis=3, keepdims=True)
    return da, [None if part[0] is None else numpy.stack(part) for part in parts]


def _sum_backward(call, a, dz, first, second, third):
    shared = {"x": a, "first": None, "second": None, "order": call.order, "low": call.low, "high": call.high}
    if call.basis == "fourier":
        w = numpy.concatenate([first, second], axis=1)
        saved = SimpleNamespace(w=w, basis="fourier", width=None, **shared)
        da, dw, *_ = kan_layer.kan_contract_backward(dz, saved)
        return da, dw[:, : first.shape[1]], dw[:, first.shape[1] :], None
    if call.basis == "bspline":
        saved = SimpleNamespace(w=first, basis="bspline", width=None, **shared)
        return *kan_layer.kan_contract_backward(dz, saved)[:2], None, None
    saved = SimpleNamespace(x=a, first=first, second=second, third=third, function=call.basis)
    return kan_edges.kan_edges_backward(dz, saved)


def _of_head(arrays, h):
    return [None if a is None else a[h] for a in arrays]
