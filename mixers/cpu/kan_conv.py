"""Kolmogorov-Arnold layers on the windows of an image, on the CPU.

A band of the padded image is expanded in the functions, which thus are evaluated once per pixel and not once per
window. Pixels of a band lie in the order of phases: those that one tap sees are consecutive, for any stride, ::

    position = ((i % stride) side + j % stride) P + (p + i // stride) W + q + j // stride        side = min(stride, k)

for tap (i, j) of the window (p, q), with W positions per row and P per phase. So each tap is a product whose left
factor is the band from some position on, and rows between the windows' are computed and dropped. The gradient
of x goes by blocks of pixels instead, all of one phase, and sums over taps and outputs at once.
"""

import functools

import numpy

from mixers.cpu import aligned, matrix
from mixers.cpu.aligned import scratch
from mixers.cpu.kan_basis import KINDS, pull, tables, values
from mixers.cpu.matrix import multiply_panel, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import lanes, load, load_first, square_tile, store, store_first, transpose

# windows of a band at most, values of the expansion of a band, bands that are enough
_WINDOWS, _VALUES, _TASKS = 448, 65536, 16
# functions of a block of the gradient of x, steps of a sum over outputs
_FUNCTIONS, _DEPTH = 256, 512


def kan_conv2d_forward(
    x, w, basis="bspline", order=3, low=-1.0, high=1.0, width=None, stride=1, padding=0, save=True
):
    """Tasks are bands of rows of windows."""
    call = _Call(x, w, basis, order, low, high, width, stride, padding)
    y = aligned.empty((call.b, call.down, call.across, call.o), x.dtype)
    if not call.work:
        y.fill(0)
    else:
        panels = matrix.pack(w.reshape(-1, call.o)).reshape(-1)
        args = aligned.flat(x), call.table, panels, matrix.no_bias(x), y.reshape(-1), call.rho, call.sizes
        run(_kernels(call.kind)[0], call.b * call.bands, *args, call.band, call.inputs, work=call.work)
    return y, ()


