"""State-space scans with one decay per head and token: the scan of Mamba-2 and its single step."""

from mixers import _checks as check
from mixers.op import op
from mixers.sequences import check_tokens


def _flops(x, B, chunk_size=256, **_):
    """Products of tokens within a chunk, and of tokens with states."""
    (_, _, h, p), (g, n) = x.shape, B.shape[-2:]
    q = min(chunk_size, 64)
    return x.shape[0] * x.shape[1] * 2 * (g * q * n + h * q * p + 2 * h * p * n)


@op(
    inputs="x dt B C z",
    parameters="A D dt_bias h0",
    outputs="y last_state",
    saves="states",
    flops=_flops,
)
def ssd_scan(
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    *,
    dt_softplus=False,
    dt_limit=None,
    h0=None,
    chunk_size=256,
    return_last_state=False,
    sequence_starts=None,
    mask=None,
):
    """State-space scan with one decay per head and token (SSD, Mamba-2).

    d[t] = softplus(dt[t] + dt_bias) (or without either), clipped to dt_limit;
    S[t] = exp(d[t] A) S[t-1] + d[t] x[t] B[t]^T;  y[t] = (S[t] C[t] + D x[t]) silu(z[t]), the gate only if z is
    given.

    Parameters
    ----------
    x : array (b, l, h, p)
        h heads of p channels.
    dt : array (b, l, h)
        Step sizes.
    A : array (h,)
        Decay rates, normally < 0.
    B, C : array (b, l, g, n)
        g groups of h / g heads share the coefficients; g divides h.
    D : array (h,) or (h, p), optional
    z : array (b, l, h, p), optional
        Gate.
    dt_bias : array (h,), optional
    dt_softplus : bool
    dt_limit : (float, float), optional
        Bounds of the steps. The gradient of a step on a bound passes, beyond it is zero.
    h0 : array (b, h, p, n), optional
        State before the first token; zeros by default.
    chunk_size : int
        Tokens between two saved states; above 64 it counts as 64, which keeps chunks in the caches. The result
        does not depend on it beyond rounding.
    return_last_state : bool
        Also return the state after the last token.
    sequence_starts : bool array (b, l), optional
        True where a sequence begins: before the scan visits such a token, the state is forgotten. A NumPy array
        on every backend; see :mod:`mixers.sequences`.
    mask : bool array (b, l), optional
        False for padding: such a token leaves the state as it is, its output and its gradients are zero, and what
        the arrays hold there does not matter. A NumPy array on every backend.

    Returns
    -------
    y : array (b, l, h, p)
        dtype of x.
    last_state : array (b, h, p, n)
        If asked for; float32 (float64 for float64 x).

    Raises
    ------
    ValueError
        If a shape disagrees, g does not divide h, dt_limit is no pair lo <= hi or chunk_size < 1.

    Notes
    -----
    Saved: `states` (b, ceil(l / q), h, n, p) with q = min(chunk_size, 64), the state before every q-th token;
    everything else is recomputed in the backward. What is not finite changes no token before it and no other sequence,
    and in the backward nothing after it. In matrices, per chunk of q tokens:
    2 (g q n + h q p + 2 h p n) flops per token forward, about three times that backward.
    Source: Dao & Gu 2024, arXiv:2405.21060, section 6.

    Examples
    --------
    >>> import numpy
    >>> x, BC = numpy.ones((1, 3, 1, 1)), numpy.ones((1, 3, 1, 1))
    >>> ssd_scan(x, x[..., 0], numpy.zeros(1), BC, BC)[0, :, 0, 0]
    array([1., 2., 3.])
    """
    f = "ssd_scan"
    batch, l, h, p = check.shape(f, "x", x, b=None, l=None, h=None, p=None)
    check.shape(f, "dt", dt, b=batch, l=l, h=h)
    n = _heads(f, batch, h, p, {"l": l}, A, B, C, D, dt_bias)
    if z is not None:
        check.shape(f, "z", z, b=batch, l=l, h=h, p=p)
    if h0 is not None:
        check.shape(f, "h0", h0, b=batch, h=h, p=p, n=n)
    _steps(f, dt_softplus, dt_limit)
    check.integer(f, "chunk_size", chunk_size, minimum=1)
    check.boolean(f, "return_last_state", return_last_state)
    check_tokens(f, batch, l, sequence_starts=sequence_starts, mask=mask)


