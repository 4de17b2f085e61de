"""Rows of an array turned into lanes, inside kernels, and back; copies of turned matrices."""

from mixers.cpu.runner import kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load, load_first, square_tile, store, store_first, transpose

# rows of a task of a copy
_ROWS = 64


@routine
def turn(source, out, rows, columns, stride):
    """out[j stride + r] = source[r, j] for r < rows and j < columns; zero for further r below the stride.

    `source` is (array, offset, step from row to row), `out` (array, offset), the stride whole vectors.
    """
    (X, x, x_row), (P, p) = source, out
    n = lanes(P)
    square = square_tile(P)
    for first in range(0, stride, n):
        for j in range(0, columns, n):
            inside = min(n, columns - j)
            for r in range(n):
                count = inside if first + r < rows else 0
                square[r] = load_first(X, x + (first + r) * x_row + j, count)
            transpose(square)
            for i in range(inside):
                store(P, p + (j + i) * stride + first, square[i])


@routine
def turn_back(source, out, rows, columns, stride):
    """out[r, j] = source[j stride + r] for r < rows and j < columns; `out` is (array, offset, row step)."""
    (P, p), (X, x, x_row) = source, out
    n = lanes(P)
    square = square_tile(P)
    for first in range(0, rows, n):
        for j in range(0, columns, n):
            inside = min(n, columns - j)
            for i in range(n):
                square[i] = load(P, p + (j + min(i, inside - 1)) * stride + first)
            transpose(square)
            for r in range(min(n, rows - first)):
                store_first(X, x + (first + r) * x_row + j, square[r], inside)


@kernel
def _copy(x, y, rows, columns, counter):
    n = lanes(x)
    square = square_tile(x)
    blocks = -(-rows // _ROWS)
    for task in tasks(counter):
        item, begin = task // blocks * rows * columns, task % blocks * _ROWS
        for first in range(begin, min(begin + _ROWS, rows), n):
            count = min(n, rows - first)
            for j in range(0, columns, n):
                inside = min(n, columns - j)
                for r in range(n):
                    square[r] = load_first(x, item + (first + r) * columns + j, inside if r < count else 0)
                transpose(square)
                for i in range(inside):
                    if count == n:
                        store(y, item + (j + i) * rows + first, square[i])
                    else:
                        store_first(y, item + (j + i) * rows + first, square[i], count)


def copy_turned(x, y):
    """y[i] = x[i]^T for the matrices of x (b, rows, columns) and y (b, columns, rows), both contiguous."""
    b, rows, columns = x.shape
    args = x.reshape(-1), y.reshape(-1), rows, columns
    run(_copy, b * -(-rows // _ROWS), *args, work=2 * x.size)
