"""Short convolutions: depthwise 2-D, causal depthwise 1-D and its streaming form."""

from mixers import _checks as check
from mixers.op import op
from mixers.sequences import check_tokens


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[0] * w.shape[1])
def depthwise_conv2d(x, w, b=None, *, dilation=1, padding="same"):
    """Depthwise 2-D convolution (cross-correlation), stride 1, zero padding.

    y[n, p, q, c] = b[c] + sum_{i,j} w[i, j, c] x[n, p + i d - top, q + j d - left, c]

    Parameters
    ----------
    x : array (b, h, w, c)
    w : array (kh, kw, c)
        Any kernel sizes >= 1, odd or even; they may exceed the grid.
    b : array (c,), optional
    dilation : int
        d >= 1.
    padding : "same" or ((top, bottom), (left, right))
        "same" keeps the grid; with an even kernel the extra row and column go to the bottom and right.

    Returns
    -------
    array (b, h + top + bottom - d (kh - 1), w + left + right - d (kw - 1), c)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, dilation < 1, padding is negative or the output grid would be negative.

    Notes
    -----
    dx is the convolution of dy with the kernel flipped in both axes, dw a sum over batch and grid in a
    fixed order, db = sum dy. 2 kh kw flops per output element.

    Examples
    --------
    >>> import numpy
    >>> depthwise_conv2d(numpy.ones((1, 3, 3, 1)), numpy.ones((3, 3, 1)))[0, :, :, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    """
    f = "depthwise_conv2d"
    _, h, width, c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    kh, kw, _ = check.shape(f, "w", w, kh=None, kw=None, c=c)
    if kh < 1 or kw < 1:
        raise ValueError(f"{f}: w must have kernel sizes >= 1, got shape {tuple(w.shape)}")
    if b is not None:
        check.shape(f, "b", b, c=c)
    check.integer(f, "dilation", dilation, minimum=1)
    if isinstance(padding, str):
        check.choice(f, "padding", padding, ("same",))
        return
    try:
        (top, bottom), (left, right) = padding
    except (TypeError, ValueError):
        raise ValueError(
            f"{f}: padding must be 'same' or ((top, bottom), (left, right)), got {padding!r}"
        ) from None
    for name, value in (("top", top), ("bottom", bottom), ("left", left), ("right", right)):
        check.integer(f, f"padding ({name})", value, minimum=0)
    out = (h + top + bottom - dilation * (kh - 1), width + left + right - dilation * (kw - 1))
    if min(out) < 0:
        raise ValueError(
            f"{f}: padding must make the padded grid at least as large as the kernel, got {padding!r}"
        )


@op(
    inputs="x",
    parameters="w b initial_state",
    outputs="y final_state",
    flops=lambda x, w, **_: 2 * x.size * w.shape[0],
)
def causal_conv1d(
    x,
    w,
    b=None,
    *,
    activation="silu",
    initial_state=None,
    return_final_state=False,
    sequence_starts=None,
    mask=None,
):
    """Causal depthwise 1-D convolution with an optional SiLU.

    p[t] = b + sum_{i<k} w[i] X[t + i], X = initial_state (or zeros) followed by x; y = silu(p) or p.

    Parameters
    ----------
    x : array (b, l, c)
    w : array (k, c)
        k >= 1; w[k - 1] multiplies the current token.
    b : array (c,), optional
    activation : {"silu", "none"}
    initial_state : array (b, k - 1, c), optional
        The k - 1 raw inputs before the first token, oldest first.
    return_final_state : bool
        Also return the last k - 1 rows of X.
    sequence_starts : bool array (b, l), optional
        True where a sequence begins: such a token and those after it do not see the tokens before it. A NumPy array
        on every backend; see :mod:`mixers.sequences`.
    mask : bool array (b, l), optional
        False for padding: no token sees such a token, nor does the final state; its output and gradient are zero. A
        NumPy array on every backend.

    Returns
    -------
    y : array (b, l, c)
        dtype of x.
    final_state : array (b, k - 1, c)
        If asked for; float32 (float64 for float64 x).

    Raises
    ------
    ValueError
        If a shape disagrees or activation is unknown.

    Notes
    -----
    With g = dy silu'(p): dX[t + i] += w[i] g[t], dw[i] = sum g[t] X[t + i], db = sum g; p is recomputed.
    2 k flops per element. A run split in two with the state carried equals the whole run.
    Source: Gu & Dao 2023, arXiv:2312.00752, section 3.4; Dao-AILab/causal-conv1d.
    """
    f = "causal_conv1d"
    batch, l, c = check.shape(f, "x", x, b=None, l=None, c=None)
    k = _kernel(f, w, b, c, activation)
    check_tokens(f, batch, l, sequence_starts=sequence_starts, mask=mask)
    if initial_state is not None:
        check.shape(f, "initial_state", initial_state, b=batch, **{"k - 1": k - 1}, c=c)
    check.boolean(f, "return_final_state", return_final_state)


@op(
    inputs="x",
    parameters="state w b",
    outputs="y state",
    flops=lambda x, w, **_: 2 * x.size * w.shape[0],
)
def causal_conv1d_update(x, state, w, b=None, *, activation="silu"):
    """Streaming form of :data:`causal_conv1d`: new tokens and the last raw inputs in, both out.

    Parameters
    ----------
    x : array (b, l, c) or (b, c)
        l >= 1 new tokens; (b, c) is one token.
    state : array (b, s, c)
        The s >= k - 1 most recent raw inputs, oldest first.
    w : array (k, c)
    b : array (c,), optional
    activation : {"silu", "none"}

    Returns
    -------
    y : array like x
    state : array (b, s, c)
        The last s rows of state followed by x; a new array, float32 (float64 for float64 x).

    Raises
    ------
    ValueError
        If a shape disagrees or activation is unknown.

    Notes
    -----
    Tokens given one at a time from a state of zeros give what the whole sequence gives.
    2 k flops per element; the state is read and written once.
    Source: Dao-AILab/causal-conv1d, causal_conv1d_update.
    """
    f = "causal_conv1d_update"
    check.rank(f, "x", x, (2, 3))
    k = _kernel(f, w, b, x.shape[-1], activation)
    _, s, _ = check.shape(f, "state", state, b=x.shape[0], s=None, c=x.shape[-1])
    if s < k - 1:
        raise ValueError(f"{f}: state must hold at least k - 1 = {k - 1} tokens, got {s}")


def _kernel(function, w, b, c, activation):
    k, _ = check.shape(function, "w", w, k=None, c=c)
    if k < 1:
        raise ValueError(f"{function}: w must have at least one tap, got shape {tuple(w.shape)}")
    if b is not None:
        check.shape(function, "b", b, c=c)
    check.choice(function, "activation", activation, ("silu", "none"))
    return k
