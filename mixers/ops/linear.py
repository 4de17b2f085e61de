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
        dtype of x; products are summed in float32 for half types, for which the GPU rounds w to the dtype of x.

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
        As x with the axis of size n_out; dtype of x. For half types the GPU rounds w to it.

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


ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@op(
    inputs="x",
    parameters="w_in w_out b_in b_out",
    saves="hidden",
    flops=lambda x, w_in, w_out, **_: 2 * x.shape[0] * x.shape[2] * (w_in.size + w_out.size),
)
def token_mlp(x, w_in, w_out, b_in=None, b_out=None, *, activation="gelu"):
    """Two-layer MLP along the tokens: y = w_out act(w_in x + b_in) + b_out for every batch item and channel.

    Parameters
    ----------
    x : array (b, l, c)
    w_in : array (h, l)
    w_out : array (n, h)
    b_in : array (h,), optional
    b_out : array (n,), optional
    activation : {"gelu", "gelu_tanh", "relu", "silu"}

    Returns
    -------
    array (b, n, c)
        dtype of x. For half types the GPU rounds w_in and w_out to it, but nothing between the products.

    Raises
    ------
    ValueError
        If a shape disagrees or there is no such activation.

    Notes
    -----
    The same as axis_linear, activation, axis_linear, but what lies between the products is written to memory
    only for a backward. Saved: `hidden`, the values before the activation, (b, h, c) in the dtype that x is
    computed in. With v = act(hidden): dv = w_out^T dy, dhidden = dv act'(hidden), dx = w_in^T dhidden,
    dw_out = sum dy v^T, dw_in = sum dhidden x^T, and the biases' gradients are sums of dy and dhidden.
    2 b c h (l + n) flops forward, twice that backward.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, eq. 1 (token mixing).

    Examples
    --------
    >>> import numpy
    >>> x = numpy.array([[[1.0], [2.0]]])
    >>> token_mlp(x, numpy.eye(2), numpy.array([[1.0, 1.0]]), activation="relu")
    array([[[3.]]])
    """
    _, l, _ = check.shape("token_mlp", "x", x, b=None, l=None, c=None)
    h, _ = check.shape("token_mlp", "w_in", w_in, h=None, l=l)
    n, _ = check.shape("token_mlp", "w_out", w_out, n=None, h=h)
    if b_in is not None:
        check.shape("token_mlp", "b_in", b_in, h=h)
    if b_out is not None:
        check.shape("token_mlp", "b_out", b_out, n=n)
    check.choice("token_mlp", "activation", activation, ACTIVATIONS)
