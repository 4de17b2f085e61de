"""Sums over many rows, in a fixed order."""

import math

from mixers.cpu import aligned
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, store, store_first, tile, zeros

# rows that are summed one after the other, such blocks per task, vectors side by side, and columns per task
_ROWS = 64
_BLOCKS = 8
_WIDTH = 8
_COLUMNS = 1 << 15


@helper
def _block_sum(x, partial, columns, begin, end, block, first, last):
    """partial[block] = the sum of the rows of x from first to last, at the columns from begin to end."""
    full = end - (end - begin) % (_WIDTH * lanes(x))
    for start in range(begin, full, _WIDTH * lanes(x)):
        total = tile(x, _WIDTH)
        for v in range(_WIDTH):
            total[v] = zeros(x)
        for row in range(first, last):
            for v in range(_WIDTH):
                total[v] = total[v] + load(x, row * columns + start + v * lanes(x))
        for v in range(_WIDTH):
            store(partial, block * columns + start + v * lanes(x), total[v])
    for start in range(full, end, lanes(x)):
        count = min(lanes(x), end - start)
        rest = zeros(x)
        for row in range(first, last):
            rest = rest + load_first(x, row * columns + start, count)
        store_first(partial, block * columns + start, rest, count)


@kernel
def _block_sums(x, partial, rows, columns, counter):
    blocks, across = -(-rows // _ROWS), -(-columns // _COLUMNS)
    for task in tasks(counter):
        begin, first = task % across * _COLUMNS, task // across * _BLOCKS
        end = min(begin + _COLUMNS, columns)
        for block in range(first, min(first + _BLOCKS, blocks)):
            _block_sum(x, partial, columns, begin, end, block, block * _ROWS, min((block + 1) * _ROWS, rows))


def sum_rows(x):
    """The sum of x (rows, columns) over its rows, for instance the gradient of a bias.

    Blocks of rows are summed first, then the sums of the blocks, so that rounding errors stay those of some
    hundred additions.
    """
    rows, columns = x.shape
    if not x.size:
        return aligned.zeros(columns, x.dtype)
    if rows == 1:
        return x[0].copy()
    while rows > 1:
        blocks = -(-rows // _ROWS)
        partial = aligned.empty((blocks, columns), x.dtype)
        args = aligned.flat(x), partial.reshape(-1), rows, columns
        run(_block_sums, -(-blocks // _BLOCKS) * -(-columns // _COLUMNS), *args, work=2 * x.size)
        x, rows = partial, blocks
    return x[0]


def sum_to_shape(array, shape):
    """The array summed over the axes along which `shape` was broadcast; always a fresh array."""
    shape = tuple(shape)
    leading = array.ndim - len(shape)
    summed = [i for i, n in enumerate(array.shape) if i < leading or (shape[i - leading] == 1 != n)]
    rest = math.prod(array.shape[len(summed) :])
    if summed == list(range(len(summed))) and summed and rest > 1:
        return sum_rows(array.reshape(-1, rest)).reshape(shape)
    if not summed:
        copy = aligned.empty(shape, array.dtype)
        copy[...] = array
        return copy
    # NumPy adds in an order that depends on the strides
    return aligned.contiguous(array).sum(axis=tuple(summed)).reshape(shape)
