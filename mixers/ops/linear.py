"""Linear maps over channels and over a token axis."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[1])
def linear(x, w, b=None):
    """Linear map over channels: y = x w + b.

    Parameters
    ----------
    x : array (..., c_in)
    w : array (c_in, c_out)
    b : array (c_out,), optional

    Returns
    -------
    array (..., c_out)
        dtype of x; products are summed in float32 for half types.

    Raises
    ------
    ValueError
        If a shape disagrees.

    Notes
    -----
    dx = dy w^T, dw = x^T dy, db = sum dy. 2 c_in c_out flops per token forward, twice that backward.

    Examples
    --------
    >>> import numpy
    >>> linear(numpy.ones((2, 3)), numpy.ones((3, 1)))
    array([[3.],
           [3.]])
    """
    if x.ndim < 1:
        raise ValueError(f"linear: x must have at least 1 axis, got shape {tuple(x.shape)}")
    _, c_out = check.shape("linear", "w", w, c_in=x.shape[-1], c_out=None)
    if b is not None:
        check.shape("linear", "b", b, c_out=c_out)


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[0])
def axis_linear(x, w, b=None, *, axis=1):
    """Linear map along one token axis: y[.., n, .., c] = sum_m w[n, m] x[.., m, .., c] + b[n].

    Parameters
    ----------
    x : array (b, ..., c)
        Batch first, channels last, one or more token axes between.
    w : array (n_out, n_in)
        n_in is the size of the axis.
    b : array (n_out,), optional
    axis : int
        A token axis: neither the first nor the last. Negative values count from the end.

    Returns
    -------
    array
        As x with the axis of size n_out; dtype of x.

    Raises
    ------
    ValueError
        If axis is no token axis or a shape disagrees.

    Notes
    -----
    dx = w^T dy, dw[n, m] = sum dy[n] x[m], db[n] = sum dy[n], sums over batch, channels and the other axes.
    2 n_out n_in flops per batch item, channel and other position; no transpose of x is needed.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, eq. 1 (token mixing).

    Examples
    --------
    >>> import numpy
    >>> axis_linear(numpy.ones((1, 3, 2)), numpy.ones((1, 3)))
    array([[[3., 3.]]])
    """
    if x.ndim < 3:
        raise ValueError(f"axis_linear: x must have at least 3 axes (b, ..., c), got shape {tuple(x.shape)}")
    check.integer("axis_linear", "axis", axis)
    if not 0 < axis % x.ndim < x.ndim - 1 or not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"axis_linear: axis must be a token axis of x with shape {tuple(x.shape)}, got {axis}"
        )
    n_out, _ = check.shape("axis_linear", "w", w, n_out=None, n_in=x.shape[axis])
    if b is not None:
        check.shape("axis_linear", "b", b, n_out=n_out)
