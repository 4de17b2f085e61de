"""Bands of frequencies on the CPU, channels in the lanes: sums band by band, and the network that weighs bands."""

import functools

import numpy

from mixers import orders
from mixers.cpu import matrix
from mixers.cpu.aligned import contiguous, empty, flat, scratch
from mixers.cpu.matrix import fill_panel, multiply_panel, no_bias, panel_width
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import full, lanes, load, maximum, mul_add, sqrt, store, tile
from mixers.cpu.simd import zeros as zero_vector
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import exp, gelu, normal_cdf

# values that a task moves, vectors of channels whose sums are in registers together, and terms that are summed before
# they are added to the others: it keeps the rounding errors small
_TASK_VALUES = 16384
_VECTORS = 4
_RUN = 16


def band_mean_forward(x, bands, save=True):
    y = empty((x.shape[0], bands, x.shape[-1]), x.dtype)
    if y.size:
        order, edges, _ = _bands(x.shape[1:-1], bands)
        factors = (1.0 / numpy.diff(edges)).astype(x.dtype)
        none = empty(0, x.dtype)
        args = flat(x), none, none, none, y.reshape(-1), order, edges, factors, x.shape[-1], False
        run(_sum_bands, len(x) * _blocks(x), *args, work=x.size)
    return y, ()


def band_mean_backward(dout, saved):
    """dy / n, n the size of the band."""
    edges = _bands(saved.x.shape[1:-1], saved.bands)[1]
    shares = dout / numpy.diff(edges).astype(dout.dtype)[:, None]
    return (_scaled(empty(0, dout.dtype), shares, saved.x.shape),)


def band_scale_forward(x, gain, save=True):
    return _scaled(flat(x), gain, x.shape), ()


def band_scale_backward(dout, saved):
    """dx = gain dy, and the sums of x dy, in one pass."""
    x, gain = saved.x, saved.gain
    dx, dgain = empty(x.shape, x.dtype), empty(gain.shape, gain.dtype)
    if x.size:
        order, edges, _ = _bands(x.shape[1:-1], gain.shape[1])
        arrays = flat(x), flat(dout), flat(gain), dx.reshape(-1), dgain.reshape(-1)
        factors = numpy.ones(gain.shape[1], x.dtype)
        args = *arrays, order, edges, factors, x.shape[-1], True
        run(_sum_bands, len(x) * _blocks(x), *args, work=3 * x.size)
    return dx, dgain


