"""Matrix products over the two axes of images: the channels are in the lanes, a tile of tokens in registers."""

from mixers.cpu.aligned import empty, flat
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import REGISTERS, lanes, mul_add, tile, zeros
from mixers.cpu.tails import get, put

# rows and columns of a tile
_ROWS, _COLUMNS = (6, 4) if REGISTERS >= 32 else (4, 2)
_TILE = _ROWS * _COLUMNS


def spatial_matmul_forward(x, z, save=True):
    return multiply(x, z), ()


def spatial_matmul_backward(dout, saved):
    """As for matrices: dX = dY Z^T, dZ = X^T dY."""
    return multiply(dout, saved.z.swapaxes(1, 2)), multiply(saved.x.swapaxes(1, 2), dout)


def multiply(x, z):
    """y[h, w] = sum_m x[h, m] z[m, w] per item and channel; x (b, h, m, c), z (b, m, w, c)."""
    (b, h, m, c), w = x.shape, z.shape[2]
    y = empty((b, h, w, c), x.dtype)
    if y.size:
        x, x_steps = _strided(x)
        z, z_steps = _strided(z)
        tiles = -(-h // _ROWS)
        count = b * -(-c // lanes(y)) * tiles
        run(_multiply, count, x, z, y.reshape(-1), (h, m, w, c), x_steps, z_steps, work=y.size * m)
    return y


def _strided(x):
    """The values of an image, or of one with its axes exchanged, and the steps between items, rows and columns."""
    _, h, w, c = x.shape
    if x.swapaxes(1, 2).flags.c_contiguous and not x.flags.c_contiguous:
        return flat(x.swapaxes(1, 2)), (h * w * c, c, h * c)
    return flat(x), (h * w * c, w * c, c)


@helper
def _tile(x, z, y, a, b, out, rows, columns, m, x_steps, z_steps, y_steps, count):
    """One tile; rows and columns that are missing repeat the last one."""
    sums, left = tile(x, _TILE), tile(x, _ROWS)
    for i in range(_TILE):
        sums[i] = zeros(x)
    for k in range(m):
        for i in range(_ROWS):
            left[i] = get(x, a + min(i, rows - 1) * x_steps[1] + k * x_steps[2], count)
        for j in range(_COLUMNS):
            right = get(z, b + k * z_steps[1] + min(j, columns - 1) * z_steps[2], count)
            for i in range(_ROWS):
                sums[i * _COLUMNS + j] = mul_add(left[i], right, sums[i * _COLUMNS + j])
    for i in range(_ROWS):
        for j in range(_COLUMNS):
            if i < rows and j < columns:
                put(y, out + i * y_steps[0] + j * y_steps[1], sums[i * _COLUMNS + j], count)


@kernel
def _multiply(x, z, y, shape, x_steps, z_steps, counter):
    """A strip of _ROWS rows of one item and one vector of channels per task."""
    h, m, w, c = shape
    strips, blocks = -(-h // _ROWS), -(-c // lanes(x))
    for task in tasks(counter):
        strip, block, item = task % strips, task // strips % blocks, task // strips // blocks
        row, channel = strip * _ROWS, block * lanes(x)
        count = min(lanes(x), c - channel)
        for column in range(0, w, _COLUMNS):
            a = item * x_steps[0] + row * x_steps[1] + channel
            b = item * z_steps[0] + column * z_steps[2] + channel
            out = ((item * h + row) * w + column) * c + channel
            sizes = min(_ROWS, h - row), min(_COLUMNS, w - column)
            if count == lanes(x):
                _tile(x, z, y, a, b, out, *sizes, m, x_steps, z_steps, (w * c, c), lanes(x))
            else:
                _tile(x, z, y, a, b, out, *sizes, m, x_steps, z_steps, (w * c, c), count)
