"""Average pooling over token windows."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x")
def avg_pool(x, *, size=3, minus_identity=False):
    """Mean over a window around each token, counting only tokens inside the grid; stride 1.

    Parameters
    ----------
    x : array (b, l, c) or (b, h, w, c)
    size : int
        Odd, >= 1; it may exceed the grid. In 2-D the window is square.
    minus_identity : bool
        Subtract x in the same pass (PoolFormer's token mixer).

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If size is even or < 1, or x has another rank.

    Notes
    -----
    With the zero-padded box sum S (self-adjoint) and the window counts n: y = S(x) / n, dx = S(dy / n), minus x
    and dy respectively if asked. One read and one write; nothing is saved besides x's shape.
    Source: Yu et al. 2022, arXiv:2111.11418, eq. 4; official code counts with count_include_pad=False.

    Examples
    --------
    >>> import numpy
    >>> avg_pool(numpy.array([[[1.0], [2.0], [6.0]]]))[0, :, 0]
    array([1.5, 3. , 4. ])
    """
    check.rank("avg_pool", "x", x, (3, 4))
    check.integer("avg_pool", "size", size, minimum=1, odd=True)
    check.boolean("avg_pool", "minus_identity", minus_identity)
