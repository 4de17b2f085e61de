"""Linear maps in NumPy."""

import numpy


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