@op(
    inputs="x dt B C z",
    parameters="state A D dt_bias",
    outputs="y state",
    flops=lambda x, B, **_: 6 * x.size * B.shape[-1],
)
def ssd_state_update(
    state, x, dt, A, B, C, D=None, z=None, dt_bias=None, *, dt_softplus=False, dt_limit=None, out_state=None
):
    """One step of :data:`ssd_scan`: a token and the state in, both out.

    Parameters
    ----------
    state : array (b, h, p, n)
    x : array (b, h, p)
    dt : array (b, h)
    A : array (h,)
    B, C : array (b, g, n)
    D : array (h,) or (h, p), optional
    z : array (b, h, p), optional
    dt_bias : array (h,), optional
    dt_softplus : bool
    dt_limit : (float, float), optional
    out_state : array (b, h, p, n), optional
        Written with the new state and returned as such; it may be `state` itself (then in place: do not call
        backward with that saved). A new array by default.

    Returns
    -------
    y : array (b, h, p)
        dtype of x.
    state : array (b, h, p, n)
        float32 (float64 for float64 x).

    Raises
    ------
    ValueError
        If a shape disagrees, or out_state has another shape or dtype than the new state.

    Notes
    -----
    Bandwidth bound: the state is read and written once; one exponential per head.
    Source: Dao & Gu 2024, arXiv:2405.21060; equal to ssd_scan with l = 1 and h0 = state.
    """
    f = "ssd_state_update"
    batch, h, p = check.shape(f, "x", x, b=None, h=None, p=None)
    check.shape(f, "dt", dt, b=batch, h=h)
    n = _heads(f, batch, h, p, {}, A, B, C, D, dt_bias)
    check.shape(f, "state", state, b=batch, h=h, p=p, n=n)
    if z is not None:
        check.shape(f, "z", z, b=batch, h=h, p=p)
    _steps(f, dt_softplus, dt_limit)
    if out_state is not None:
        check.shape(f, "out_state", out_state, b=batch, h=h, p=p, n=n)
        wanted = "float64" if x.dtype.name == "float64" else "float32"
        if out_state.dtype.name != wanted:
            raise ValueError(f"{f}: out_state must have dtype {wanted}, got {out_state.dtype}")


def _heads(function, batch, h, p, tokens, A, B, C, D, dt_bias):
    """The shapes that the scan and its single step share; returns the number of states."""
    check.shape(function, "A", A, h=h)
    *_, g, n = check.shape(function, "B", B, b=batch, **tokens, g=None, n=None)
    check.shape(function, "C", C, b=batch, **tokens, g=g, n=n)
    if g < 1 or h % g:
        raise ValueError(f"{function}: B must have a number of groups g that divides h = {h}, got g = {g}")
    if D is not None:
        check.shape(function, "D", D, **({"h": h} if D.ndim == 1 else {"h": h, "p": p}))
    if dt_bias is not None:
        check.shape(function, "dt_bias", dt_bias, h=h)
    return n


def _steps(function, dt_softplus, dt_limit):
    check.boolean(function, "dt_softplus", dt_softplus)
    if dt_limit is not None:
        step_limits(function, dt_limit)


def step_limits(function, dt_limit):
    """Check the bounds of steps and return them as floats."""
    if not isinstance(dt_limit, tuple | list) or len(dt_limit) != 2:
        raise ValueError(f"{function}: dt_limit must be a pair of numbers, got {dt_limit!r}")
    lo = check.number(function, "dt_limit (low)", dt_limit[0])
    return lo, check.number(function, "dt_limit (high)", dt_limit[1], minimum=lo)
