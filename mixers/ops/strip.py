"""Strips of an image: token linears along rows or columns, and biases by the distance to the diagonal."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x", parameters="w b", flops=lambda x, w, **_: 2 * x.size * w.shape[1] * w.shape[2])
def strip_linear(x, w, b=None, *, axis):
    """Linear map along the tokens of a strip and of its neighbours, with weights shared by groups of channels.

    A strip is a row (axis "w") or a column (axis "h"). Channel i J + j of position n in strip s becomes
    y[s, n, i, j] = b[j, n] + sum_{t, m} w[j, t, n, m] x[s + t - k // 2, m, i, j], strips beyond the grid being zero.

    Parameters
    ----------
    x : array (b, h, w, c)
    w : array (J, k, n, n)
        J divides c, so that there are c / J groups; k, odd, strips are read at once; n is the size of the mixed axis.
    b : array (J, n), optional
    axis : {"w", "h"}
        What is mixed: "w" the columns of a row, "h" the rows of a column.

    Returns
    -------
    array
        Shape and dtype of x. For half types the GPU rounds w to it.

    Raises
    ------
    ValueError
        If a shape disagrees, k is even, J does not divide c, or there is no such axis.

    Notes
    -----
    dx is the same map with the taps reversed and each matrix transposed; dw[j, t, n, m] sums dy[s, n] x[s + t -
    k // 2, m] over batch, strips and groups, db[j, n] sums dy. 2 k n flops per element forward, twice that backward.
    Source: Cao et al. 2023, arXiv:2307.11458, section 3.2 (Strip MLP layer, group strip mixing).

    Examples
    --------
    >>> import numpy
    >>> strip_linear(numpy.ones((1, 3, 2, 1)), numpy.ones((1, 3, 2, 2)), axis="w")[0, :, 0, 0]
    array([4., 6., 4.])
    """
    f = "strip_linear"
    _, height, width, c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    check.choice(f, "axis", axis, ("w", "h"))
    n = width if axis == "w" else height
    shared, k, _, _ = check.shape(f, "w", w, J=None, k=None, n_out=n, n_in=n)
    if k % 2 == 0:
        raise ValueError(f"{f}: w must read an odd number of strips, got shape {tuple(w.shape)}")
    if shared < 1 or c % shared:
        raise ValueError(
            f"{f}: w must have a first size that divides the {c} channels of x, got shape {tuple(w.shape)}"
        )
    if b is not None:
        check.shape(f, "b", b, J=shared, n=n)


@op(inputs="x", parameters="table")
def relative_bias(x, table):
    """Add a bias that depends on how far a token is from the diagonal of the grid.

    y[i, k] = x[i, k] + table[clip(k - i, -m, m) + m] for row i and column k.

    Parameters
    ----------
    x : array (b, h, w, c)
    table : array (2 m + 1, c)
        m >= 0: farther tokens share the first or the last row.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees or the table has an even number of rows.

    Notes
    -----
    dx = dy; dtable sums dy over the batch and along diagonals, zero where no token reads. One read, one write.
    Source: Cao et al. 2023, arXiv:2307.11458, section 3.2; official code's relative position embedding.

    Examples
    --------
    >>> import numpy
    >>> relative_bias(numpy.zeros((1, 2, 3, 1)), numpy.array([[1.0], [2.0], [3.0]]))[0, :, :, 0]
    array([[2., 3., 3.],
           [1., 2., 3.]])
    """
    f = "relative_bias"
    c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)[-1]
    rows, _ = check.shape(f, "table", table, **{"2 m + 1": None}, c=c)
    if rows % 2 == 0:
        raise ValueError(f"{f}: table must have an odd number of rows, got shape {tuple(table.shape)}")
