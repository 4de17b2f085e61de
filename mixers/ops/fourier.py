"""Discrete Fourier transforms of real arrays."""

import math

from mixers import _checks as check
from mixers.op import op


def _flops(size, n):
    return 2.5 * size * math.log2(max(n, 2))


@op(inputs="x", flops=lambda x, **_: _flops(x.size, x.shape[1] * x.shape[2]))
def fourier_real(x):
    """Real part of the discrete Fourier transform over tokens and channels.

    y[n, k] = sum_{m, j} x[m, j] cos(2 pi (n m / l + k j / c)).

    Parameters
    ----------
    x : array (b, l, c)

    Returns
    -------
    array (b, l, c)
        dtype of x; about sqrt(l c) times as large as x, which float16 may not hold.

    Raises
    ------
    ValueError
        If x has another number of axes.

    Notes
    -----
    The map is symmetric: the gradient is the same transform of dy, and nothing is saved. Twice gives l c times the
    mean of x and its reflection, x[-m, -j].
    About 2.5 log2(l c) flops per value. NaN and Inf spread over their batch item.
    Source: Lee-Thorp et al. 2021, arXiv:2105.03824, equation 3.

    Examples
    --------
    >>> import numpy
    >>> fourier_real(numpy.array([[[1.0, 0.0], [0.0, 0.0]]]))[0]
    array([[1., 1.],
           [1., 1.]])
    """
    check.rank("fourier_real", "x", x, (3,))


def _rfft_flops(x, **_):
    return _flops(x.size, math.prod(x.shape[1:-1]))


@op(inputs="x", outputs="re im", flops=_rfft_flops)
def rfft(x, *, rows=None, columns=None):
    """Orthonormal Fourier transform over the token axes, the half of it that determines the rest.

    X[i, k] = 1 / sqrt(h w) sum_{p, q} x[p, q] exp(-2 pi i (i p / h + k q / w)), k = 0 .. w // 2, as
    numpy.fft.rfft2(x, axes=(1, 2), norm="ortho"); one sum for a sequence.

    Parameters
    ----------
    x : array (b, l, c) or (b, h, w, c)
        Any sizes >= 1.
    rows : (int, int), optional
        Only the frequencies i with first <= i < stop; by default all. For images.
    columns : int, optional
        Only the first so many frequencies of the last token axis; by default all.

    Returns
    -------
    re, im : array (b, k, c) or (b, i, k, c)
        re has the dtype of x, im is float32 or float64: convert half types to float32 before.

    Raises
    ------
    ValueError
        If there are no tokens, or a choice of frequencies is out of range.

    Notes
    -----
    dx = irfft(D / n), n = 1 for columns 0 and w / 2 of the spectrum and 2 for the others.
    About 2.5 log2(h w) flops per value.

    Examples
    --------
    >>> import numpy
    >>> X = rfft(numpy.array([[[1.0], [1.0], [1.0], [1.0]]]), columns=2)
    >>> X.re[0, :, 0], X.im[0, :, 0]
    (array([2., 0.]), array([0., 0.]))
    """
    f = "rfft"
    check.rank(f, "x", x, (3, 4))
    grid = x.shape[1:-1]
    if 0 in grid:
        raise ValueError(f"{f}: x must have at least one token, got shape {tuple(x.shape)}")
    if columns is not None:
        check.integer(f, "columns", columns, minimum=0)
        if columns > grid[-1] // 2 + 1:
            raise ValueError(f"{f}: columns must be at most {grid[-1] // 2 + 1}, got {columns}")
    if rows is not None:
        _rows(f, rows, grid)


@op(inputs="re", parameters="im", flops=lambda re, grid, **_: _flops(re.size * 2, math.prod(grid)))
def irfft(re, im, *, grid, rows=None):
    """Orthonormal inverse of :data:`rfft`; frequencies that are not given count as zero.

    x[p, q] = 1 / sqrt(h w) sum_{i, k} n_k Re(X[i, k] exp(2 pi i (i p / h + k q / w))), n_k = 1 for k = 0 and k = w / 2,
    else 2, as numpy.fft.irfft2(X, s=grid, axes=(1, 2), norm="ortho").

    Parameters
    ----------
    re, im : array (b, k, c) or (b, i, k, c)
        The first frequencies of the last token axis, at most w // 2 + 1.
    grid : (int,) or (int, int)
        Tokens (l,) or (h, w) of the result.
    rows : (int, int), optional
        Which frequencies i are given, first <= i < stop; by default all. For images.

    Returns
    -------
    array (b, *grid, c)
        dtype of re.

    Raises
    ------
    ValueError
        If shapes, grid and rows disagree.

    Notes
    -----
    What columns 0 and w / 2 hold beyond the symmetry of a real signal's spectrum is ignored. The gradient is n
    times rfft(dx).

    Examples
    --------
    >>> import numpy
    >>> irfft(numpy.array([[[2.0]]]), numpy.array([[[0.0]]]), grid=(4,))[0, :, 0]
    array([1., 1., 1., 1.])
    """
    f = "irfft"
    check.rank(f, "re", re, (3, 4))
    check.shape(f, "im", im, **dict(zip("bikc" if re.ndim == 4 else "bkc", re.shape)))
    grid = check.grid(f, grid, ranks=(re.ndim - 2,))
    if re.shape[-2] > grid[-1] // 2 + 1:
        raise ValueError(
            f"{f}: re must have at most {grid[-1] // 2 + 1} columns, got shape {tuple(re.shape)}"
        )
    first, stop = (0, grid[0]) if rows is None else _rows(f, rows, grid)
    if re.ndim == 4 and re.shape[1] != stop - first:
        raise ValueError(f"{f}: re must have {stop - first} rows, got shape {tuple(re.shape)}")


def _rows(function, rows, grid):
    first, stop = check.pair(function, "rows", rows, minimum=0)
    if len(grid) != 2 or not first <= stop <= grid[0]:
        raise ValueError(
            f"{function}: rows must be a range of the rows of an image, got {rows} for grid {grid}"
        )
    return first, stop
