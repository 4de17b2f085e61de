"""Diagonal linear recurrences: the plain scan, the selective scan of Mamba and its single step."""

import numpy

from mixers import _checks as check
from mixers.op import op
from mixers.sequences import check_tokens


@op(inputs="a b", parameters="h0", outputs="h last_state", flops=lambda a, **_: 2 * a.size)
def linear_scan(a, b, h0=None, *, reverse=False, return_last_state=False, sequence_starts=None, mask=None):
    """First-order linear recurrence h[t] = a[t] h[t-1] + b[t], per channel.

    Parameters
    ----------
    a, b : array (b, l, c)
        Decays and inputs; abs(a) > 1 is allowed, growth is the caller's concern.
    h0 : array (b, c), optional
        State before the first token in scan order; zeros by default.
    reverse : bool
        Let t run from l - 1 down to 0; outputs stay stored at their own t.
    return_last_state : bool
        Also return the state after the last token in scan order.
    sequence_starts : bool array (b, l), optional
        True where a sequence begins: before the scan visits such a token, the state is forgotten. A NumPy array
        on every backend; see :mod:`mixers.sequences`.
    mask : bool array (b, l), optional
        False for padding: such a token leaves the state as it is, its gradients are zero, and what
        the arrays hold there does not matter; h repeats the state. A NumPy array on every backend.

    Returns
    -------
    h : array (b, l, c)
        dtype of a.
    last_state : array (b, c)
        If asked for; float32 (float64 for float64 a).

    Raises
    ------
    ValueError
        If a shape disagrees.

    Notes
    -----
    The backward is a scan in the other direction: lambda[t] = dh[t] + a[t+1] lambda[t+1] (dlast_state enters at
    the last token); db = lambda, da[t] = lambda[t] h[t-1], dh0 = a[first] lambda[first]. h is recomputed from
    the inputs. Bandwidth bound: 3 values per element forward. Two floating operations per element.
    Source: Martin & Cundy 2018, arXiv:1709.04057, eq. 5.

    Examples
    --------
    >>> import numpy
    >>> linear_scan(numpy.full((1, 3, 1), 0.5), numpy.ones((1, 3, 1)))[0, :, 0]
    array([1.  , 1.5 , 1.75])
    """
    f = "linear_scan"
    batch, l, c = check.shape(f, "a", a, b=None, l=None, c=None)
    check.shape(f, "b", b, b=batch, l=l, c=c)
    if h0 is not None:
        check.shape(f, "h0", h0, b=batch, c=c)
    check.boolean(f, "reverse", reverse)
    check.boolean(f, "return_last_state", return_last_state)
    check_tokens(f, batch, l, sequence_starts=sequence_starts, mask=mask)


