"""Depthwise convolutions of rolled images on the CPU.

Lanes are channels of one group. A task copies what it needs of one image into a compact block with zeros around the
grid, one vector per pixel; the roll is where it reads from. Sizes that the compiler has to know, such as the taps of
a kernel row, are given as the length of a tuple.
"""

import numpy

from mixers.cpu.aligned import empty, first_aligned, flat
from mixers.cpu.aligned import zeros as zero_array
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import REGISTERS, lanes, load, load_first, mul_add, store, tile, zeros
from mixers.cpu.tails import get, put

# neighbouring pixels that are computed at a time, taps of a kernel row that are unrolled, rows of a block
_GROUPS = (8, 14) if REGISTERS == 32 else (8,)
_TAPS = (9, 7, 5, 3, 1)
_ROWS = 28


@helper
def _fill(x, block, at, start, sizes, first, rows, reach, pitch, down, right, count):
    """Rows first - reach .. first + rows + reach of an image rolled `down` and `right`, zeros beyond the grid."""
    h, w, c = sizes
    n = lanes(x)
    for r in range(rows + 2 * reach):
        row = first + r - reach
        line = at + r * pitch * n
        source = start + (row - down) % h * w * c
        begin, end = (reach, reach + w) if 0 <= row < h else (pitch, pitch)
        for q in range(begin):
            store(block, line + q * n, zeros(x))
        # the roll is less than the width
        for q in range(begin, min(begin + right, end)):
            store(block, line + q * n, get(x, source + (q - reach - right + w) * c, count))
        for q in range(begin + right, end):
            store(block, line + q * n, get(x, source + (q - reach - right) * c, count))
        for q in range(end, pitch):
            store(block, line + q * n, zeros(x))


@helper
def _weights(w, block, at, place, size, channels, c0, count):
    """All taps of a kernel, for one vector of channels."""
    for k in range(size):
        store(block, at + k * lanes(w), get(w, place + k * channels + c0, count))


