"""Matrix products over the two axes of images on the GPU."""

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

# tokens of a tile along each axis, and tiles of a block
_TILE, _TILES = 4, 8


def spatial_matmul_forward(x, z, save=True):
    return multiply(x, z), ()


def spatial_matmul_backward(dout, saved):
    """As for matrices: dX = dY Z^T, dZ = X^T dY."""
    return multiply(dout, saved.z, exchange_z=True), multiply(saved.x, dout, exchange_x=True)


def multiply(x, z, exchange_x=False, exchange_z=False):
    """y[h, w] = sum_m x[h, m] z[m, w] per item and channel, of x and z as they are or with their axes exchanged."""
    device = device_of(x)
    x, z = device.contiguous(x), device.contiguous(z)
    b, h, m, c = x.shape
    w = z.shape[2]
    x_steps, z_steps = (h * m * c, m * c, c), (z.shape[1] * w * c, w * c, c)
    if exchange_x:
        h, m, x_steps = m, h, (x_steps[0], x_steps[2], x_steps[1])
    if exchange_z:
        w, z_steps = z.shape[1], (z_steps[0], z_steps[2], z_steps[1])
    y = device.empty((b, h, w, c), x.dtype)
    if y.size:
        tiles = -(-h // _TILE) * -(-w // _TILE)
        grid = (b * -(-c // 32) * -(-tiles // _TILES),)
        args = x, z, y, *map(numpy.int32, (h, m, w, c)), *map(numpy.int64, (*x_steps, *z_steps))
        device.launch(Kernel("spatial_product", "spatial.cu", T=c_type(x.dtype)), grid, (32, _TILES), args)
    return y
