"""Orders in which the tokens of a grid are visited, for scans over images.

Each function returns an integer array for the ``order`` of a scan: entry t is the raster index i w + j of
the token that is visited as the t-th.

>>> snake_rows(2, 3)
array([0, 1, 2, 5, 4, 3])
"""

import numpy


def _grid(h, w):
    return numpy.arange(h * w).reshape(h, w)


def _snake(grid):
    """Rows one after the other, every second one backwards."""
    rows = grid.copy()
    rows[1::2] = rows[1::2, ::-1]
    return rows.ravel()


def raster(h, w):
    """Row by row, each from left to right."""
    return _grid(h, w).ravel()


def column(h, w):
    """Column by column, each from the top down."""
    return _grid(h, w).T.ravel()


def snake_rows(h, w):
    """Row by row, alternately to the right and to the left."""
    return _snake(_grid(h, w))


def snake_columns(h, w):
    """Column by column, alternately down and up."""
    return _snake(_grid(h, w).T)


def backwards(order):
    """An order from its last token to its first."""
    return order[::-1].copy()


def flip_rows(order, h, w):
    """The order on the grid turned upside down: row i becomes row h - 1 - i."""
    return (h - 1 - order // w) * w + order % w


def flip_both(order, h, w):
    """The order on the grid turned by half a turn: rows and columns are counted from the other end."""
    return h * w - 1 - order


def atrous(h, w, row, column, by_columns=False):
    """The tokens (2 i + row, 2 j + column) of the grid padded to even sizes, row by row or column by column.

    Unlike the other orders this visits a quarter of the tokens, and the indices are those of the padded grid,
    (i, j) -> i w' + j with w' the even width.

    >>> atrous(3, 4, 1, 0)
    array([ 4,  6, 12, 14])
    """
    part = _grid(h + h % 2, w + w % 2)[row::2, column::2]
    return (part.T if by_columns else part).ravel()


def zigzag(h, w):
    """Along the antidiagonals, alternately up and down, starting to the right: the order of JPEG coefficients.

    >>> zigzag(3, 3)
    array([0, 1, 3, 6, 4, 2, 5, 7, 8])
    """
    row, column = numpy.indices((h, w))
    diagonal = row + column
    along = numpy.where(diagonal % 2 == 1, row, -row)
    return numpy.lexsort((along.ravel(), diagonal.ravel()))