def kan_conv2d_backward(dout, saved):
    """dx by blocks of pixels; dw by slices of the bands and blocks of channels."""
    x, w, stride = saved.x, saved.w, saved.stride
    options = saved.basis, saved.order, saved.low, saved.high, saved.width
    call = _Call(x, w, *options, stride, saved.padding)
    dx, none = aligned.zeros(x.shape, x.dtype), matrix.no_bias(x)
    if not call.work:
        return dx, numpy.zeros(w.shape, x.dtype)
    rows, drows = aligned.flat(x), aligned.flat(dout)
    inputs = min(call.c, max(1, _FUNCTIONS // call.g))
    pixels = call.b * -(-x.shape[1] // stride) * -(-x.shape[2] // stride)
    blocks = -(-pixels // len(none[0]))
    share = -(-blocks // (4 * _TASKS))
    count = min(stride, call.size) ** 2 * -(-blocks // share)
    args = rows, drows, call.by_phase(w), call.table, none, dx.reshape(-1), call.rho, call.sizes
    run(_kernels(call.kind)[1], count, *args, share, inputs, work=call.work)
    return dx, _weights(call, rows, drows, none, x.dtype).reshape(w.shape)


def _weights(call, rows, drows, none, dtype):
    bands = call.b * call.bands
    chunks = -(-call.c // call.inputs)
    share = -(-bands // min(bands, -(-_TASKS // chunks)))
    slices = -(-bands // share)
    parts = aligned.empty((slices, call.size**2 * call.c * call.g * call.o), dtype)
    args = rows, drows, call.table, none, parts.reshape(-1), call.rho, call.sizes
    run(_kernels(call.kind)[2], slices * chunks, *args, call.band, call.inputs, share, work=call.work)
    return sum_rows(parts)


class _Call:
    """Sizes of a call, the table of its basis, and how it is cut."""

    def __init__(self, x, w, basis, order, low, high, width, stride, padding):
        self.size, _, self.c, self.g, self.o = w.shape
        self.b, h, across, _ = x.shape
        self.stride = stride
        self.down, self.across = ((n + 2 * padding - self.size) // stride + 1 for n in (h, across))
        self.kind = KINDS[basis]
        self.table = aligned.flat(tables(self.g, None, None, basis, order, low, high, width, x.dtype))
        self.rho = x.dtype.type(0)
        self.sizes = (
            *(self.b, h, across, self.c, self.g, self.o, self.size),
            *(stride, padding, self.down, self.across, order),
        )
        self.work = self.b * self.down * self.across * w.size / 10
        if self.work:
            wanted = -(-self.down // -(-_TASKS // self.b))
            self.band = min(wanted, max(1, _WINDOWS // self.across))
            self.bands = -(-self.down // self.band)
            positions = _positions(self.band, self.across, self.size, stride)
            self.inputs = min(self.c, max(1, _VALUES // (self.g * positions)))

    def by_phase(self, w):
        """The coefficients (c g, k^2 o) with the taps of a phase side by side."""
        k, s = self.size, self.stride
        side = min(s, k)
        order = [
            i * k + j
            for a in range(side)
            for b in range(side)
            for i in range(a, k, s)
            for j in range(b, k, s)
        ]
        turned = aligned.empty((self.c * self.g, k * k, self.o), w.dtype)
        turned[...] = w.reshape(k * k, self.c * self.g, self.o)[order].swapaxes(0, 1)
        return turned.reshape(-1)


def _positions(band, across, size, stride):
    """Positions of a band, in all phases."""
    more = (size - 1) // stride
    return min(stride, size) ** 2 * (band + more) * (across + more)


@routine
def _turn_pixels(source, places, out, columns, count):
    """out[j count + r] = source[places[r] + j] for r < count and j < columns; zero where the place is negative.

    `source` is (array, offset), `out` (array, offset), `places` has whole vectors, count is their number.
    """
    (X, x), (P, p) = source, out
    n = lanes(P)
    square = square_tile(P)
    for first in range(0, count, n):
        for j in range(0, columns, n):
            inside = min(n, columns - j)
            for r in range(n):
                place = places[first + r]
                square[r] = load_first(X, x + max(place, 0) + j, inside if place >= 0 else 0)
            transpose(square)
            for i in range(inside):
                store(P, p + (j + i) * count + first, square[i])


@routine
def _turn_pixels_back(source, places, out, columns, count):
    """out[places[r] + j] = source[j count + r], the inverse of :func:`_turn_pixels`."""
    (P, p), (X, x) = source, out
    n = lanes(P)
    square = square_tile(P)
    for first in range(0, count, n):
        for j in range(0, columns, n):
            inside = min(n, columns - j)
            for i in range(n):
                square[i] = load(P, p + (j + min(i, inside - 1)) * count + first)
            transpose(square)
            for r in range(n):
                if places[first + r] >= 0:
                    store_first(X, x + places[first + r] + j, square[r], inside)


@helper
def _find_band(task, sizes, band, bands, places, stride):
    """The item, the first row of windows, and the place in x of every position of a band."""
    _, h, w, c, _, _, k, s, padding, _, across, _ = sizes
    more, side = (k - 1) // s, min(s, k)
    pitch = across + more
    phase = (band + more) * pitch
    item, p = task // bands, task % bands * band
    for r in range(stride):
        places[r] = -1
        if r < side * side * phase:
            i, j, at = r // phase // side, r // phase % side, r % phase
            row, column = (p + at // pitch) * s + i - padding, at % pitch * s + j - padding
            if 0 <= row < h and 0 <= column < w:
                places[r] = ((item * h + row) * w + column) * c
    return item, p


@helper
def _expand(kind, x, places, begin, n, turned, stride, table, g, order, rho, space, out):
    """out[(j g + f) stride + r] = beta_f of channel begin + j at position r."""
    _turn_pixels((x, begin), places, (turned, 0), n, stride)
    for j in range(n):
        for r in range(0, stride, lanes(x)):
            argument = load(turned, j * stride + r)
            values(kind, argument, table, 0, g, order, rho, space, out, j * g * stride + r, stride)


@helper
def _copy(source, start, out, place, count):
    n = lanes(out)
    for at in range(0, count - count % n, n):
        store(out, place + at, load(source, start + at))
    at = count - count % n
    store_first(out, place + at, load_first(source, start + at, count - at), count - at)


@functools.cache
def _kernels(kind):
    """Kernels of one basis: forward, gradient of x, gradient of w."""

    @kernel
    def forward(x, table, panels, none, y, rho, sizes, band, inputs, counter):
        _, _, _, c, g, o, k, s, _, down, across, order = sizes
        width, n = panel_width(x), lanes(x)
        more, side = (k - 1) // s, min(s, k)
        pitch, bands = across + more, -(-down // band)
        phase = (band + more) * pitch
        stride = -(-side * side * phase // n) * n
        places = numpy.empty(stride, numpy.int64)
        turned = scratch(inputs * stride, x)
        functions = scratch(inputs * g * stride, x)
        space = scratch((g + order + 1) * n, x)
        out = scratch(band * pitch * o, x)
        for task in tasks(counter):
            item, p = _find_band(task, sizes, band, bands, places, stride)
            rows = min(band, down - p)
            count = (rows - 1) * pitch + across
            for begin in range(0, c, inputs):
                size = min(inputs, c - begin)
                _expand(
                    *(kind, x, places, begin, size, turned, stride),
                    *(table, g, order, rho, space, functions),
                )
                for column in range(0, o, width):
                    for tap in range(k * k):
                        i, j = tap // k, tap % k
                        start = (i % s * side + j % s) * phase + i // s * pitch + j // s
                        left = functions, start, 1, stride
                        panel = panels, ((column * k * k + tap * width) * c + begin * width) * g
                        target, columns = (out, column, o), min(width, o - column)
                        add = begin + tap > 0
                        multiply_panel(left, panel, none, target, count, size * g, columns, add)
            for row in range(rows):
                place = ((item * down + p + row) * across) * o
                _copy(out, row * pitch * o, y, place, across * o)

    @helper
    def find_pixels(block, phase, sizes, taps, places, windows, width):
        """Places of the pixels of a block in x, and of dy at their windows: windows[tap width + r]; -1 for none."""
        b, h, w, c, _, o, k, s, padding, down, across, _ = sizes
        side = min(s, k)
        i, j = phase // side, phase % side
        top, left = (i - padding) % s, (j - padding) % s
        high, wide = max(0, (h - top + s - 1) // s), max(0, (w - left + s - 1) // s)
        some = False
        for r in range(width):
            at = block * width + r
            places[r] = -1
            inside = at < b * high * wide
            item, row, column = 0, 0, 0
            if inside:
                item, row, column = at // (high * wide), at // wide % high * s + top, at % wide * s + left
                places[r] = ((item * h + row) * w + column) * c
                some = True
            # of the tap that is first in this phase
            p, q = (row + padding - i) // s, (column + padding - j) // s
            across_taps = (k - 1 - j) // s + 1
            for tap in range(taps):
                above, before = p - tap // across_taps, q - tap % across_taps
                found = inside and 0 <= above < down and 0 <= before < across
                windows[tap * width + r] = ((item * down + above) * across + before) * o if found else -1
        return some

    @kernel
    def backward(x, dy, w, table, none, dx, rho, sizes, share, inputs, counter):
        b, h, wide, c, g, o, k, s, _, _, _, order = sizes
        width, n = panel_width(x), lanes(x)
        side = min(s, k)
        most = (k - 1) // s + 1
        places = numpy.empty(width, numpy.int64)
        windows = numpy.empty(most * most * width, numpy.int64)
        panel = scratch(most * most * o * width, x)
        turned = scratch(inputs * width, x)
        products = scratch(inputs * g * width, x)
        space = scratch((g + order + 1) * n, x)
        # the slopes of parameters, which these bases do not have
        slopes = scratch(2 * g * n, x)
        blocks = -(-b * -(-h // s) * -(-wide // s) // width)
        per_phase = -(-blocks // share)
        for task in tasks(counter):
            phase = task // per_phase
            first_tap = 0
            for before in range(phase):
                first_tap += ((k - 1 - before // side) // s + 1) * ((k - 1 - before % side) // s + 1)
            taps = ((k - 1 - phase // side) // s + 1) * ((k - 1 - phase % side) // s + 1)
            begin_block = task % per_phase * share
            for block in range(begin_block, min(begin_block + share, blocks)):
                if find_pixels(block, phase, sizes, taps, places, windows, width):
                    for tap in range(taps):
                        here = windows[tap * width : (tap + 1) * width]
                        _turn_pixels((dy, 0), here, (panel, tap * o * width), o, width)
                    for begin in range(0, c, inputs):
                        size = min(inputs, c - begin)
                        for start in range(0, taps * o, _DEPTH):
                            at = begin * g * k * k * o + first_tap * o + start
                            left, target = (w, at, k * k * o, 1), (products, 0, width)
                            depth, right = min(_DEPTH, taps * o - start), (panel, start * width)
                            multiply_panel(left, right, none, target, size * g, depth, width, start > 0)
                        _turn_pixels((x, begin), places, (turned, 0), size, width)
                        for j in range(size):
                            for r in range(0, width, n):
                                total = pull(
                                    *(kind, load(turned, j * width + r), products, j * g * width + r, width),
                                    *(table, 0, g, order, rho, space, slopes, 0),
                                )
                                store(turned, j * width + r, total)
                        _turn_pixels_back((turned, 0), places, (dx, begin), size, width)

    @kernel
    def weights(x, dy, table, none, parts, rho, sizes, band, inputs, share, counter):
        b, _, _, c, g, o, k, s, _, down, across, order = sizes
        width, n = panel_width(x), lanes(x)
        more, side = (k - 1) // s, min(s, k)
        pitch, bands, chunks = across + more, -(-down // band), -(-c // inputs)
        phase = (band + more) * pitch
        stride = -(-side * side * phase // n) * n
        places = numpy.empty(stride, numpy.int64)
        turned = scratch(inputs * stride, x)
        functions = scratch(inputs * g * stride, x)
        space = scratch((g + order + 1) * n, x)
        panel = scratch(band * pitch * width, x)
        for task in tasks(counter):
            part, begin = task // chunks, task % chunks * inputs
            size = min(inputs, c - begin)
            for number in range(part * share, min((part + 1) * share, b * bands)):
                item, p = _find_band(number, sizes, band, bands, places, stride)
                _expand(
                    *(kind, x, places, begin, size, turned, stride),
                    *(table, g, order, rho, space, functions),
                )
                rows = min(band, down - p)
                depth = (rows - 1) * pitch + across
                for column in range(0, o, width):
                    columns = min(width, o - column)
                    for at in range(depth):
                        window = at % pitch
                        place = ((item * down + p + at // pitch) * across + window) * o + column
                        for v in range(0, width, n):
                            inside = min(n, max(columns - v, 0)) if window < across else 0
                            store(panel, at * width + v, load_first(dy, place + v, inside))
                    for tap in range(k * k):
                        i, j = tap // k, tap % k
                        start = (i % s * side + j % s) * phase + i // s * pitch + j // s
                        left, add = (functions, start, stride, 1), number > part * share
                        target = parts, ((part * k * k + tap) * c + begin) * g * o + column, o
                        multiply_panel(left, (panel, 0), none, target, size * g, depth, columns, add)

    return forward, backward, weights
