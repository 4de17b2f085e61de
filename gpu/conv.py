"""Short convolutions on the GPU.

Square kernels of 3, 5 and 7 that keep the grid go through a ring of rows in shared memory, compiled for the
width of the grid; the causal convolution of 2 to 4 taps keeps its last inputs in registers; all others have one
plain kernel per direction.
"""

import functools
from collections import namedtuple
from typing import NamedTuple

import numpy

from mixers import causal_conv
from mixers.gpu.device import Kernel, c_type, device_of
from mixers.gpu.elementwise import silu_backward, silu_forward

_FILE = "conv.cu"
_THREADS = 256

# columns and threads of a block of the ring kernels, about; half as many for float64
_SPAN = 64
_RING_THREADS = 128
_REGISTERS = 65536

# kernel sizes of the causal convolution that fit registers, and the threads of its blocks
_SHORT = (2, 3, 4)
_CAUSAL_THREADS = 128

_GRID = numpy.dtype([(n, "i4") for n in "h w c out_h out_w kh kw dilation top left".split()])

# what the backward of an activation asks of its saved values
_Activated = namedtuple("_Activated", "x")


def depthwise_conv2d_forward(x, w, b=None, dilation=1, padding="same", save=True):
    (top, bottom), (left, right) = _padding(w.shape, dilation, padding)
    h = x.shape[1] + top + bottom - dilation * (w.shape[0] - 1)
    width = x.shape[2] + left + right - dilation * (w.shape[1] - 1)
    return _convolve(x, w, b, dilation, (top, left), (h, width)), ()


def depthwise_conv2d_backward(dout, saved):
    """dx is a convolution with the flipped kernel, whose padding is what the forward's lacks to the reach."""
    x, w, b, dilation = saved.x, saved.w, saved.b, saved.dilation
    (top, _), (left, _) = _padding(w.shape, dilation, saved.padding)
    ring = _ring(x, w, dilation, (top, left), dout.shape[1:3])
    if ring is not None:
        dx, sums = _ring_backward(ring, x, w, dout)
    else:
        rest = dilation * (w.shape[0] - 1) - top, dilation * (w.shape[1] - 1) - left
        dx = _any_convolve(dout, w, None, dilation, rest, x.shape[1:3], flip=True)
        sums = _any_weights(x, dout, w.shape, dilation, (top, left))
    return dx, sums[:-1].reshape(w.shape), None if b is None else sums[-1]