def _scaled(x, gain, shape):
    """x times the gain of each band, or the gain alone if x is empty, as an array of the given shape."""
    y = empty(shape, gain.dtype)
    if y.size:
        table, c = _bands(shape[1:-1], gain.shape[1])[2], shape[-1]
        size = max(1, _TASK_VALUES // c)
        args = x, flat(gain), y.reshape(-1), table, gain.shape[1], c, size
        run(_scale_bands, shape[0] * -(-len(table) // size), *args, work=2 * y.size)
    return y


@functools.lru_cache(maxsize=64)
def _bands(grid, count):
    """The tokens band by band, where each band begins, and the band of every token in raster order."""
    n = int(numpy.prod(grid))
    order = numpy.ascontiguousarray(numpy.arange(n) if len(grid) == 1 else orders.zigzag(*grid), numpy.int64)
    edges = numpy.arange(count + 1) * n // count
    table = numpy.empty(n, numpy.int64)
    table[order] = numpy.repeat(numpy.arange(count), numpy.diff(edges))
    return order, edges, table


def _blocks(x):
    return -(-x.shape[-1] // (_VECTORS * lanes(x)))


@helper
def _scale_tokens(x, gain, y, table, first, last, item, bands, c, j, count):
    n = len(table)
    for t in range(first, last):
        place, factor = (item * n + t) * c + j, (item * bands + table[t]) * c + j
        value = get(gain, factor, count)
        if x.size:
            value = value * get(x, place, count)
        put(y, place, value, count)


@kernel
def _scale_bands(x, gain, y, table, bands, c, size, counter):
    """y = x times the gain of its band, some tokens of an item per task."""
    n = len(table)
    parts = -(-n // size)
    whole = c // lanes(y) * lanes(y)
    for task in tasks(counter):
        item, first = task // parts, task % parts * size
        last = min(n, first + size)
        for t in range(first, last):
            place, factor = (item * n + t) * c, (item * bands + table[t]) * c
            if x.size:
                for j in range(0, whole, lanes(y)):
                    store(y, place + j, load(x, place + j) * load(gain, factor + j))
            else:
                for j in range(0, whole, lanes(y)):
                    store(y, place + j, load(gain, factor + j))
        if whole < c:
            _scale_tokens(x, gain, y, table, first, last, item, bands, c, whole, c - whole)


@helper
def _sum_band(x, dy, gain, dx, y, order, first, last, start, at, c, factor, rest, whole, products):
    """The sums over one band of some vectors of channels; `rest` channels are left."""
    total, part, gains = tile(x, _VECTORS), tile(x, _VECTORS), tile(x, _VECTORS)
    for v in range(_VECTORS):
        count = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
        total[v] = zero_vector(x)
        gains[v] = get(gain, at + v * lanes(x), count) if products else zero_vector(x)
    for begin in range(first, last, _RUN):
        for v in range(_VECTORS):
            part[v] = zero_vector(x)
        for t in range(begin, min(last, begin + _RUN)):
            for v in range(_VECTORS):
                count = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
                place = start + order[t] * c + v * lanes(x)
                value = get(x, place, count)
                if products:
                    d = get(dy, place, count)
                    put(dx, place, d * gains[v], count)
                    part[v] = mul_add(value, d, part[v])
                else:
                    part[v] = part[v] + value
        for v in range(_VECTORS):
            total[v] = total[v] + part[v]
    for v in range(_VECTORS):
        count = lanes(x) if whole else max(0, min(lanes(x), rest - v * lanes(x)))
        put(y, at + v * lanes(x), total[v] * factor, count)


@kernel
def _sum_bands(x, dy, gain, dx, y, order, edges, factors, c, products, counter):
    """y = factor times the sum of x over each band; with products the sum of x dy, and dx = gain dy."""
    width, n, bands = _VECTORS * lanes(x), len(order), len(factors)
    blocks = -(-c // width)
    for task in tasks(counter):
        item, j = task // blocks, task % blocks * width
        start, rest = item * n * c + j, c - j
        for band in range(bands):
            members, at = (order, edges[band], edges[band + 1], start), (item * bands + band) * c + j
            # one call for each kind, so that it is compiled for it
            if rest >= width and products:
                _sum_band(x, dy, gain, dx, y, *members, at, c, factors[band], rest, True, True)
            elif rest >= width:
                _sum_band(x, dy, gain, dx, y, *members, at, c, factors[band], rest, True, False)
            else:
                _sum_band(x, dy, gain, dx, y, *members, at, c, factors[band], rest, False, products)


# The network that weighs bands: a task takes a panel of channels of one item, (bands, width) in its scratch.


def band_weights_forward(z, scale, bias, w1, w2, b1=None, b2=None, eps=1e-5, save=True):
    """What lies between the norm and the softmax stays in a task's cache."""
    y = empty(z.shape, z.dtype)
    weights = _folded(z, *map(contiguous, (scale, bias, w1)), w2, b1, b2)
    args = flat(z), *weights, no_bias(z), y.reshape(-1), *_sizes(z, w1), eps
    run(_weigh_bands, _panels(z), *args, work=_work(z, w1))
    return y, ()


def band_weights_backward(dout, saved):
    """The kernel writes the factors of the weights' gradients; a row of ones in one of them gives those of the biases.

    The norm's scale and bias are part of the first layer there: its gradient holds theirs.
    """
    s = saved
    scale, bias, w1 = map(contiguous, (s.scale, s.bias, s.w1))
    (b, k, c), v = s.z.shape, w1.shape[1]
    shapes = (b, k, c), (b, k + 1, c), (b, v + 1, c), (b, k, c), (b, v, c)
    dz, n, hidden, do, dhidden = (empty(shape, s.z.dtype) for shape in shapes)
    weights = _folded(s.z, scale, bias, w1, s.w2, s.b1, s.b2)
    out = (a.reshape(-1) for a in (dz, n, hidden, do, dhidden))
    args = flat(s.z), flat(dout), *weights, no_bias(s.z), *out, *_sizes(s.z, w1), s.eps
    run(_pull_weights, _panels(s.z), *args, work=3 * _work(s.z, w1))
    first, second = matrix.axis_weights(n, dhidden), matrix.axis_weights(hidden, do)
    products, db1 = first[:k], first[k]
    return (
        dz,
        (w1 * products).sum(axis=1),
        (w1 * db1).sum(axis=1),
        scale[:, None] * products + bias[:, None] * db1,
        second[:v].copy(),
        None if s.b1 is None else db1.copy(),
        None if s.b2 is None else second[v].copy(),
    )


def _folded(z, scale, bias, w1, w2, b1, b2):
    """The weights with scale and bias of the norm in those of the first layer, biases as multiply_panel takes them."""
    none = no_bias(z)
    offset = (bias[:, None] * w1).sum(axis=0)
    if b1 is not None:
        offset += b1
    terms = (flat(offset), 0, 1, *none[3:]), none if b2 is None else (flat(b2), 0, 1, *none[3:])
    return flat(scale[:, None] * w1), terms[0], flat(w2), terms[1]


def _panels(z):
    # panel_width is for kernels; what stands for no bias has its length
    return z.shape[0] * -(-z.shape[2] // len(no_bias(z)[0]))


def _sizes(z, w1):
    return z.shape[1], w1.shape[1], z.shape[2]


def _work(z, w1):
    return z.size * w1.shape[1] / 5


@routine
def _standardise(n, rstd, k, eps):
    """Give every column of a panel mean 0 and variance 1; what it was multiplied by goes to rstd."""
    width = panel_width(n)
    for v in range(0, width, lanes(n)):
        total, square = zero_vector(n), zero_vector(n)
        for i in range(k):
            total = total + load(n, i * width + v)
        mean = total / k
        for i in range(k):
            centred = load(n, i * width + v) - mean
            square = mul_add(centred, centred, square)
        factor = 1.0 / sqrt(square / k + eps)
        for i in range(k):
            store(n, i * width + v, (load(n, i * width + v) - mean) * factor)
        store(rstd, v, factor)


@routine
def _soften(o, k):
    """Softmax over the rows of a panel."""
    width = panel_width(o)
    for v in range(0, width, lanes(o)):
        highest, total = load(o, v), zero_vector(o)
        for i in range(1, k):
            highest = maximum(highest, load(o, i * width + v))
        for i in range(k):
            value = exp(load(o, i * width + v) - highest)
            total = total + value
            store(o, i * width + v, value)
        for i in range(k):
            store(o, i * width + v, load(o, i * width + v) / total)


@routine
def _write_panel(panel, y, at, c, rows, columns):
    width = panel_width(y)
    for i in range(rows):
        for v in range(0, width, lanes(y)):
            count = max(0, min(lanes(y), columns - v))
            put(y, at + i * c + v, load(panel, i * width + v), count)


@kernel
def _weigh_bands(z, w1, b1, w2, b2, none, y, k, v, c, eps, counter):
    width = panel_width(z)
    across = -(-c // width)
    n, rstd, hidden = scratch(k * width, z), scratch(width, z), scratch(v * width, z)
    for task in tasks(counter):
        item, j = task // across, task % across * width
        columns, at = min(width, c - j), item * k * c + j
        fill_panel((z, at, c), (n, 0), k, columns)
        _standardise(n, rstd, k, eps)
        multiply_panel((w1, 0, 1, v), (n, 0), b1, (hidden, 0, width), v, k, width, False)
        for i in range(0, v * width, lanes(z)):
            store(hidden, i, gelu(load(hidden, i)))
        multiply_panel((w2, 0, 1, k), (hidden, 0), b2, (n, 0, width), k, v, width, False)
        _soften(n, k)
        _write_panel(n, y, at, c, k, columns)


@routine
def _pull_soften(y, d, k):
    """d = the gradient of the logits, from that of their softmax y."""
    width = panel_width(y)
    for v in range(0, width, lanes(y)):
        dot = zero_vector(y)
        for i in range(v, k * width, width):
            dot = mul_add(load(y, i), load(d, i), dot)
        for i in range(v, k * width, width):
            store(d, i, load(y, i) * (load(d, i) - dot))


@routine
def _pull_standardise(n, rstd, d, k):
    """d = the gradient of what was standardised, from that of n."""
    width = panel_width(n)
    for v in range(0, width, lanes(n)):
        total, along = zero_vector(n), zero_vector(n)
        for i in range(v, k * width, width):
            total = total + load(d, i)
            along = mul_add(load(n, i), load(d, i), along)
        mean, share, factor = total / k, along / k, load(rstd, v)
        for i in range(v, k * width, width):
            store(d, i, factor * (load(d, i) - mean - load(n, i) * share))


_DENSITY, _EXPONENT = 1 / numpy.sqrt(2 * numpy.pi), -0.5


@routine
def _pull_gelu(hidden, slope, size):
    """slope times the derivative of gelu at hidden, and hidden = gelu(hidden)."""
    for i in range(0, size, lanes(hidden)):
        value = load(hidden, i)
        share = normal_cdf(value)
        derivative = mul_add(value * _DENSITY, exp(value * value * _EXPONENT), share)
        store(slope, i, load(slope, i) * derivative)
        store(hidden, i, value * share)


@kernel
def _pull_weights(
    z, dy, w1, b1, w2, b2, none, dz, normal, activated, dlogits, dhidden, k, v, c, eps, counter
):
    """dz, and factors of the weights' gradients: what enters each layer, with a row of ones, and what leaves it."""
    width = panel_width(z)
    across = -(-c // width)
    n, rstd, d, y = scratch(k * width, z), scratch(width, z), scratch(k * width, z), scratch(k * width, z)
    hidden, slope, ones = scratch(v * width, z), scratch(v * width, z), scratch(width, z)
    for task in tasks(counter):
        item, j = task // across, task % across * width
        columns, at = min(width, c - j), item * k * c + j
        fill_panel((z, at, c), (n, 0), k, columns)
        fill_panel((dy, at, c), (d, 0), k, columns)
        _standardise(n, rstd, k, eps)
        multiply_panel((w1, 0, 1, v), (n, 0), b1, (hidden, 0, width), v, k, width, False)
        for i in range(0, v * width, lanes(z)):
            store(slope, i, gelu(load(hidden, i)))
        multiply_panel((w2, 0, 1, k), (slope, 0), b2, (y, 0, width), k, v, width, False)
        _soften(y, k)
        _pull_soften(y, d, k)
        _write_panel(d, dlogits, at, c, k, columns)
        multiply_panel((w2, 0, k, 1), (d, 0), none, (slope, 0, width), v, k, width, False)
        _pull_gelu(hidden, slope, v * width)
        _write_panel(slope, dhidden, item * v * c + j, c, v, columns)
        _write_panel(hidden, activated, item * (v + 1) * c + j, c, v, columns)
        _write_panel(n, normal, item * (k + 1) * c + j, c, k, columns)
        for i in range(0, width, lanes(z)):
            store(ones, i, full(z, 1.0))
        _write_panel(ones, activated, (item * (v + 1) + v) * c + j, c, 1, columns)
        _write_panel(ones, normal, (item * (k + 1) + k) * c + j, c, 1, columns)
        multiply_panel((w1, 0, v, 1), (slope, 0), none, (d, 0, width), k, v, width, False)
        _pull_standardise(n, rstd, d, k)
        _write_panel(d, dz, at, c, k, columns)