@op(
    inputs="u delta B C z",
    parameters="A D delta_bias h0",
    outputs="y last_state",
    saves="states",
    flops=lambda u, A, **_: u.size * (9 * A.shape[1] + 12),
)
def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    *,
    delta_softplus=False,
    h0=None,
    return_last_state=False,
    reverse=False,
    order=None,
    sequence_starts=None,
    mask=None,
):
    """Selective state-space scan of Mamba (S6).

    d[t] = softplus(delta[t] + delta_bias) (or without either); h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t];
    y[t] = (C[t] . h[t] + D u[t]) silu(z[t]), the gate only if z is given.

    Parameters
    ----------
    u, delta : array (b, l, c)
        Input and step size.
    A : array (c, n)
        Decay rate, real, normally < 0.
    B, C : array (b, l, g, n)
        g groups of c / g channels share the coefficients; g divides c.
    D, delta_bias : array (c,), optional
    z : array (b, l, c), optional
        Gate.
    delta_softplus : bool
    h0 : array (b, c, n), optional
        State before the first token in scan order; zeros by default.
    return_last_state : bool
        Also return the state after the last token in scan order.
    reverse : bool
        Visit the tokens from the last to the first (of `order`, if given).
    order : integer array (l,), optional
        A permutation: the recurrence visits tokens order[0], order[1], ...; all arrays stay in storage order.
        A NumPy array on every backend.
    sequence_starts : bool array (b, l), optional
        True where a sequence begins: before the scan visits such a token, the state is forgotten. A NumPy array
        on every backend; see :mod:`mixers.sequences`.
    mask : bool array (b, l), optional
        False for padding: such a token leaves the state as it is, its output and its gradients are zero, and what
        the arrays hold there does not matter. A NumPy array on every backend.

    Returns
    -------
    y : array (b, l, c)
        dtype of u.
    last_state : array (b, c, n)
        If asked for; float32 (float64 for float64 u).

    Raises
    ------
    ValueError
        If a shape disagrees, g does not divide c, or order is no permutation.
    TypeError
        If an array is not of a float type or order holds no integers.

    Notes
    -----
    Saved: `states` (b, ceil(l / 16), n, c), the state before every 16th token in scan order (the size of u at
    n = 16); everything else is recomputed in the backward. About l c (9 n + 12) flops and l c (n + 2)
    exponentials per batch item forward; moves 3 l c + 2 l g n values (4 l c with z).
    Source: Gu & Dao 2023, arXiv:2312.00752, eq. 2a-2b, algorithm 2; layout (b, l, c), h0, order and the gradient of
    last_state are additions.

    Examples
    --------
    >>> import numpy
    >>> u = numpy.ones((1, 3, 1))
    >>> BC = numpy.ones((1, 3, 1, 1))
    >>> selective_scan(u, u, numpy.zeros((1, 1)), BC, BC)[0, :, 0]
    array([1., 2., 3.])
    """
    f = "selective_scan"
    batch, l, c = check.shape(f, "u", u, b=None, l=None, c=None)
    check.shape(f, "delta", delta, b=batch, l=l, c=c)
    _selective(f, batch, c, {"l": l}, A, B, C, D, delta_bias)
    if z is not None:
        check.shape(f, "z", z, b=batch, l=l, c=c)
    if h0 is not None:
        check.shape(f, "h0", h0, b=batch, c=c, n=A.shape[1])
    for name, value in (
        ("delta_softplus", delta_softplus),
        ("return_last_state", return_last_state),
        ("reverse", reverse),
    ):
        check.boolean(f, name, value)
    check_tokens(f, batch, l, sequence_starts=sequence_starts, mask=mask)
    if order is not None:
        if not isinstance(order, numpy.ndarray) or order.dtype.kind not in "iu":
            raise TypeError(
                f"{f}: order must be a NumPy array of integers, got {getattr(order, 'dtype', order)!r}"
            )
        if order.shape != (l,) or not numpy.array_equal(numpy.sort(order), numpy.arange(l)):
            raise ValueError(f"{f}: order must be a permutation of 0..{l - 1}, got shape {order.shape}")


@op(
    inputs="u delta B C z",
    parameters="state A D delta_bias",
    outputs="y state",
)
def selective_state_update(
    state, u, delta, A, B, C, D=None, z=None, delta_bias=None, *, delta_softplus=False, out_state=None
):
    """One step of :data:`selective_scan`: a token and the state in, both out.

    Parameters
    ----------
    state : array (b, c, n)
    u, delta : array (b, c)
    A : array (c, n)
    B, C : array (b, g, n)
    D, delta_bias : array (c,), optional
    z : array (b, c), optional
    delta_softplus : bool
    out_state : array (b, c, n), optional
        Written with the new state and returned as such; it may be `state` itself (then in place: do not call
        backward with that saved). A new array by default.

    Returns
    -------
    y : array (b, c)
        dtype of u.
    state : array (b, c, n)
        float32 (float64 for float64 u).

    Raises
    ------
    ValueError
        If a shape disagrees, or out_state has another shape or dtype than the new state.

    Notes
    -----
    Bandwidth bound: the state is read and written once.
    Source: Gu & Dao 2023, arXiv:2312.00752; equal to selective_scan with l = 1 and h0 = state.
    """
    f = "selective_state_update"
    batch, c = check.shape(f, "u", u, b=None, c=None)
    check.shape(f, "delta", delta, b=batch, c=c)
    _selective(f, batch, c, {}, A, B, C, D, delta_bias)
    check.shape(f, "state", state, b=batch, c=c, n=A.shape[1])
    if z is not None:
        check.shape(f, "z", z, b=batch, c=c)
    check.boolean(f, "delta_softplus", delta_softplus)
    if out_state is not None:
        check.shape(f, "out_state", out_state, b=batch, c=c, n=A.shape[1])
        wanted = "float64" if u.dtype.name == "float64" else "float32"
        if out_state.dtype.name != wanted:
            raise ValueError(f"{f}: out_state must have dtype {wanted}, got {out_state.dtype}")


def _selective(function, batch, c, tokens, A, B, C, D, delta_bias):
    """The shapes that the scan and its single step share."""
    _, n = check.shape(function, "A", A, c=c, n=None)
    g = check.shape(function, "B", B, b=batch, **tokens, g=None, n=n)[-2]
    check.shape(function, "C", C, b=batch, **tokens, g=g, n=n)
    if g < 1 or c % g:
        raise ValueError(f"{function}: B must have a number of groups g that divides c = {c}, got g = {g}")
    for name, array in (("D", D), ("delta_bias", delta_bias)):
        if array is not None:
            check.shape(function, name, array, c=c)
