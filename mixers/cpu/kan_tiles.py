"""Products inside the kernels of Kolmogorov-Arnold attention: a tile of the result in registers.

The left factor is read where it is. Rows of the right factor and of the result are whole vectors, one to three at a
time: with three, a value of the left factor is loaded for three multiply-adds, with one the loads are the limit.
"""

from mixers.cpu.kan_layer import turn
from mixers.cpu.runner import helper, routine
from mixers.cpu.simd import (
    REGISTERS,
    lanes,
    load,
    load_first,
    mul_add,
    scalar,
    store,
    store_first,
    tile,
    zeros,
)

# vectors of a row at most; by vectors, rows of a tile and of the tiles of the rows that are left
WIDE = 3
_TILES = ((14, 6), (14, 6), (8, 4)) if REGISTERS == 32 else ((6, 2), (6, 2), (4, 2))
# steps of a long sum that are packed at once
DEPTH = 64


def _tile_product(rows, vectors):
    """The inner loop for a fixed tile, from row i on; arguments as of :func:`multiply`."""
    count = rows * vectors

    @helper
    def multiply(i, left, right, out, depth, add):
        A, a, a_row, a_column = left
        X, x, x_row = right
        Y, y, y_row = out
        a, y = a + i * a_row, y + i * y_row
        total = tile(Y, count)
        if add:
            for r in range(rows):
                for v in range(vectors):
                    total[r * vectors + v] = load(Y, y + r * y_row + v * lanes(Y))
        else:
            for r in range(count):
                total[r] = zeros(Y)
        for k in range(depth):
            for r in range(rows):
                factor = scalar(A, a + r * a_row + k * a_column)
                for v in range(vectors):
                    value = load(X, x + k * x_row + v * lanes(X))
                    total[r * vectors + v] = mul_add(factor, value, total[r * vectors + v])
        for r in range(rows):
            for v in range(vectors):
                store(Y, y + r * y_row + v * lanes(Y), total[r * vectors + v])

    return multiply


def _product(vectors):
    """Products whose rows have this number of vectors; arguments as of :func:`multiply`."""
    rows_of_many, rows_of_few = _TILES[vectors - 1]
    many, few, one = (_tile_product(rows, vectors) for rows in (rows_of_many, rows_of_few, 1))

    @helper
    def multiply(left, right, out, rows, depth, add):
        first = rows - rows % rows_of_many
        second = rows - (rows - first) % rows_of_few
        for i in range(0, first, rows_of_many):
            many(i, left, right, out, depth, add)
        for i in range(first, second, rows_of_few):
            few(i, left, right, out, depth, add)
        for i in range(second, rows):
            one(i, left, right, out, depth, add)

    return multiply


_one, _two, _three = (_product(vectors) for vectors in (1, 2, 3))


@routine
def multiply(left, right, out, rows, depth, vectors, add):
    """out[i] = sum_k left[i, k] right[k], rows of one vector to three; or add to it.

    left is (array, offset, step from row to row, step from column to column), right and out (array, offset, step
    from row to row).
    """
    if vectors == 3:
        _three(left, right, out, rows, depth, add)
    elif vectors == 2:
        _two(left, right, out, rows, depth, add)
    else:
        _one(left, right, out, rows, depth, add)


@routine
def multiply_rows(left, right, out, rows, depth, width, add):
    """:func:`multiply` with rows of any width of whole vectors."""
    X, x, x_row = right
    Y, y, y_row = out
    vectors = width // lanes(Y)
    blocks = -(-vectors // WIDE)
    for block in range(blocks):
        first, last = block * vectors // blocks, (block + 1) * vectors // blocks
        c = first * lanes(Y)
        multiply(left, (X, x + c, x_row), (Y, y + c, y_row), rows, depth, last - first, add)


@routine
def pack(x, start, step, rows, d, out, width):
    """Rows of d values as rows of `width` values that end with zeros."""
    for i in range(rows):
        for c in range(0, d, lanes(x)):
            if d - c >= lanes(x):
                store(out, i * width + c, load(x, start + i * step + c))
            else:
                store(out, i * width + c, load_first(x, start + i * step + c, d - c))


@routine
def unpack(x, x_row, rows, d, out, at, step):
    """Rows of d values to where they belong."""
    for i in range(rows):
        for c in range(0, d, lanes(x)):
            value = load(x, i * x_row + c)
            if d - c >= lanes(x):
                store(out, at + i * step + c, value)
            else:
                store_first(out, at + i * step + c, value, d - c)


@routine
def project(left, x, x_start, x_step, rows, n, d, packed, out, width):
    """out[p] = sum_j left[p, j] x[j], rows of `width` values, for p < rows and j < n."""
    A, a, a_row, a_column = left
    for j in range(0, n, DEPTH):
        depth = min(DEPTH, n - j)
        pack(x, x_start + j * x_step, x_step, depth, d, packed, width)
        part = A, a + j * a_column, a_row, a_column
        multiply_rows(part, (packed, 0, width), (out, 0, width), rows, depth, width, j > 0)


@routine
def transpose(x, rows, width, columns, out, depth):
    """out[c, i] = x[i, c] for c < columns, with zeros from column `rows` to `depth`."""
    for c in range(columns):
        for i in range(rows):
            out[c * depth + i] = x[i * width + c]
        for i in range(rows, depth):
            out[c * depth + i] = x.dtype.type(0)


@routine
def side_by_side(x, start, step, rows, columns, factor, out, wide):
    """Rows in the lanes of a strip: out[e, lane] = factor x[lane, e], zero in the lanes beyond."""
    turn((x, start, step), (out, 0), rows, columns, wide)
    for e in range(0, columns * wide, lanes(out)):
        store(out, e, load(out, e) * factor)


@helper
def clear(x, start, size):
    for i in range(start, start + size, lanes(x)):
        store(x, i, zeros(x))