@kernel
def _convolve(x, w_lr, w_td, bias, y, sizes, groups, layout, columns, counter):
    """A block of rows of one image and one vector of channels of a group per task."""
    h, w, c = sizes
    items, rows, row_blocks, vectors, largest = layout
    wide, n = len(columns), lanes(x)
    broad = max(w, wide) + largest - 1
    scratch = numpy.empty((2 * (rows + largest - 1) * broad + 2 * largest * largest) * n + 64, x.dtype)
    at = first_aligned(scratch)
    sums = tile(x, 16)
    for task in tasks(counter):
        group, block, c0 = groups[task // (vectors * row_blocks * items)], task // vectors, task % vectors * n
        offset, channels, place, k, down, right = group[0], group[1], group[2], group[3], group[4], group[5]
        if c0 >= channels:
            # the last group may be smaller
            continue
        item, p0, count = block // row_blocks % items, block % row_blocks * rows, min(n, channels - c0)
        start, many, reach = item * h * w * c + offset + c0, min(rows, h - p0), k // 2
        pitch = max(w, wide) + 2 * reach
        area = (rows + 2 * reach) * pitch * n
        kept = at + 2 * area
        _fill(x, scratch, at, start, sizes, p0, many, reach, pitch, 0, right, count)
        _fill(x, scratch, at + area, start, sizes, p0, many, reach, pitch, down, 0, count)
        _weights(w_lr, scratch, kept, place, k * k, channels, c0, count)
        _weights(w_td, scratch, kept + k * k * n, place, k * k, channels, c0, count)
        first = load_first(bias, offset + c0, count)
        for p in range(many):
            # kernel rows beyond the grid meet zeros only
            above, below = max(0, reach - p0 - p), min(k, h - p0 - p + reach)
            for tiled in range(0, w, wide):
                # the last tile begins earlier, so that it is whole
                q = max(0, min(tiled, w - wide))
                for t in range(wide):
                    sums[t] = first
                for way in range(2):
                    for i in range(above, below):
                        line = at + way * area + ((p + i) * pitch + q) * n
                        for j in range(k):
                            weight = load(scratch, kept + ((way * k + i) * k + j) * n)
                            for t in range(wide):
                                sums[t] = mul_add(load(scratch, line + (j + t) * n), weight, sums[t])
                for t in range(wide):
                    if q + t < w:
                        put(y, start + ((p0 + p) * w + q + t) * c, sums[t], count)


@kernel
def _return(dy, w_lr, w_td, dx, sizes, group, columns, counter):
    """One image and one vector of channels per task: convolutions of dy, put back where x was read."""
    h, w, c = sizes
    offset, channels, place, k, down, right = group
    wide, n, reach = len(columns), lanes(dy), k // 2
    pitch = max(w, wide) + 2 * reach
    area = (h + 2 * reach) * pitch * n
    scratch = numpy.empty(area + 2 * k * k * n + 64, dy.dtype)
    at = first_aligned(scratch)
    kept = at + area
    vectors = -(-channels // n)
    sums = tile(dy, 16)
    for task in tasks(counter):
        item, c0 = task // vectors, task % vectors * n
        count = min(n, channels - c0)
        start = item * h * w * c + offset + c0
        _fill(dy, scratch, at, start, sizes, 0, h, reach, pitch, 0, 0, count)
        _weights(w_lr, scratch, kept, place, k * k, channels, c0, count)
        _weights(w_td, scratch, kept + k * k * n, place, k * k, channels, c0, count)
        for way in range(2):
            for p in range(h):
                # x was rolled along one axis only
                row = p if way == 0 else (p - down) % h
                for tiled in range(0, w, wide):
                    q = max(0, min(tiled, w - wide))
                    for t in range(wide):
                        sums[t] = zeros(dy)
                    for i in range(k):
                        line = at + ((p + i) * pitch + q) * n
                        for j in range(k):
                            weight = load(scratch, kept + (way * k * k + (k - 1 - i) * k + k - 1 - j) * n)
                            for t in range(wide):
                                sums[t] = mul_add(load(scratch, line + (j + t) * n), weight, sums[t])
                    for t in range(wide):
                        # the last tile begins earlier, so that it is whole
                        if tiled <= q + t < w:
                            column = (q + t - right) % w if way == 0 else q + t
                            to = start + (row * w + column) * c
                            value = sums[t]
                            if way == 1:
                                value = value + get(dx, to, count)
                            put(dx, to, value, count)


@kernel
def _correlate(x, dy, partial, sizes, group, taps, counter):
    """One image and one vector of channels per task: sums of dy and the rolled x for every tap."""
    h, w, c = sizes
    offset, channels, _, k, down, right = group
    part, n, reach = len(taps), lanes(x), k // 2
    pitch = w + 2 * reach
    area = (h + 2 * reach) * pitch * n
    scratch = numpy.empty(2 * area + 64, x.dtype)
    at = first_aligned(scratch)
    vectors = -(-channels // n)
    sums = tile(x, 16)
    for task in tasks(counter):
        item, c0 = task // vectors, task % vectors * n
        count = min(n, channels - c0)
        start = item * h * w * c + offset + c0
        _fill(x, scratch, at, start, sizes, 0, h, reach, pitch, 0, right, count)
        _fill(x, scratch, at + area, start, sizes, 0, h, reach, pitch, down, 0, count)
        for way in range(2):
            for i in range(k):
                for j in range(0, k, part):
                    total = tile(x, 16)
                    for u in range(part):
                        total[u] = zeros(x)
                    for p in range(h):
                        for u in range(part):
                            sums[u] = zeros(x)
                        line = at + way * area + ((p + i) * pitch + j) * n
                        for q in range(w):
                            d = get(dy, start + (p * w + q) * c, count)
                            for u in range(part):
                                sums[u] = mul_add(load(scratch, line + (q + u) * n), d, sums[u])
                        for u in range(part):
                            total[u] = total[u] + sums[u]
                    for u in range(part):
                        to = ((item * 2 + way) * k * k + i * k + j + u) * channels + c0
                        put(partial, to, total[u], count)


def rolled_conv2d_forward(x, w_lr, w_td, b=None, shifts=None, kernels=None, save=True):
    """Rows of pixels are independent; x is read once for both convolutions."""
    items, h, w, c = x.shape
    y = empty(x.shape, x.dtype)
    bias = zero_array(c, x.dtype) if b is None else flat(b)
    if x.size:
        # all groups in one run, those with large kernels first: they take longest
        groups = sorted(_groups(x.shape, shifts, kernels), key=lambda group: -group[3])
        rows, vectors = min(h, _ROWS), -(-max(group[1] for group in groups) // lanes(x))
        layout = items, rows, -(-h // rows), vectors, max(kernels)
        arrays = flat(x), flat(w_lr), flat(w_td), bias, y.reshape(-1)
        options = (h, w, c), numpy.array(groups), layout, _columns(w)
        work = 2 * items * h * w * sum(group[1] * group[3] ** 2 for group in groups)
        run(_convolve, len(groups) * items * layout[2] * vectors, *arrays, *options, work=work)
    return y, ()


def rolled_conv2d_backward(dout, saved):
    """dx and the kernels' gradients, group by group; db is a sum of rows."""
    x, dy = saved.x, flat(dout)
    items, h, w, c = x.shape
    dx = empty(x.shape, x.dtype)
    dw_lr, dw_td = (zero_array(a.shape, x.dtype) for a in (saved.w_lr, saved.w_td))
    arrays = dy, flat(saved.w_lr), flat(saved.w_td), dx.reshape(-1)
    for group in _groups(x.shape, saved.shifts, saved.kernels) if x.size else ():
        channels, place, k = group[1], group[2], group[3]
        size, tall, work = (
            k * k * channels,
            items * -(-channels // lanes(x)),
            2 * items * h * w * channels * k * k,
        )
        run(_return, tall, *arrays, (h, w, c), group, _columns(w), work=work)
        partial = empty((items, 2 * size), x.dtype)
        run(_correlate, tall, flat(x), dy, partial.reshape(-1), (h, w, c), group, _taps(k), work=work)
        sums = sum_rows(partial)
        dw_lr[place : place + size], dw_td[place : place + size] = sums[:size], sums[size:]
    db = None if saved.b is None else sum_rows(dy.reshape(items * h * w, c))
    return dx, dw_lr, dw_td, db


def _groups(shape, shifts, kernels):
    """(first channel, channels, place in the flat kernels, kernel, rows down, columns right) of each group."""
    _, h, w, c = shape
    size, place = -(-c // len(shifts)), 0
    for j, (s, k) in enumerate(zip(shifts, kernels)):
        channels = min(c, (j + 1) * size) - j * size
        yield j * size, channels, place, k, s % h, s % w
        place += k * k * channels


def _columns(w):
    """A tuple as long as the pixels that are computed at a time."""
    return (0,) * min(_GROUPS, key=lambda group: (-(-w // group) * group, group))


def _taps(k):
    """A tuple as long as the taps of a kernel row that are unrolled."""
    return (0,) * next(part for part in _TAPS if k % part == 0)
