"""Convolutions that mix the channels of a group.

The output channels of a group are in the lanes, an input value is broadcast. Groups with a single input
channel are depthwise convolutions of repeated channels and run as such; with a single tap every group is a matrix
product.
"""

import numpy

from mixers.cpu import conv
from mixers.cpu.aligned import contiguous, empty, flat, scratch, zeros
from mixers.cpu.matrix import fill_panel, multiply_panel, no_bias, pack, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, mul_add, scalar, store_first, tile
from mixers.cpu.simd import zeros as zero_vector

# neighbouring tokens of a row that share a load of the weights
_TOKENS = 4
# input channels that share a load of the cotangent
_CHANNELS = 4

# of the products of a single tap: rows per task, steps of a long sum at a time, tasks wanted at least
_TASK_ROWS = 112
_DEPTH = 512
_TASKS = 64


@kernel
def _convolve(x, w, y, sizes, taps, groups, counter):
    """One row of y per task; x is padded by half a kernel on every side."""
    h, wide, c_in, c_out = sizes
    kh, kw = taps
    inputs, outputs = c_in // groups, c_out // groups
    line = (wide + kw - 1) * c_in
    for task in tasks(counter):
        corner = (task // h * (h + kh - 1) + task % h) * line
        for g in range(groups):
            for o in range(0, outputs, lanes(x)):
                count = min(lanes(x), outputs - o)
                for q in range(0, wide, _TOKENS):
                    total = tile(x, _TOKENS)
                    for t in range(_TOKENS):
                        total[t] = zero_vector(x)
                    for i in range(kh):
                        for j in range(kw):
                            place = corner + i * line + (q + j) * c_in + g * inputs
                            row = ((i * kw + j) * inputs) * c_out + g * outputs + o
                            for m in range(inputs):
                                weights = load_first(w, row + m * c_out, count)
                                for t in range(_TOKENS):
                                    # a token beyond the row reads the last one instead
                                    step = min(t, wide - 1 - q) * c_in
                                    value = scalar(x, place + step + m)
                                    total[t] = mul_add(value, weights, total[t])
                    for t in range(_TOKENS):
                        if q + t < wide:
                            start = (task * wide + q + t) * c_out + g * outputs + o
                            store_first(y, start, total[t], count)


@kernel
def _weight_sums(x, dy, dw, items, sizes, taps, groups, counter):
    """One tap of one group per task: the sum over all tokens of x dy^T, rows first."""
    h, wide, c_in, c_out = sizes
    kh, kw = taps
    inputs, outputs = c_in // groups, c_out // groups
    line = (wide + kw - 1) * c_in
    for task in tasks(counter):
        tap, g = task // groups, task % groups
        i, j = tap // kw, tap % kw
        for o in range(0, outputs, lanes(x)):
            count = min(lanes(x), outputs - o)
            for m in range(0, inputs, _CHANNELS):
                total = tile(x, _CHANNELS)
                for k in range(_CHANNELS):
                    total[k] = zero_vector(x)
                for r in range(items * h):
                    part = tile(x, _CHANNELS)
                    for k in range(_CHANNELS):
                        part[k] = zero_vector(x)
                    place = (r // h * (h + kh - 1) + r % h + i) * line + j * c_in + g * inputs + m
                    start = r * wide * c_out + g * outputs + o
                    for q in range(wide):
                        d = load_first(dy, start + q * c_out, count)
                        for k in range(_CHANNELS):
                            value = scalar(x, place + q * c_in + min(k, inputs - 1 - m))
                            part[k] = mul_add(value, d, part[k])
                    for k in range(_CHANNELS):
                        total[k] = total[k] + part[k]
                for k in range(_CHANNELS):
                    if m + k < inputs:
                        at = (tap * inputs + m + k) * c_out + g * outputs + o
                        store_first(dw, at, total[k], count)


@kernel
def _products(x, panels, none, y, rows, groups, inputs, outputs, counter):
    """y = x w for a run of rows of one group per task; panels (groups, -(-outputs // width), inputs, width)."""
    width = panel_width(x)
    across = -(-outputs // width)
    for task in tasks(counter):
        g, first = task % groups, task // groups * _TASK_ROWS
        count = min(_TASK_ROWS, rows - first)
        for j in range(across):
            out = y, (first * groups + g) * outputs + j * width, groups * outputs
            columns = min(width, outputs - j * width)
            for start in range(0, inputs, _DEPTH):
                left = x, (first * groups + g) * inputs + start, groups * inputs, 1
                panel = panels, ((g * across + j) * inputs + start) * width
                depth = min(_DEPTH, inputs - start)
                multiply_panel(left, panel, none, out, count, depth, columns, start > 0)


@kernel
def _product_sums(x, dy, none, partial, rows, groups, inputs, outputs, slices, counter):
    """x^T dy over a slice of the rows, for some columns of one group per task; partial (slices, inputs, c_out)."""
    width = panel_width(x)
    panel = scratch(_DEPTH * width, x), 0
    across = -(-outputs // width)
    share = -(-rows // slices)
    for task in tasks(counter):
        j, g = task % across * width, task // across % groups
        part = task // (across * groups)
        columns = min(width, outputs - j)
        out = partial, (part * inputs * groups + g) * outputs + j, groups * outputs
        begin, end = part * share, min((part + 1) * share, rows)
        for start in range(begin, end, _DEPTH):
            depth = min(_DEPTH, end - start)
            fill_panel((dy, (start * groups + g) * outputs + j, groups * outputs), panel, depth, columns)
            left = x, (start * groups + g) * inputs, 1, groups * inputs
            multiply_panel(left, panel, none, out, inputs, depth, columns, start > begin)


def grouped_conv1d_forward(x, w, b=None, groups=1, save=True):
    """A 2-D convolution of one row."""
    y, _ = grouped_conv2d_forward(x[:, None], w[None], b, groups)
    return y[:, 0], ()


def grouped_conv1d_backward(dout, saved):
    """The backward of a 2-D convolution of one row."""
    row = saved._replace(x=saved.x[:, None], w=saved.w[None])
    dx, dw, db = grouped_conv2d_backward(dout[:, None], row)
    return dx[:, 0], dw[0], db


def grouped_conv2d_forward(x, w, b=None, groups=1, save=True):
    """Rows of y are independent."""
    if _is_depthwise(w, groups):
        return conv.depthwise_conv2d_forward(_repeated(x, w), w[:, :, 0], b)
    y = _convolved(x, w, groups)
    if b is not None:
        y += b
    return y, ()


def grouped_conv2d_backward(dout, saved):
    """dx is a convolution of dy with the flipped kernel, its channels exchanged; dw one sum per tap."""
    x, w, groups = saved.x, saved.w, saved.groups
    kh, kw, inputs, c_out = w.shape
    if _is_depthwise(w, groups):
        return _repeated_backward(dout, saved)
    by_group = w[::-1, ::-1].reshape(kh, kw, inputs, groups, c_out // groups)
    # (kh, kw, outputs of a group, groups, inputs of a group)
    exchanged = by_group.transpose(0, 1, 4, 3, 2).reshape(kh, kw, c_out // groups, groups * inputs)
    dx = _convolved(dout, exchanged, groups)
    if (kh, kw) == (1, 1):
        dw = _product_weights(x, dout, groups).reshape(w.shape)
    else:
        dw = empty(w.shape, x.dtype)
        sizes = (*x.shape[1:], c_out)
        args = flat(_padded(x, kh, kw)), flat(dout), dw.reshape(-1), x.shape[0], sizes, (kh, kw), groups
        run(_weight_sums, kh * kw * groups, *args, work=dout.size * kh * kw * inputs / 4)
    return dx, dw, None if saved.b is None else sum_rows(contiguous(dout).reshape(-1, c_out))


def _is_depthwise(w, groups):
    """Whether to run as a depthwise convolution; a single tap with many outputs is better off as products."""
    kh, kw, inputs, c_out = w.shape
    return inputs == 1 and (kh * kw > 1 or c_out // groups < lanes(w))


def _convolved(x, w, groups):
    kh, kw, inputs, c_out = w.shape
    y = empty((*x.shape[:3], c_out), x.dtype)
    if not y.size:
        return y
    if (kh, kw) == (1, 1):
        rows = y.size // c_out
        by_group = w.reshape(inputs, groups, c_out // groups)
        panels = numpy.stack([pack(by_group[:, g]) for g in range(groups)])
        args = flat(x), flat(panels), no_bias(x), y.reshape(-1), rows, groups, inputs, c_out // groups
        run(_products, groups * -(-rows // _TASK_ROWS), *args, work=y.size * inputs / 10)
    else:
        sizes = (*x.shape[1:], c_out)
        args = flat(_padded(x, kh, kw)), flat(w), y.reshape(-1), sizes, (kh, kw), groups
        run(_convolve, x.shape[0] * x.shape[1], *args, work=y.size * kh * kw * inputs / 4)
    return y


def _product_weights(x, dy, groups):
    """x^T dy of each group, summed over all tokens: (inputs, c_out)."""
    inputs, c_out = x.shape[-1] // groups, dy.shape[-1]
    rows = dy.size // c_out
    blocks = groups * -(-c_out // groups // len(no_bias(x)[0]))
    # as many slices as give enough tasks, of one size and not too short
    share = -(-rows // min(-(-_TASKS // blocks), -(-rows // _DEPTH))) if rows else 1
    slices = -(-rows // share)
    partial = empty((slices, inputs * c_out), x.dtype)
    args = flat(x), flat(dy), no_bias(x), partial.reshape(-1), rows, groups, inputs, c_out // groups, slices
    run(_product_sums, slices * blocks, *args, work=dy.size * inputs / 10)
    return sum_rows(partial)


def _padded(x, kh, kw):
    b, h, w, c = x.shape
    padded = zeros((b, h + kh - 1, w + kw - 1, c), x.dtype)
    padded[:, kh // 2 : kh // 2 + h, kw // 2 : kw // 2 + w] = x
    return padded


def _repeated(x, w):
    """x with each channel as often as its group has outputs."""
    times = w.shape[3] // x.shape[3]
    return x if times == 1 else numpy.repeat(x, times, axis=3)


class _Depthwise:
    """What the backward of the depthwise convolution needs."""

    dilation, padding = 1, "same"

    def __init__(self, x, w, b):
        self.x, self.w, self.b = x, w, b


def _repeated_backward(dout, saved):
    x, w = saved.x, saved.w
    depthwise = _Depthwise(_repeated(x, w), w[:, :, 0], saved.b)
    dx, dw, db = conv.depthwise_conv2d_backward(dout, depthwise)
    return dx.reshape(*x.shape, w.shape[3] // x.shape[3]).sum(axis=4), dw.reshape(w.shape), db
