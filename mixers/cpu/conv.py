"""Short convolutions: depthwise 2-D, causal depthwise 1-D and its streaming form.

Lanes are channels. The 2-D kernels copy the rows that a task needs into a compact ring with zeros around the
grid, one vector of channels per pixel, and compute a few neighbouring pixels at a time in registers. Sizes
that the compiler has to know, such as the taps of a kernel row, are given as the length of a tuple.
"""

from collections import namedtuple

import numpy

from mixers import causal_conv
from mixers.cpu.aligned import ALIGNMENT, contiguous, empty, first_aligned, strided_rows
from mixers.cpu.elementwise import silu_backward, silu_forward
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import (
    REGISTERS,
    lanes,
    load,
    load_first,
    mul_add,
    store,
    tile,
    zeros,
)
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import silu, silu_derivative

# neighbouring pixels that are computed at a time
_GROUPS = (8, 14) if REGISTERS == 32 else (8,)

# pixels of a row that a task keeps in the ring, which then fits the first-level cache for 7 x 7 kernels
_COLUMNS = 64

# taps of a kernel row, and dilations, that the compiler gets to know; others are counted at run time
_TAPS = (9, 7, 5, 3, 1)
_DILATIONS = (1, 3)

# the weight gradient keeps sums of so many taps by so many kernel rows, for so many pixels in one go
_SUMS = {7: 2, 5: 2, 3: 3} if REGISTERS == 32 else {7: 1, 5: 1, 3: 2}
_STRIDE = 4

# kernel sizes of the 1-D convolution that have a kernel in registers; others go through the 2-D one
_SHORT = (2, 3, 4)

# what the backward of an activation asks of its saved values
_Activated = namedtuple("_Activated", "x")

# tokens and channels of a task of the 1-D convolution
_TOKENS = 64
_CHANNELS = 256


@helper
def _fill_row(x, ring, at, pixels, start, step, first, width, count):
    """Copy the pixels first, first + 1, ... of one row of x to the ring; zeros where there is no pixel.

    `start` is the offset of pixel 0 of the row, `step` the values from one to the next; only pixels 0 to width - 1
    are read.
    """
    n = lanes(x)
    begin = min(max(-first, 0), pixels)
    end = max(min(pixels, width - first), begin)
    for i in range(begin):
        store(ring, at + i * n, zeros(x))
    for i in range(begin, end):
        store(ring, at + i * n, get(x, start + (first + i) * step, count))
    for i in range(end, pixels):
        store(ring, at + i * n, zeros(x))


@kernel
def _convolve_tasks(x, w, bias, y, grid, layout, blocks, taps, steps, columns, counter):
    """y[p, q] = bias + sum_{i,j} w[i, j] x[p + i d - top, q + j d - left], zeros outside the grid.

    A task has one image, one vector of channels and a block of pixels. Lengths of tuples are the taps of
    a kernel row that are unrolled, the neighbouring pixels computed at a time, and the dilation if known.
    """
    h, width, x_step, c, out_h, out_w = grid
    kh, kw, dilation, top, left = layout
    rows, across, row_blocks, column_blocks = blocks
    part, n, group = len(taps), lanes(x), len(columns)
    d = len(steps) if len(steps) > 0 else dilation
    channel_blocks = (c + n - 1) // n
    slots, pixels = d * (kh - 1) + 1, across + d * (kw - 1)
    scratch = numpy.empty((slots * pixels + kh * kw) * n + ALIGNMENT, x.dtype)
    ring = first_aligned(scratch)
    kept = ring + slots * pixels * n
    sums = tile(x, 16)
    for task in tasks(counter):
        block, c0 = task // channel_blocks, task % channel_blocks * n
        count = min(n, c - c0)
        q0 = block % column_blocks * across
        block //= column_blocks
        image, p0 = block // row_blocks, block % row_blocks * rows
        q1 = min(out_w, q0 + across)
        for k in range(kh * kw):
            store(scratch, kept + k * n, load_first(w, k * c + c0, count))
        offset = load_first(bias, c0, count)
        loaded = max(0, p0 - top)
        for p in range(p0, min(out_h, p0 + rows)):
            for row in range(loaded, min(h, p - top + slots)):
                start, at = (image * h + row) * width * x_step + c0, ring + row % slots * pixels * n
                _fill_row(x, scratch, at, pixels, start, x_step, q0 - left, width, count)
                loaded = row + 1
            for q in range(q0, q1, group):
                for t in range(group):
                    sums[t] = offset
                for i in range(kh):
                    row = p - top + i * d
                    if row < 0 or row >= h:
                        continue
                    at = ring + (row % slots * pixels + q - q0) * n
                    for j in range(0, kw, part):
                        for k in range(part):
                            weight = load(scratch, kept + (i * kw + j + k) * n)
                            for t in range(group):
                                value = load(scratch, at + ((j + k) * d + t) * n)
                                sums[t] = mul_add(value, weight, sums[t])
                start = ((image * out_h + p) * out_w + q) * c + c0
                if q + group <= q1:
                    for t in range(group):
                        put(y, start + t * c, sums[t], count)
                else:
                    for t in range(group):
                        if q + t < q1:
                            put(y, start + t * c, sums[t], count)


