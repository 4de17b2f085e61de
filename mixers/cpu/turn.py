"""Rows of an array turned into lanes, inside kernels, and back."""

from mixers.cpu.runner import routine
from mixers.cpu.simd import lanes, load, load_first, square_tile, store, store_first, transpose


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
