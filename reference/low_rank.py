"""Attention whose matrix of weights is of low rank, in NumPy."""

import numpy


def low_rank_values_forward(z, x, w_up, w_v, w_out, b_v=None, b_out=None, save=True):
    """V = x w_v + b_v, o = z (w_up^T V) per head, y = o w_out + b_out."""
    v = _values(x, w_v, b_v, z.shape[2])
    y = _join(_weighted(z, _project(w_up, v))) @ w_out
    return (y if b_out is None else y + b_out), (None, None, None)


def low_rank_values_backward(dout, saved):
    """The chain in reverse, with u = w_up^T V.

    y = o w_out + b_out  ->  do = dy w_out^T,  dw_out = o^T dy
    o = z u              ->  dz = do u^T,  du = z^T do
    u = w_up^T V         ->  dw_up = V du^T (summed over the batch),  dV = w_up du
    V = x w_v + b_v      ->  dx = dV w_v^T,  dw_v = x^T dV
    """
    z, x, w_up, w_v, w_out = saved.z, saved.x, saved.w_up, saved.w_v, saved.w_out
    heads = z.shape[2]
    v = _values(x, w_v, saved.b_v, heads)
    u = _project(w_up, v)
    o = _weighted(z, u)
    do = _heads(dout @ w_out.T, heads)
    du = numpy.einsum("bihp,bihd->bhpd", z, do)
    dv = numpy.einsum("hjp,bhpd->bjhd", w_up, du)
    return (
        numpy.einsum("bihd,bhpd->bihp", do, u),
        _join(dv) @ w_v.T,
        numpy.einsum("bjhd,bhpd->hjp", v, du),
        numpy.einsum("bjc,bje->ce", x, _join(dv)),
        numpy.einsum("bie,bio->eo", _join(o), dout),
        None if saved.b_v is None else _join(dv).sum(axis=(0, 1)),
        None if saved.b_out is None else dout.sum(axis=(0, 1)),
    )


def _values(x, w_v, b_v, heads):
    v = x @ w_v
    return _heads(v if b_v is None else v + b_v, heads)


def _heads(x, heads):
    """(b, n, e) as (b, n, h, e / h)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def _join(x):
    """The inverse of :func:`_heads`."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _project(w_up, v):
    """u (b, h, r, d)."""
    return numpy.einsum("hjp,bjhd->bhpd", w_up, v)


def _weighted(z, u):
    """o (b, n, h, d)."""
    return numpy.einsum("bihp,bhpd->bihd", z, u)