@kernel
def _correlate_tasks(x, dy, partial, grid, layout, blocks, taps, steps, together, counter):
    """partial[.., i, j] = sum_{p,q} dy[p, q] x[p + i d - top, q + j d - left], and sum dy behind these.

    A task has some images, one vector of channels and a block of pixels. Sums of a few kernel rows
    (`together`) by a few taps stay in registers along a row of pixels and are then added to those of
    the task: sums of sums, which keeps their rounding small.
    """
    h, width, x_step, c, out_h, out_w = grid
    kh, kw, dilation, top, left = layout
    images, batch, rows, across, row_blocks, column_blocks = blocks
    part, n, deep = len(taps), lanes(x), len(together)
    d = len(steps) if len(steps) > 0 else dilation
    channel_blocks = (c + n - 1) // n
    slots = d * (kh - 1) + 1
    tall, wide = (kh + deep - 1) // deep * deep, (kw + part - 1) // part * part
    pixels = across + d * (wide - 1)
    scratch = numpy.empty((slots * pixels + across + tall * wide) * n + ALIGNMENT, x.dtype)
    ring = first_aligned(scratch)
    line = ring + slots * pixels * n
    total = line + across * n
    sums = tile(x, 16)
    for task in tasks(counter):
        block, c0 = task // channel_blocks, task % channel_blocks * n
        count = min(n, c - c0)
        q0 = block % column_blocks * across
        block //= column_blocks
        first, p0 = block // row_blocks * images, block % row_blocks * rows
        inside = min(out_w - q0, across)
        for k in range(tall * wide):
            store(scratch, total + k * n, zeros(x))
        everything = zeros(x)
        for image in range(first, min(batch, first + images)):
            loaded = p0 - top
            for p in range(p0, min(out_h, p0 + rows)):
                for row in range(loaded, p - top + slots):
                    at = ring + row % slots * pixels * n
                    known = width if 0 <= row < h else 0
                    start = (image * h + row) * width * x_step + c0
                    _fill_row(x, scratch, at, pixels, start, x_step, q0 - left, known, count)
                loaded = p - top + slots
                start = ((image * out_h + p) * out_w + q0) * c + c0
                _fill_row(dy, scratch, line, across, start, c, 0, inside, count)
                for q in range(inside):
                    everything = everything + load(scratch, line + q * n)
                for i in range(0, kh, deep):
                    above = p - top + i * d
                    if above >= h or above + (deep - 1) * d < 0:
                        continue
                    for j in range(0, kw, part):
                        for k in range(deep * part):
                            sums[k] = zeros(x)
                        for q in range(0, across, _STRIDE):
                            for t in range(_STRIDE):
                                g = load(scratch, line + (q + t) * n)
                                for u in range(deep):
                                    at = ring + ((above + u * d) % slots * pixels + j * d + q + t) * n
                                    for k in range(part):
                                        sums[u * part + k] = mul_add(
                                            load(scratch, at + k * d * n), g, sums[u * part + k]
                                        )
                        for u in range(deep):
                            for k in range(part):
                                at = total + ((i + u) * wide + j + k) * n
                                store(scratch, at, load(scratch, at) + sums[u * part + k])
        at = task // channel_blocks * (kh * kw + 1) * c + c0
        for i in range(kh):
            for j in range(kw):
                put(partial, at + (i * kw + j) * c, load(scratch, total + (i * wide + j) * n), count)
        put(partial, at + kh * kw * c, everything, count)


