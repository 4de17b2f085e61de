"""Shifts of channel groups along a token axis."""

import numpy

from mixers import _checks as check
from mixers.op import op

MODES = ("zero", "clamp", "wrap")


@op(inputs="x")
def channel_shift(x, *, shifts, axis=1, mode="zero"):
    """Move every channel by its own number of positions along a token axis, or along two.

    zero: y[i, c] = x[i - s_c, c] inside the grid, else 0. wrap: the index modulo n. clamp: the index clipped to
    [0, n - 1], so that border lines repeat.

    Parameters
    ----------
    x : array (b, ..., c)
    shifts : integer array (c,), or (a, c) for a tuple of a axes
        s_c; content moves towards larger indices for s_c > 0. Any size. A NumPy array on every backend.
    axis : int or tuple of int
        A token axis: neither the first nor the last. Negative values count from the end. A tuple of one or
        two shifts along each, and they must differ.
    mode : {"zero", "clamp", "wrap"}

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If axis is no token axis or repeats one, shifts has another shape, or mode is unknown.
    TypeError
        If shifts holds no integers.

    Notes
    -----
    The adjoint of zero and wrap is the shift by -s; that of clamp adds the repeated lines up on the border:
    dx[m] = sum of dy[i] over all i with clip(i - s, 0, n - 1) = m. No flops; one read, one write.
    Source: Lian et al. 2022, arXiv:2107.08391, eq. 3 (zero); Yu et al. 2022, arXiv:2106.07477 (clamp).

    Examples
    --------
    >>> import numpy
    >>> x = numpy.array([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    >>> channel_shift(x, shifts=numpy.array([1, -1]))[0].T
    array([[0., 1., 2.],
           [2., 3., 0.]])
    """
    _shift("channel_shift", x, shifts, axis, mode)


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[1])
def shift_linear(x, w, b=None, *, shifts, axis=1, mode="zero"):
    """Linear map over channels of the shifted input: linear(channel_shift(x), w, b).

    The shift is an index of the product's operand; no shifted copy of x is kept.

    Parameters
    ----------
    x : array (b, ..., c_in)
    w : array (c_in, c_out)
    b : array (c_out,), optional
    shifts, axis, mode
        As for :data:`channel_shift`, one shift per input channel.

    Returns
    -------
    array (b, ..., c_out)
        dtype of x.

    Raises
    ------
    ValueError, TypeError
        As :data:`channel_shift` and :data:`mixers.ops.linear`.

    Notes
    -----
    dx is the adjoint shift of dy w^T, dw = shifted(x)^T dy, db = sum dy. 2 c_in c_out flops per token.
    Source: Chen et al. 2022, arXiv:2107.10224, eq. 2 (cycle fully-connected layer).
    """
    f = "shift_linear"
    _shift(f, x, shifts, axis, mode)
    _, c_out = check.shape(f, "w", w, c_in=x.shape[-1], c_out=None)
    if b is not None:
        check.shape(f, "b", b, c_out=c_out)


def _shift(function, x, shifts, axis, mode):
    if x.ndim < 3:
        raise ValueError(f"{function}: x must have at least 3 axes (b, ..., c), got shape {tuple(x.shape)}")
    axes = axis if isinstance(axis, tuple) else (axis,)
    for one in axes:
        check.integer(function, "axis", one)
        if not (-x.ndim <= one < x.ndim and 0 < one % x.ndim < x.ndim - 1):
            raise ValueError(
                f"{function}: axis must be a token axis of x with shape {tuple(x.shape)}, got {axis}"
            )
    if len({one % x.ndim for one in axes}) != len(axes) or len(axes) not in (1, 2):
        raise ValueError(f"{function}: axis must hold one or two different axes, got {axis}")
    if not isinstance(shifts, numpy.ndarray) or shifts.dtype.kind not in "iu":
        got = getattr(shifts, "dtype", type(shifts).__name__)
        raise TypeError(f"{function}: shifts must be a NumPy array of integers, got {got}")
    sizes = {"a": len(axes)} if isinstance(axis, tuple) else {}
    check.shape(function, "shifts", shifts, **sizes, c=x.shape[-1])
    check.choice(function, "mode", mode, MODES)
