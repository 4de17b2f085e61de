"""Linear maps in NumPy."""

from typing import NamedTuple

import numpy

from mixers.reference import elementwise


def linear_forward(x, w, b=None, save=True):
    """y = x w + b."""
    y = numpy.tensordot(x, w, axes=1)
    return (y if b is None else y + b), ()


def linear_backward(dout, saved):
    """dx = dy w^T, dw = x^T dy, db = sum dy, sums over all tokens.

    y[t, o] = sum_i x[t, i] w[i, o] + b[o] is linear in each argument: the gradient of sum y dy with respect to one
    of them is dy contracted with the other over the indices that they share.
    """
    x, w = saved.x, saved.w
    tokens = tuple(range(x.ndim - 1))
    dx = numpy.tensordot(dout, w, axes=(-1, 1))
    dw = numpy.tensordot(x, dout, axes=(tokens, tokens))
    return dx, dw, (None if saved.b is None else dout.sum(axis=tokens))


def axis_linear_forward(x, w, b=None, axis=1, save=True):
    """y[n] = sum_m w[n, m] x[m] + b[n], n and m along the axis."""
    y = numpy.tensordot(w, x, axes=(1, axis))
    if b is not None:
        y = y + b.reshape(-1, *(1,) * (x.ndim - 1))
    return numpy.moveaxis(y, 0, axis), ()


def axis_linear_backward(dout, saved):
    """dx[m] = sum_n w[n, m] dy[n], dw[n, m] = sum dy[n] x[m], db[n] = sum dy[n].

    The sums of dw and db run over every index besides that of the axis.
    """
    x, w, axis = saved.x, saved.w, saved.axis
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    dx = numpy.moveaxis(numpy.tensordot(w, dout, axes=(0, axis)), 0, axis)
    dw = numpy.tensordot(dout, x, axes=(others, others))
    return dx, dw, (None if saved.b is None else dout.sum(axis=others))


def token_mlp_forward(x, w_in, w_out, b_in=None, b_out=None, activation="gelu", save=True):
    """y = w_out v + b_out, v = act(u), u = w_in x + b_in; u is saved."""
    u, _ = axis_linear_forward(x, w_in, b_in)
    v, _ = getattr(elementwise, f"{activation}_forward")(u)
    return axis_linear_forward(v, w_out, b_out)[0], (u,)


def token_mlp_backward(dout, saved):
    """The chain rule through the three steps, from the last to the first."""
    u = saved.hidden
    v, _ = getattr(elementwise, f"{saved.activation}_forward")(u)
    dv, dw_out, db_out = axis_linear_backward(dout, _Step(v, saved.w_out, saved.b_out))
    (du,) = getattr(elementwise, f"{saved.activation}_backward")(dv, _Step(u))
    dx, dw_in, db_in = axis_linear_backward(du, _Step(saved.x, saved.w_in, saved.b_in))
    return dx, dw_in, dw_out, db_in, db_out


class _Step(NamedTuple):
    """What one step of the MLP keeps for its backward."""

    x: numpy.ndarray
    w: numpy.ndarray | None = None
    b: numpy.ndarray | None = None
    axis: int = 1