def _padding(kernel, dilation, padding):
    """((top, bottom), (left, right)); "same" puts the odd row or column of an even kernel at the end."""
    if padding != "same":
        return padding
    reach = [dilation * (k - 1) for k in kernel[:2]]
    return tuple((r // 2, r - r // 2) for r in reach)


def _convolve(x, w, b, dilation, start, out):
    """The convolution with `start` = (top, left) rows and columns of zeros before the grid, maybe negative."""
    ring = _ring(x, w, dilation, start, out)
    if ring is not None:
        return _ring_convolve(ring, x, w, b, flip=False)
    return _any_convolve(x, w, b, dilation, start, out, flip=False)


class _Ring(NamedTuple):
    """Geometry of the ring kernels: macros, and how a grid is cut into blocks."""

    taps: int
    tile: int
    tiles: int
    channels: int
    width: int
    rows: int
    images: int  # of a block, where it sums over them
    cuts: int  # blocks of pixels of an image
    groups: int  # blocks of channels

    def kernel(self, name, number, x, registers, **macros):
        """A kernel of the file's part `number` that needs about so many registers."""
        size = numpy.dtype(x.dtype).itemsize
        registers = max(80, registers) * (2 if size == 8 else 1)
        sizes = {"TAPS": self.taps, "TILE": self.tile, "TILES": self.tiles, "CHANNELS": self.channels}
        resident = max(1, min(16, _REGISTERS // (self.channels * self.tiles * registers)))
        return Kernel(
            name, _FILE, T=c_type(x.dtype), RING=number, **sizes, WIDTH=self.width, BLOCKS=resident, **macros
        )

    def shared(self, x, rows, rows_without_halo=0):
        """Bytes of shared memory for so many rows, and for the sums of the tiles."""
        span = self.tile * self.tiles
        cells = (rows * (span + self.taps - 1) + rows_without_halo * span) * self.channels
        sums = self.tiles * self.taps * self.channels * _wide(x).itemsize
        return max(cells * x.dtype.itemsize, sums)


def _ring(x, w, dilation, start, out):
    """The geometry if the ring kernels can do it, else None."""
    (batch, h, width, c), (kh, kw, _) = x.shape, w.shape
    fits = kh == kw and kh in (3, 5, 7) and dilation == 1 and tuple(start) == (kh // 2, kh // 2)
    if not fits or tuple(out) != (h, width) or not x.size or width * c >= 1 << 31:
        return None
    device = device_of(x)
    ring = _geometry(batch, h, width, c, kh, 2 if x.dtype.itemsize == 8 else 1, device.sm_count)
    return ring if ring.shared(x, 2, 8) <= device.max_shared else None


@functools.lru_cache(maxsize=256)
def _geometry(batch, h, width, c, taps, words, sm_count):
    across = -(-width // (_SPAN // words))
    share = -(-width // across)
    # measured for 7; tiles of 4 read almost as much as they compute
    penalty = {7: 1.0, 8: 1.02, 4: 1.25}
    tile = min(penalty, key=lambda tile: -(-share // tile) * tile * penalty[tile])
    tiles = -(-share // tile)
    channels = 16
    while channels * tiles % 32 or (channels * tiles < _RING_THREADS // words and channels < c):
        channels *= 2
    across, groups = -(-width // (tile * tiles)), -(-c // channels)
    blocks = batch * across * groups
    # cutting rows costs the reach of the kernel anew: only for too few blocks
    down = max(1, min(-(-2 * sm_count // blocks), h // 8))
    rows = -(-h // down)
    # several images for small ones, whose sums would weigh more than they do, as long as there are blocks
    images = max(1, min(-(-4 * (taps * taps + 1) // (h * width)), blocks // (2 * sm_count)))
    cuts = across * -(-h // rows)
    return _Ring(taps, tile, tiles, channels, width if across == 1 else 0, rows, images, cuts, groups)


def _ring_convolve(ring, x, w, b, flip):
    device, ahead = device_of(x), 3
    y = device.empty(x.shape, x.dtype)
    k, tile = ring.taps, ring.tile
    registers = k * k + k * tile + tile + k + 16
    kernel = ring.kernel("ring_convolve", 1, x, registers, AHEAD=ahead, FLIP=int(flip))
    arrays = device.contiguous(x), device.contiguous(w), None if b is None else device.contiguous(b), y
    sizes = *x.shape, ring.rows
    _launch_ring(device, kernel, ring, x.shape[0] * ring.cuts, arrays, sizes, ring.shared(x, ahead + 1))
    return y


def _ring_backward(ring, x, w, dy):
    """dx, and the sums dw and db as (k k + 1, c): in one kernel for 3 x 3, which is bound by memory."""
    device = device_of(x)
    k, tile = ring.taps, ring.tile
    parts = -(-x.shape[0] // ring.images) * ring.cuts
    partial = device.empty((parts, k * k + 1, x.shape[3]), _wide(x))
    if k == 3 and ring.shared(x, 4 + 8) <= device.max_shared:
        dx = device.empty(x.shape, x.dtype)
        kernel = ring.kernel("ring_backward", 3, x, 128, AHEAD=2)
        arrays = *map(device.contiguous, (x, w, dy)), dx, partial
        shared = ring.shared(x, 4 + 8)
    else:
        dx = _ring_convolve(ring, dy, w, None, flip=True)
        kernel = ring.kernel("ring_weights", 2, x, k * k + 2 * tile + k + 34)
        arrays = *map(device.contiguous, (x, dy)), partial
        shared = ring.shared(x, 2, 8)
    _launch_ring(device, kernel, ring, parts, arrays, (*x.shape, ring.images, ring.rows), shared)
    return dx, _sum_parts(device, kernel, partial)


def _launch_ring(device, kernel, ring, parts, arrays, sizes, shared):
    args = *arrays, *map(numpy.int32, sizes)
    device.launch(kernel, (parts * ring.groups,), (ring.channels * ring.tiles,), args, shared)


def _any_convolve(x, w, b, dilation, start, out, flip):
    device = device_of(x)
    y = device.empty((x.shape[0], *out, x.shape[3]), x.dtype)
    if y.size:
        threads = x.shape[0] * out[0] * -(-out[1] // 4) * x.shape[3]
        bias = None if b is None else device.contiguous(b)
        grid = _grid(x, out, w.shape, dilation, start)
        args = (
            device.contiguous(x),
            device.contiguous(w),
            bias,
            y,
            numpy.int64(threads),
            grid,
            numpy.bool_(flip),
        )
        kernel = Kernel("any_convolve", _FILE, T=c_type(x.dtype))
        device.launch(kernel, (-(-threads // _THREADS),), (_THREADS,), args)
    return y


def _any_weights(x, dy, kernel, dilation, start):
    """dw and db as (kh kw + 1, c)."""
    device, c, taps = device_of(x), x.shape[3], kernel[0] * kernel[1] + 1
    rows = dy.shape[0] * dy.shape[1]
    if not dy.size:
        return device.zeros((taps, c), _wide(x))
    others = taps * -(-c // 32)
    parts = max(1, min(4 * device.sm_count // others, rows // 32))
    rows_per_part = -(-rows // parts)
    parts = -(-rows // rows_per_part)
    partial = device.empty((parts, taps, c), _wide(x))
    grid = _grid(x, dy.shape[1:3], kernel, dilation, start)
    weights = Kernel("any_weights", _FILE, T=c_type(x.dtype))
    args = (
        device.contiguous(x),
        device.contiguous(dy),
        partial,
        numpy.int64(rows),
        numpy.int32(rows_per_part),
        grid,
    )
    device.launch(weights, (parts * taps, -(-c // 32)), (32, 8), args)
    return _sum_parts(device, weights, partial)


def _grid(x, out, kernel, dilation, start):
    """The C struct of sizes."""
    return numpy.array((*x.shape[1:], *out, *kernel[:2], dilation, *start), _GRID)[()]


def _sum_parts(device, kernel, partial):
    """The sum over the first axis, in order; the kernel is taken from the module that made the parts."""
    if len(partial) == 1:
        return partial[0]
    total = device.empty(partial.shape[1:], partial.dtype)
    if total.size:
        sums = Kernel("sum_parts", kernel.file, **dict(kernel.defines))
        args = partial, total, numpy.int32(len(partial)), numpy.int32(total.size)
        device.launch(sums, (-(-total.size // _THREADS),), (_THREADS,), args)
    return total


def causal_conv1d_forward(save=True, **arguments):
    return causal_conv.forward(_KERNELS, **arguments)


def causal_conv1d_backward(dout, saved):
    return causal_conv.backward(_KERNELS, dout, saved)


def causal_conv1d_update_forward(save=True, **arguments):
    return causal_conv.update_forward(_KERNELS, **arguments)


def causal_conv1d_update_backward(dout, saved):
    return causal_conv.update_backward(_KERNELS, dout, saved)


def _causal(x, w, b, activation, state):
    """y of the convolution; `state` has k - 1 rows or is None."""
    k = w.shape[0]
    if k not in _SHORT:
        p = _long_causal(x, w, b, state)
        return silu_forward(p)[0] if activation == "silu" else p
    device = device_of(x)
    y = device.empty(x.shape, x.dtype)
    if x.size:
        items = max(1, 4 // x.dtype.itemsize)
        kernel = _causal_kernel("causal_forward", x, k, items, 8, activation)
        arrays = *_contiguous(device, x, w, b, state), y
        _launch_causal(device, kernel, x, items, 16, arrays)
    return y


def _causal_backward(dy, x, w, b, activation, state):
    """dx, dw, db and dstate for the cotangent of y, which may be None."""
    device, k, c = device_of(x), *w.shape
    if dy is None or not x.size:
        zeros = lambda a, dtype: None if a is None else device.zeros(a.shape, dtype)
        return zeros(x, x.dtype), *(zeros(a, _wide(x)) for a in (w, b, state))
    if k not in _SHORT:
        return _long_causal_backward(dy, x, w, b, activation, state)
    items = 2 if x.dtype.itemsize == 8 else 4
    # long strips repeat little, short ones give more blocks
    tokens = 256
    blocks = x.shape[0] * -(-c // (_CAUSAL_THREADS * items))
    while tokens > 32 and blocks * -(-x.shape[1] // tokens) < 2 * device.sm_count:
        tokens //= 2
    dx = device.empty(x.shape, x.dtype)
    dstate = None if state is None else device.empty(state.shape, state.dtype)
    partial = device.empty((x.shape[0] * -(-x.shape[1] // tokens), k + 1, c), _wide(x))
    kernel = _causal_kernel("causal_backward", x, k, items, 4, activation)
    arrays = *_contiguous(device, x, w, b, state, dy), dx, dstate, partial
    _launch_causal(device, kernel, x, items, tokens, arrays)
    total = _sum_parts(device, kernel, partial)
    return dx, total[:k], None if b is None else total[k], dstate


def _causal_kernel(name, x, taps, items, group, activation):
    macros = {"TAPS": taps, "ITEMS": items, "GROUP": group, "SILU": int(activation == "silu")}
    return Kernel(name, _FILE, T=c_type(x.dtype), **macros)


def _launch_causal(device, kernel, x, items, tokens, arrays):
    batch, l, c = x.shape
    blocks = batch * -(-l // tokens) * -(-c // (_CAUSAL_THREADS * items))
    sizes = map(numpy.int32, (l, c, tokens))
    device.launch(kernel, (blocks,), (_CAUSAL_THREADS,), (*arrays, *sizes))


def _contiguous(device, *arrays):
    return (None if a is None else device.contiguous(a) for a in arrays)


def _long_causal(x, w, b, state):
    """p for other kernel sizes, in the compute dtype: X is an image of one row."""
    history = _image(x, w, state)
    return _convolve(history, w[None], b, 1, (0, 0), (1, x.shape[1])).reshape(x.shape)


def _long_causal_backward(dy, x, w, b, activation, state):
    k, c = w.shape
    g = dy.astype(_wide(x), copy=False)
    if activation == "silu":
        [g] = silu_backward(g, _Activated(_long_causal(x, w, b, state)))
    history, g = _image(x, w, state), g[:, None]
    dhistory = _any_convolve(g, w[None], None, 1, (0, k - 1), history.shape[1:3], flip=True)[:, 0]
    sums = _any_weights(history, g, (1, k, c), 1, (0, 0))
    dx = dhistory[:, k - 1 :].astype(x.dtype)
    dstate = None if state is None else dhistory[:, : k - 1].copy()
    return dx, sums[:-1], None if b is None else sums[-1], dstate


def _image(x, w, state):
    """X = (state or zeros, x) as (b, 1, k - 1 + l, c) in the compute dtype."""
    batch, l, c = x.shape
    before = w.shape[0] - 1
    history = device_of(x).zeros((batch, 1, before + l, c), _wide(x))
    history[:, 0, before:] = x
    if state is not None:
        history[:, 0, :before] = state
    return history


def _wide(array):
    return numpy.dtype(numpy.float64 if array.dtype == numpy.float64 else numpy.float32)


_KERNELS = causal_conv.Kernels(_causal, _causal_backward, silu_forward, silu_backward)
