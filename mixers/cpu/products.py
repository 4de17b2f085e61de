"""Products of small matrices inside kernels, for ops whose tasks are chains of such products."""

from mixers.cpu.matrix import fill_panel, fill_panel_transposed, multiply_panel, panel_width
from mixers.cpu.runner import helper, routine

# what is known of the matrices: nothing; the left one is lower triangular, or upper; only the lower triangle of
# the result is wanted
WHOLE, LOWER, UPPER, BELOW = 0, 1, 2, 3
_BY_ROW = 3

# rows of a triangular product that share one depth, and so meet zeros beyond the triangle
_STRIP = 28


@helper
def by_row(shape, finite):
    """LOWER or UPPER; or the same row by row, where the zeros beyond the triangle must not meet what is not finite."""
    return shape if finite else shape + _BY_ROW


@routine
def product(left, right, out, sizes, panel, none, transposed, shape, add):
    """out (rows, columns) = left (rows, depth) right (depth, columns), or add to it.

    left is (array, offset, row step, column step), right and out (array, offset, row step); right is the
    transpose of what is given if `transposed`.
    """
    A, a, a_row, a_column = left
    X, x, x_row = right
    Y, y, y_row = out
    rows, depth, columns = sizes
    width = panel_width(X)
    lower, upper = shape == LOWER or shape == LOWER + _BY_ROW, shape == UPPER or shape == UPPER + _BY_ROW
    for j in range(0, columns, width):
        count = min(width, columns - j)
        if transposed:
            fill_panel_transposed((X, x + j * x_row, x_row), (panel, 0), depth, count)
        else:
            fill_panel((X, x + j, x_row), (panel, 0), depth, count)
        begin = j if shape == BELOW else 0
        strip = max(rows - begin, 1)
        if lower or upper:
            strip = 1 if shape > BELOW else _STRIP
        for i in range(begin, rows, strip):
            here = min(strip, rows - i)
            first = i if upper else 0
            last = min(i + here, depth) if lower else depth
            multiply_panel(
                (A, a + i * a_row + first * a_column, a_row, a_column),
                (panel, first * width),
                none,
                (Y, y + i * y_row + j, y_row),
                here,
                last - first,
                count,
                add,
            )