def depthwise_conv2d_forward(x, w, b=None, dilation=1, padding="same", save=True):
    """The convolution, by rows of pixels."""
    (top, bottom), (left, right) = _padding(w.shape, dilation, padding)
    h = x.shape[1] + top + bottom - dilation * (w.shape[0] - 1)
    width = x.shape[2] + left + right - dilation * (w.shape[1] - 1)
    return _convolve(x, w, b, dilation, (top, left), (h, width)), ()


def depthwise_conv2d_backward(dout, saved):
    """dx is a convolution with the flipped kernel, whose padding is what the forward's lacks to the reach."""
    x, w, dilation = saved.x, saved.w, saved.dilation
    (top, _), (left, _) = _padding(w.shape, dilation, saved.padding)
    rest = dilation * (w.shape[0] - 1) - top, dilation * (w.shape[1] - 1) - left
    dx = _convolve(dout, w[::-1, ::-1], None, dilation, rest, x.shape[1:3])
    dw, db = _correlate(x, dout, w.shape[:2], dilation, (top, left))
    return dx, dw, None if saved.b is None else db


def _padding(kernel, dilation, padding):
    """((top, bottom), (left, right)); "same" puts the odd row or column of an even kernel at the end."""
    if padding != "same":
        return padding
    reach = [dilation * (k - 1) for k in kernel[:2]]
    return tuple((r // 2, r - r // 2) for r in reach)


def _convolve(x, w, b, dilation, start, out):
    """The convolution with `start` = (top, left) rows and columns of zeros before the grid, maybe negative."""
    batch, h, width, c = x.shape
    kh, kw = w.shape[:2]
    y = empty((batch, *out, c), x.dtype)
    group = min(_GROUPS, key=lambda group: (-(-out[1] // group) * group, group))
    part = next(part for part in _TAPS if kw % part == 0)
    across, column_blocks = _column_blocks(out[1], group)
    blocks = batch * column_blocks * -(-c // lanes(x))
    rows, row_blocks = _row_blocks(out[0], blocks)
    values, x_step = strided_rows(x)
    run(
        _convolve_tasks,
        blocks * row_blocks,
        *(values, contiguous(w), numpy.zeros(c, x.dtype) if b is None else contiguous(b), y),
        *((h, width, x_step, c, *out), (kh, kw, dilation, *start), (rows, across, row_blocks, column_blocks)),
        *((0,) * part, _steps(dilation), (0,) * group),
        work=y.size * kh * kw,
    )
    return y


def _correlate(x, dy, kernel, dilation, start):
    """dw and db."""
    batch, h, width, c = x.shape
    out_h, out_w = dy.shape[1:3]
    kh, kw = kernel
    across, column_blocks = _column_blocks(out_w, _STRIDE)
    blocks = batch * column_blocks * -(-c // lanes(x))
    # enough tasks for many threads, but no more sums than needed
    images = max(1, blocks // 96)
    rows, row_blocks = _row_blocks(out_h, blocks)
    parts = -(-batch // images) * row_blocks * column_blocks
    partial = empty((parts, kh * kw + 1, c), x.dtype)
    part = min(_SUMS, key=lambda part: (-(-kw // part) * part, -part))
    together = _SUMS[part] if kh > 1 else 1
    values, x_step = strided_rows(x)
    run(
        _correlate_tasks,
        parts * -(-c // lanes(x)),
        *(values, contiguous(dy), partial),
        *((h, width, x_step, c, out_h, out_w), (kh, kw, dilation, *start)),
        (images, batch, rows, across, row_blocks, column_blocks),
        *((0,) * part, _steps(dilation), (0,) * together),
        work=dy.size * kh * kw,
    )
    total = sum_rows(partial.reshape(parts, (kh * kw + 1) * c)).reshape(-1, c)
    return total[:-1].reshape(kh, kw, c), total[-1].copy()


def _steps(dilation):
    return (0,) * dilation if dilation in _DILATIONS else ()


def _column_blocks(width, group):
    """Pixels of a row per task, a multiple of `group`, and number of such blocks."""
    count = -(-width // _COLUMNS)
    across = -(-width // (count * group)) * group if count else group
    return across, -(-width // across)


def _row_blocks(h, others):
    """Rows per task and number of such blocks: all rows if there are enough tasks without a cut."""
    wanted = -(-32 // max(others, 1))
    rows = max(-(-h // wanted), min(h, 8), 1)
    return rows, -(-h // rows)


@kernel
def _causal_tasks(x, w, bias, state, y, sizes, taps, activated, has_state, counter):
    """p[t] = bias + sum_i w[i] X[t + i], X = (state or zeros, x); y = silu(p) or p.

    A task has one block of tokens and of channels; the last taps inputs stay in registers. Their number is
    the length of the tuple `taps`.
    """
    length, c, tokens, token_blocks, channels = sizes
    k, n = len(taps), lanes(x)
    channel_blocks = (c + channels - 1) // channels
    weights, window = tile(x, 4), tile(x, 4)
    for task in tasks(counter):
        block, c1 = task // channel_blocks, task % channel_blocks * channels
        b, t0 = block // token_blocks, block % token_blocks * tokens
        for c0 in range(c1, min(c, c1 + channels), n):
            count = min(n, c - c0)
            offset = load_first(bias, c0, count)
            for i in range(k):
                weights[i] = load_first(w, i * c + c0, count)
            for i in range(1, k):
                window[i] = _earlier(x, state, b, t0 - k + i, k, length, c, c0, count, has_state)
            for t in range(t0, min(length, t0 + tokens)):
                at = (b * length + t) * c + c0
                value = get(x, at, count)
                for i in range(k - 1, -1, -1):
                    value, window[i] = window[i], value
                p = offset
                for i in range(k):
                    p = mul_add(weights[i], window[i], p)
                put(y, at, silu(p) if activated else p, count)


@kernel
def _causal_backward_tasks(
    x, w, bias, state, dy, dx, dstate, partial, sizes, taps, activated, has_state, counter
):
    """g = dy silu'(p); dX[t + i] += w[i] g[t], partial[i] = sum g[t] X[t + i], partial[k] = sum g.

    In one sweep over the tokens of a task and the k - 1 after them, from which gradients still reach these:
    `pending` holds the rows of dX that are not complete yet.
    """
    length, c, tokens, token_blocks, channels = sizes
    k, n = len(taps), lanes(x)
    channel_blocks = (c + channels - 1) // channels
    weights, window, pending = tile(x, 4), tile(x, 4), tile(x, 4)
    sums = tile(x, 4)
    for task in tasks(counter):
        block, c1 = task // channel_blocks, task % channel_blocks * channels
        b, t0 = block // token_blocks, block % token_blocks * tokens
        t1 = min(length, t0 + tokens)
        for c0 in range(c1, min(c, c1 + channels), n):
            count = min(n, c - c0)
            offset, total = load_first(bias, c0, count), zeros(x)
            for i in range(k):
                weights[i] = load_first(w, i * c + c0, count)
                sums[i] = zeros(x)
                pending[i] = zeros(x)
            for i in range(1, k):
                window[i] = _earlier(x, state, b, t0 - k + i, k, length, c, c0, count, has_state)
            for t in range(t0, t1 + k - 1):
                at = (b * length + t) * c + c0
                value = g = zeros(x)
                if t < length:
                    value = get(x, at, count)
                    g = get(dy, at, count)
                for i in range(k - 1, -1, -1):
                    value, window[i] = window[i], value
                if activated:
                    p = offset
                    for i in range(k):
                        p = mul_add(weights[i], window[i], p)
                    g = g * silu_derivative(p)
                if t < t1:
                    total = total + g
                    for i in range(k):
                        sums[i] = mul_add(g, window[i], sums[i])
                complete = mul_add(g, weights[0], pending[0])
                for i in range(1, k):
                    pending[i - 1] = mul_add(g, weights[i], pending[i])
                row = t - (k - 1)
                if row >= t0:
                    put(dx, (b * length + row) * c + c0, complete, count)
                elif row < 0 and has_state:
                    put(dstate, (b * (k - 1) + t) * c + c0, complete, count)
            for i in range(k):
                put(partial, (block * (k + 1) + i) * c + c0, sums[i], count)
            put(partial, (block * (k + 1) + k) * c + c0, total, count)


@helper
def _earlier(x, state, b, t, k, length, c, c0, count, has_state):
    """Input t, which lies in the state if it is negative, and is zero without one."""
    value = zeros(x)
    if t >= 0:
        value = load_first(x, (b * length + t) * c + c0, count)
    elif has_state:
        value = load_first(state, (b * (k - 1) + t + k - 1) * c + c0, count)
    return value


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
    k, c = w.shape
    if k not in _SHORT:
        p = _long_causal(x, w, b, state)
        return silu_forward(p)[0] if activation == "silu" else p
    y = empty(x.shape, x.dtype)
    bias = numpy.zeros(c, x.dtype) if b is None else contiguous(b)
    sizes, count = _causal_blocks(x.shape)
    arrays = contiguous(x), contiguous(w), bias, _state_array(x, state), y
    run(
        _causal_tasks,
        count,
        *arrays,
        *(sizes, (0,) * k, activation == "silu", state is not None),
        work=(k + 16) * x.size,
    )
    return y


def _causal_backward(dy, x, w, b, activation, state):
    """dx, dw, db and dstate for the cotangent of y, which may be None."""
    k, c = w.shape
    if dy is None:
        return tuple(None if a is None else numpy.zeros(a.shape, x.dtype) for a in (x, w, b, state))
    if k not in _SHORT:
        return _long_causal_backward(dy, x, w, b, activation, state)
    dx = empty(x.shape, x.dtype)
    dstate = numpy.zeros((x.shape[0], k - 1, c), x.dtype) if state is not None else _state_array(x, None)
    bias = numpy.zeros(c, x.dtype) if b is None else contiguous(b)
    sizes, count = _causal_blocks(x.shape)
    partial = empty((x.shape[0] * sizes[3], k + 1, c), x.dtype)
    arrays = contiguous(x), contiguous(w), bias, _state_array(x, state), contiguous(dy), dx, dstate, partial
    run(
        _causal_backward_tasks,
        count,
        *arrays,
        *(sizes, (0,) * k, activation == "silu", state is not None),
        work=3 * (k + 16) * x.size,
    )
    total = sum_rows(partial.reshape(len(partial), (k + 1) * c)).reshape(-1, c)
    return dx, total[:k], None if b is None else total[k].copy(), None if state is None else dstate


def _causal_blocks(shape):
    """Sizes for the kernels, and the number of tasks."""
    batch, length, c = shape
    token_blocks = -(-length // _TOKENS)
    return (length, c, _TOKENS, token_blocks, _CHANNELS), batch * token_blocks * -(-c // _CHANNELS)


def _state_array(x, state):
    return numpy.zeros((1, 1, 1), x.dtype) if state is None else contiguous(state)


def _long_causal(x, w, b, state):
    """p for long kernels: X is an image of one row."""
    history = _image(x, w, state)
    return _convolve(history, w[None], b, 1, (0, 0), (1, x.shape[1])).reshape(x.shape)


def _long_causal_backward(dy, x, w, b, activation, state):
    k, c = w.shape
    if activation == "silu":
        [dy] = silu_backward(dy, _Activated(_long_causal(x, w, b, state)))
    history, g = _image(x, w, state), dy[:, None]
    dhistory = _convolve(g, w[None, ::-1], None, 1, (0, k - 1), history.shape[1:3])[:, 0]
    dw, db = _correlate(history, g, (1, k), 1, (0, 0))
    dstate = None if state is None else dhistory[:, : k - 1].copy()
    return dhistory[:, k - 1 :].copy(), dw.reshape(k, c), None if b is None else db, dstate


def _image(x, w, state):
    """X = (state or zeros, x) as (b, 1, k - 1 + l, c)."""
    if state is None:
        state = numpy.zeros((x.shape[0], w.shape[0] - 1, x.shape[2]), x.dtype)
    return numpy.concatenate([state, x], axis=1)[:, None]


_KERNELS = causal_conv.Kernels(_causal, _causal_backward, silu_forward, silu_backward)
