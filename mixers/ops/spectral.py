"""Discrete cosine transforms along grid axes."""

import math

from mixers import _checks as check
from mixers.op import op


def _flops(x, axes, **_):
    lengths = [x.shape[a] for a in (range(1, x.ndim - 1) if axes is None else axes)]
    return 2.5 * x.size * sum(math.log2(max(n, 2)) for n in lengths)


@op(inputs="x", flops=_flops)
def dct(x, *, axes=None):
    """Orthonormal DCT-II along one or two token axes.

    F[k] = s_k sqrt(2 / n) sum_m cos(pi (m + 1/2) k / n) x[m],  s_0 = 1 / sqrt 2, else 1.

    Parameters
    ----------
    x : array (b, ..., c)
        Batch first, channels last.
    axes : tuple of int, optional
        Token axes to transform; by default all (at most two).

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If an axis is no token axis, is repeated, or there are more than two.

    Notes
    -----
    The transform is orthogonal: its inverse and its adjoint are :data:`idct`; nothing is saved.
    2.5 log2(n) flops per value and axis as a fast transform, about n as the dense product of short axes.
    Equal to scipy.fft.dctn(x, type=2, norm="ortho", axes=axes).
    Source: Ahmed, Natarajan & Rao 1974, IEEE Trans. Computers C-23, 90-93.

    Examples
    --------
    >>> import numpy
    >>> dct(numpy.ones((1, 4, 1)))[0, :, 0].round(12)
    array([2., 0., 0., 0.])
    """
    _axes("dct", x, axes)


@op(inputs="x", flops=_flops)
def idct(x, *, axes=None):
    """Orthonormal DCT-III, the inverse and adjoint of :data:`dct`; same arguments and errors."""
    _axes("idct", x, axes)


def _axes(function, x, axes):
    check.rank(function, "x", x, (3, 4))
    if axes is None:
        return
    if not isinstance(axes, tuple) or not 1 <= len(axes) <= 2:
        raise ValueError(f"{function}: axes must be a tuple of one or two token axes, got {axes!r}")
    for axis in axes:
        check.integer(function, "axes", axis)
        if not (-x.ndim <= axis < x.ndim and 0 < axis % x.ndim < x.ndim - 1):
            raise ValueError(
                f"{function}: axes must be token axes of x with shape {tuple(x.shape)}, got {axes}"
            )
    if len({a % x.ndim for a in axes}) != len(axes):
        raise ValueError(f"{function}: axes must differ, got {axes}")
