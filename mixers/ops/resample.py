"""Changes of the token grid: 2 x 2 pooling, nearest upsampling, means along axes."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x")
def avg_pool_2x2(x):
    """Mean of each 2 x 2 block of tokens, stride 2; an odd last row or column is dropped.

    Parameters
    ----------
    x : array (b, h, w, c)
        h, w >= 2.

    Returns
    -------
    array (b, h // 2, w // 2, c)
        dtype of x.

    Raises
    ------
    ValueError
        If h or w is below 2.

    Notes
    -----
    dx is dy / 4 on the four cells of a block, 0 on what was dropped.

    Examples
    --------
    >>> import numpy
    >>> avg_pool_2x2(numpy.arange(6.0).reshape(1, 2, 3, 1))[0, :, :, 0]
    array([[2.]])
    """
    _, h, w, _ = check.shape("avg_pool_2x2", "x", x, b=None, h=None, w=None, c=None)
    if min(h, w) < 2:
        raise ValueError(f"avg_pool_2x2: x must have h, w >= 2, got shape {tuple(x.shape)}")


@op(inputs="x")
def nearest_upsample(x, *, grid):
    """Each token of a larger grid takes the value of the token it falls on: y[p, q] = x[p h // H, q w // W].

    Parameters
    ----------
    x : array (b, h, w, c)
    grid : (int, int)
        (H, W), at least (h, w).

    Returns
    -------
    array (b, H, W, c)
        dtype of x.

    Raises
    ------
    ValueError
        If grid is no pair of integers at least as large as (h, w), or x has no tokens.

    Notes
    -----
    The index is exact integer arithmetic. dx sums dy over the cells a token covers, in a fixed order: cell i
    owns the rows ceil(i H / h) .. ceil((i + 1) H / h) - 1.

    Examples
    --------
    >>> import numpy
    >>> nearest_upsample(numpy.array([[[[1.0], [2.0]]]]), grid=(1, 3))[0, 0, :, 0]
    array([1., 1., 2.])
    """
    f = "nearest_upsample"
    _, h, w, _ = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    if not isinstance(grid, tuple) or len(grid) != 2:
        raise ValueError(f"{f}: grid must be a pair of integers, got {grid!r}")
    for value, own in zip(grid, (h, w)):
        check.integer(f, "grid", value, minimum=1)
        if own < 1 or value < own:
            raise ValueError(
                f"{f}: grid must be at least the grid of x with shape {tuple(x.shape)}, got {grid}"
            )


@op(inputs="x")
def token_mean(x, *, axes=None):
    """Mean over token axes: over all of them for a global pool, over one for strip means.

    Parameters
    ----------
    x : array (b, ..., c)
    axes : tuple of int, optional
        Token axes to average over; by default all.

    Returns
    -------
    array
        x without these axes, dtype of x; sums of half types in float32.

    Raises
    ------
    ValueError
        If an axis is no token axis or is repeated, or there is nothing to average.

    Notes
    -----
    dx = dy / count, repeated along the axes. One read.

    Examples
    --------
    >>> import numpy
    >>> token_mean(numpy.array([[[1.0], [3.0]]]))
    array([[2.]])
    """
    f = "token_mean"
    if x.ndim < 3:
        raise ValueError(f"{f}: x must have at least 3 axes (b, ..., c), got shape {tuple(x.shape)}")
    if axes is not None:
        if not isinstance(axes, tuple) or not axes:
            raise ValueError(f"{f}: axes must be a tuple of token axes, got {axes!r}")
        for axis in axes:
            check.integer(f, "axes", axis)
            if not (-x.ndim <= axis < x.ndim and 0 < axis % x.ndim < x.ndim - 1):
                raise ValueError(f"{f}: axes must be token axes of x with shape {tuple(x.shape)}, got {axes}")
        if len({a % x.ndim for a in axes}) != len(axes):
            raise ValueError(f"{f}: axes must differ, got {axes}")
    averaged = range(1, x.ndim - 1) if axes is None else axes
    if any(x.shape[a] == 0 for a in averaged):
        raise ValueError(f"{f}: x must have at least one token to average over, got shape {tuple(x.shape)}")
