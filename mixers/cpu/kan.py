"""Kolmogorov-Arnold attention on the CPU.

Forward, the lanes are queries: logits of 8 keys at a time, their sines and cosines into a small scratch, and
from there the sums z of all ranks. Backward, the lanes are keys: 16 queries at a time give the gradient of
their logits, which goes on to the rows of dq and dk while it is in the cache. Nothing of size n x n exists.
Rows of q, k and of what belongs to them are packed once per head: padded with zeros to whole vectors and to
a multiple of 16 rows, so that the loops have no tails. What padded rows add is zero.
"""

import math

import numpy
from numpy.lib.stride_tricks import as_strided

from mixers.cpu.aligned import contiguous, empty, flat
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import (
    lane,
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
from mixers.cpu.vector_math import gelu, gelu_derivative, silu, silu_derivative, sincos

# rows of a product that are in registers at once
_ROWS = 8
# ranks whose sums with cosines and sines are in registers at once
_RANKS = 6
_SUMS = 2 * _RANKS
# rows that are handled together, and whose multiples the packed arrays have
_GROUP = 16
# rows whose gradients of the logits are in registers at once
_QUAD = 4
# frequencies after which the angle is computed afresh
_RESEED = 16
# queries of a task of the forward
_QUERIES = 64
# values in a cache line, at most
_SPARE = 16
# tasks of the backward below which the keys of a head are divided among several
_TASKS = 16

_ZERO, _SILU, _IDENTITY, _GELU = range(4)
_BASES = {"zero": _ZERO, "silu": _SILU, "identity": _IDENTITY, "gelu": _GELU}


def kan_attention_forward(q, k, v, phi_cos, phi_sin, w_up, base="zero", scale=None, save=True):
    """z = sum of the functions of the logits over the keys, y = z (w_up^T v)."""
    plan = _Plan(q, phi_cos, base, scale)
    y, z = empty(q.shape, q.dtype), empty((*plan.batch, plan.n, plan.r), q.dtype)
    if y.size:
        keys, u = plan.rows(plan.width), plan.empty(plan.heads * plan.r * plan.width)
        args = (*_in_place(k), *_in_place(v), flat(w_up), keys, u, plan.sizes)
        run(_prepare_forward, plan.heads, *args, work=q.size * plan.r // 8)
        coefficients = _padded_ranks(phi_cos), _padded_ranks(phi_sin)
        count = plan.heads * -(-plan.n // _QUERIES)
        args = (*_in_place(q), keys, u, *coefficients, y.reshape(-1), z.reshape(-1), plan.factor, plan.kind)
        run(_forward, count, *args, plan.sizes, work=plan.work)
    return y, (z,)


def kan_attention_backward(dout, saved):
    """The logits and their sines and cosines are computed again, by blocks of keys."""
    q, k, v, phi_cos, w_up = saved.q, saved.k, saved.v, saved.phi_cos, saved.w_up
    plan = _Plan(q, phi_cos, saved.base, saved.scale)
    if not q.size:
        return tuple(numpy.zeros(a.shape, q.dtype) for a in (q, k, v, phi_cos, phi_cos, w_up))
    dq, dk, dv, dphi_cos, dphi_sin, dw_up = (
        empty(a.shape, q.dtype) for a in (q, k, v, phi_cos, phi_cos, w_up)
    )
    queries, keys = plan.rows(plan.width), plan.rows(plan.width)
    dz, dz_total, dw = plan.rows(plan.depth), plan.rows(1), plan.rows(plan.depth)
    heads, steps = zip(*map(_in_place, (q, k, v, dout)))
    args = (*heads, flat(w_up), flat(saved.z), queries, keys, dz, dz_total, dw, dv.reshape(-1), steps)
    run(_prepare_backward, plan.heads, *args, plan.factor, plan.sizes, work=q.size * plan.r)

    # a vector holds keys, and each task its own sum of dq: some tasks, but not many
    blocks = -(-plan.n // lanes(q))
    parts = min(blocks, -(-_TASKS // plan.heads))
    dq_parts = plan.empty(parts * queries.size)
    dphi = plan.empty(plan.heads * blocks * 2 * plan.g * plan.ranks * lanes(q))
    args = (queries, keys, dz, dz_total, flat(phi_cos), flat(saved.phi_sin), dq_parts, dk.reshape(-1), dphi)
    run(_backward, plan.heads * parts, *args, plan.kind, parts, plan.sizes, work=2 * plan.work)

    args = (dq_parts, dq.reshape(-1), plan.factor, parts, plan.sizes)
    run(_sum_queries, plan.heads, *args, work=dq_parts.size)
    args = (dphi, dw, *(a.reshape(-1) for a in (dphi_cos, dphi_sin, dw_up)), plan.sizes)
    run(_sum_coefficients, plan.h * blocks, *args, work=dphi.size + dw.size)
    return dq, dk, dv, dphi_cos, dphi_sin, dw_up


class _Plan:
    """Sizes of a call; `width`, `ranks` and `depth` are d and r rounded up to what the kernels need."""

    def __init__(self, q, phi_cos, base, scale):
        b, self.n, self.h, d = q.shape
        self.g, self.r = phi_cos.shape[2:]
        self.batch, self.heads, self.dtype = (b, self.h), b * self.h, q.dtype
        self.width = _round_up(d, lanes(q))
        self.ranks = _round_up(self.r, _RANKS)
        self.depth = _round_up(self.ranks, lanes(q))
        self.padded = _round_up(self.n, _GROUP)
        self.sizes = (b, self.n, self.h, d, self.g, self.r, self.padded, self.width, self.ranks, self.depth)
        self.work = self.heads * self.n**2 * (d + 2 * self.g * self.r + 20) // 8
        self.kind = _BASES[base]
        self.factor = q.dtype.type(1 / math.sqrt(max(d, 1)) if scale is None else scale)

    def empty(self, size):
        return empty(size, self.dtype)

    def rows(self, width):
        """A packed array: rows of this width for every head."""
        return self.empty(self.heads * self.padded * width)


def _round_up(size, multiple):
    return -(-size // multiple) * multiple


def _padded_ranks(phi):
    """Coefficients as the forward reads them: whole groups of ranks, the new ones zero."""
    missing = -phi.shape[3] % _RANKS
    return flat(numpy.pad(phi, ((0, 0),) * 3 + ((0, missing),)) if missing else phi)


def _in_place(x):
    """A flat array and the steps of batch, token and head in it, copied only if heads are no rows."""
    steps = tuple(step // x.itemsize for step in x.strides)
    rows = steps[3] == 1 or x.shape[3] == 1
    if not (rows and x.flags.aligned and all(s >= 0 and s % x.itemsize == 0 for s in x.strides)):
        x = contiguous(x)
        steps = tuple(step // x.itemsize for step in x.strides)
    extent = 1 + sum((size - 1) * step for size, step in zip(x.shape, steps))
    return contiguous(as_strided(x, (extent,), (x.itemsize,))), steps[:3]


@helper
def _start(steps, item, head):
    """Offset of a head's first token."""
    return item * steps[0] + head * steps[2]


@helper
def _line(x):
    """Index of the first value that begins a cache line."""
    return -x.ctypes.data % 64 // x.itemsize


@helper
def _clear(x, start, size):
    for i in range(start, start + size, lanes(x)):
        store(x, i, zeros(x))


@helper
def _pack(x, start, step, rows, d, factor, out, out_start, width):
    """Rows of d values, times a factor, as rows of `width` values that end with zeros."""
    for i in range(rows):
        for c in range(0, width, lanes(x)):
            value = (
                load(x, start + i * step + c)
                if d - c >= lanes(x)
                else load_first(x, start + i * step + c, d - c)
            )
            store(out, out_start + i * width + c, value * factor)


@helper
def _unpack(x, x_start, width, rows, d, factor, out, start, step):
    for i in range(rows):
        for c in range(0, width, lanes(x)):
            value = load(x, x_start + i * width + c) * factor
            if d - c >= lanes(x):
                store(out, start + i * step + c, value)
            else:
                store_first(out, start + i * step + c, value, d - c)


@routine
def _multiply_add(left, start, row_step, column_step, rows, depth, right, right_start, out, out_start, width):
    """out += left right, where rows of `right` and `out` have `width` values, whole vectors."""
    sums = tile(out, _ROWS)
    for i in range(0, rows, _ROWS):
        for c in range(0, width, lanes(out)):
            for s in range(_ROWS):
                sums[s] = load(out, out_start + min(i + s, rows - 1) * width + c)
            for j in range(depth):
                value = load(right, right_start + j * width + c)
                for s in range(_ROWS):
                    factor = scalar(left, start + min(i + s, rows - 1) * row_step + j * column_step)
                    sums[s] = mul_add(value, factor, sums[s])
            for s in range(_ROWS):
                if i + s < rows:
                    store(out, out_start + (i + s) * width + c, sums[s])


@routine
def _project(left, start, row_step, column_step, x, x_start, x_step, n, r, d, part, out, out_start, width):
    """out[p] = sum_j left[p, j] x[j], with rows of x packed into `part` by groups."""
    _clear(out, out_start, r * width)
    for j in range(0, n, _GROUP):
        rows = min(n - j, _GROUP)
        _pack(x, x_start + j * x_step, x_step, rows, d, x.dtype.type(1), part, 0, width)
        first = start + j * column_step
        _multiply_add(left, first, row_step, column_step, r, rows, part, 0, out, out_start, width)


@helper
def _transpose(x, rows, width, columns, out, depth):
    """out[c, i] = x[i, c] for c < columns, with zeros from column `rows` to `depth`."""
    _clear(out, 0, columns * depth)
    for c in range(columns):
        for i in range(rows):
            out[c * depth + i] = x[i * width + c]


@helper
def _as_lanes(x, start, row_step, rows, size, out):
    """Up to `lanes` rows of x side by side: out[e, lane] = x[row, e], zero in the lanes beyond."""
    for e in range(size):
        for i in range(lanes(x)):
            out[e * lanes(x) + i] = scalar(x, start + i * row_step + e) if i < rows else x.dtype.type(0)


@helper
def _logits(rows, start, width, d, columns, out, at):
    """Products of _ROWS packed rows with the vectors in the lanes of `columns` (d, lanes)."""
    sums = tile(out, _ROWS)
    for i in range(_ROWS):
        sums[i] = zeros(out)
    for e in range(d):
        value = load(columns, e * lanes(out))
        for i in range(_ROWS):
            sums[i] = mul_add(value, scalar(rows, start + i * width + e), sums[i])
    for i in range(_ROWS):
        store(out, at + i * lanes(out), sums[i])


@helper
def _frequencies(a, g, out, start):
    """Vectors cos(m a), sin(m a) for m = 1..g, by turning on; the error of that grows with m."""
    sine_1, cosine_1 = sincos(a)
    sine, cosine = sine_1, cosine_1
    for m in range(1, g + 1):
        store(out, start, cosine)
        store(out, start + lanes(out), sine)
        start += 2 * lanes(out)
        if m % _RESEED:
            turned = cosine * cosine_1 - sine * sine_1
            sine = sine * cosine_1 + cosine * sine_1
            cosine = turned
        elif m < g:
            # the product with what its rounding lost, so that a large angle keeps its phase
            high = a * (m + 1)
            low = mul_add(a, m + 1, -high)
            sine_high, cosine_high = sincos(high)
            sine_low, cosine_low = sincos(low)
            cosine = cosine_high * cosine_low - sine_high * sine_low
            sine = sine_high * cosine_low + cosine_high * sine_low


@helper
def _base(kind, a):
    if kind == _SILU:
        return silu(a)
    return gelu(a) if kind == _GELU else a


@helper
def _base_slope(kind, a):
    if kind == _SILU:
        return silu_derivative(a)
    return gelu_derivative(a) if kind == _GELU else zeros(a) + 1.0


@kernel
def _prepare_forward(k, k_steps, v, v_steps, w_up, keys, u, sizes, counter):
    """Pack the keys and compute u = w_up^T v."""
    _, n, h, d, _, r, padded, width, _, _ = sizes
    part = numpy.empty(_GROUP * width + _SPARE, keys.dtype)
    part = part[_line(part) :]
    for task in tasks(counter):
        item, head = task // h, task % h
        one = keys.dtype.type(1)
        start = _start(k_steps, item, head)
        _pack(k, start, k_steps[1], n, d, one, keys, task * padded * width, width)
        _clear(keys, (task * padded + n) * width, (padded - n) * width)
        start = _start(v_steps, item, head)
        _project(
            *(w_up, head * n * r, 1, r),
            *(v, start, v_steps[1], n, r, d),
            *(part, u, task * r * width, width),
        )


@helper
def _rank_sums(f, phi_cos, phi_sin, start, rows, ranks, z):
    """z[p] += sum over the rows (key and frequency) of both products with the coefficients."""
    sums = tile(z, _SUMS)
    for p in range(0, ranks, _RANKS):
        for s in range(_RANKS):
            sums[s] = load(z, (p + s) * lanes(z))
            sums[_RANKS + s] = zeros(z)
        for i in range(rows):
            cosine = load(f, 2 * i * lanes(z))
            sine = load(f, (2 * i + 1) * lanes(z))
            at = (start + i) * ranks + p
            for s in range(_RANKS):
                sums[s] = mul_add(cosine, scalar(phi_cos, at + s), sums[s])
                sums[_RANKS + s] = mul_add(sine, scalar(phi_sin, at + s), sums[_RANKS + s])
        for s in range(_RANKS):
            store(z, (p + s) * lanes(z), sums[s] + sums[_RANKS + s])


@kernel
def _forward(q, q_steps, keys, u, phi_cos, phi_sin, y, z, factor, kind, sizes, counter):
    """Tasks: a head and a block of queries, of which each vector of queries meets all keys."""
    _, n, h, d, g, r, padded, width, ranks, _ = sizes
    count = lanes(y)
    columns = numpy.empty(d * count + _SPARE, y.dtype)
    columns = columns[_line(columns) :]
    a = numpy.empty(_ROWS * count + _SPARE, y.dtype)
    a = a[_line(a) :]
    f = numpy.empty(_ROWS * 2 * g * count + _SPARE, y.dtype)
    f = f[_line(f) :]
    sums = numpy.empty(ranks * count + _SPARE, y.dtype)
    sums = sums[_line(sums) :]
    rows_of_y = numpy.empty(count * width + _SPARE, y.dtype)
    rows_of_y = rows_of_y[_line(rows_of_y) :]
    blocks = -(-n // _QUERIES)
    for task in tasks(counter):
        pair, block = task // blocks, task % blocks
        item, head = pair // h, pair % h
        start = _start(q_steps, item, head)
        for i in range(block * _QUERIES, min(n, (block + 1) * _QUERIES), count):
            rows = min(n - i, count)
            _as_lanes(q, start + i * q_steps[1], q_steps[1], rows, d, columns)
            for e in range(0, d * count, count):
                store(columns, e, load(columns, e) * factor)
            _clear(sums, 0, ranks * count)
            total = zeros(y)
            for j in range(0, n, _ROWS):
                _logits(keys, (pair * padded + j) * width, width, d, columns, a, 0)
                known = min(n - j, _ROWS)
                for s in range(known):
                    logit = load(a, s * count)
                    _frequencies(logit, g, f, s * 2 * g * count)
                    if kind != _ZERO:
                        total = total + _base(kind, logit)
                _rank_sums(f, phi_cos, phi_sin, (head * n + j) * g, known * g, ranks, sums)
            for p in range(r):
                value = load(sums, p * count) + total
                store(sums, p * count, value)
                for s in range(rows):
                    z[(pair * n + i + s) * r + p] = sums[p * count + s]
            _clear(rows_of_y, 0, count * width)
            _multiply_add(sums, 0, 1, count, count, r, u, pair * r * width, rows_of_y, 0, width)
            at = ((item * n + i) * h + head) * d
            _unpack(rows_of_y, 0, width, rows, d, y.dtype.type(1), y, at, h * d)


@kernel
def _prepare_backward(
    q, k, v, dout, w_up, z, queries, keys, dz, dz_total, dw, dv, steps, factor, sizes, counter
):
    """Pack queries and keys; dz = dout u^T, dv = w_up du, and this batch item's dw_up = v du^T."""
    _, n, h, d, _, r, padded, width, _, depth = sizes
    part = numpy.empty(_GROUP * width + _SPARE, dv.dtype)
    part = part[_line(part) :]
    u = numpy.empty(r * width + _SPARE, dv.dtype)
    u = u[_line(u) :]
    turned = numpy.empty(d * depth + _SPARE, dv.dtype)
    turned = turned[_line(turned) :]
    one = dv.dtype.type(1)
    for task in tasks(counter):
        item, head = task // h, task % h
        first = task * padded
        q_steps, k_steps, v_steps, dout_steps = steps
        v_start, dout_start = _start(v_steps, item, head), _start(dout_steps, item, head)
        _pack(q, _start(q_steps, item, head), q_steps[1], n, d, factor, queries, first * width, width)
        _clear(queries, (first + n) * width, (padded - n) * width)
        _pack(k, _start(k_steps, item, head), k_steps[1], n, d, one, keys, first * width, width)
        _clear(keys, (first + n) * width, (padded - n) * width)
        # u = w_up^T v, dz = dout u^T
        _project(
            *(w_up, head * n * r, 1, r),
            *(v, v_start, v_steps[1], n, r, d),
            *(part, u, 0, width),
        )
        _transpose(u, r, width, d, turned, depth)
        _clear(dz, first * depth, padded * depth)
        _multiply_add(dout, dout_start, dout_steps[1], 1, n, d, turned, 0, dz, first * depth, depth)
        for i in range(padded):
            total = dv.dtype.type(0)
            for p in range(r):
                total += dz[(first + i) * depth + p]
            dz_total[first + i] = total
        # du = z^T dout, dw_up = v du^T, dv = w_up du
        _project(
            *(z, task * n * r, 1, r),
            *(dout, dout_start, dout_steps[1], n, r, d),
            *(part, u, 0, width),
        )
        _transpose(u, r, width, d, turned, depth)
        _clear(dw, first * depth, n * depth)
        _multiply_add(v, v_start, v_steps[1], 1, n, d, turned, 0, dw, first * depth, depth)
        for j in range(0, n, _GROUP):
            rows = min(n - j, _GROUP)
            _clear(part, 0, rows * width)
            _multiply_add(w_up, (head * n + j) * r, r, 1, rows, r, u, 0, part, 0, width)
            _unpack(part, 0, width, rows, d, one, dv, ((item * n + j) * h + head) * d, h * d)


@helper
def _logit_gradients(f, phi, dz, dz_start, depth, g, r, ranks, out):
    """da of a group of queries and the keys in the lanes, base function apart.

    da = sum_m m (cos(m a) e_sin - sin(m a) e_cos), e = sum_p dz[p] phi[m, p].
    """
    e_cos, e_sin, da = tile(out, _QUAD), tile(out, _QUAD), tile(out, _QUAD)
    for i in range(0, _GROUP, _QUAD):
        for s in range(_QUAD):
            da[s] = zeros(out)
        for m in range(g):
            for s in range(_QUAD):
                e_cos[s] = zeros(out)
                e_sin[s] = zeros(out)
            for p in range(r):
                phi_cos = load(phi, (2 * m * ranks + p) * lanes(out))
                phi_sin = load(phi, ((2 * m + 1) * ranks + p) * lanes(out))
                for s in range(_QUAD):
                    factor = scalar(dz, dz_start + (i + s) * depth + p)
                    e_cos[s] = mul_add(phi_cos, factor, e_cos[s])
                    e_sin[s] = mul_add(phi_sin, factor, e_sin[s])
            for s in range(_QUAD):
                at = 2 * ((i + s) * g + m) * lanes(out)
                turn = load(f, at) * e_sin[s] - load(f, at + lanes(out)) * e_cos[s]
                da[s] = mul_add(turn, m + 1, da[s])
        for s in range(_QUAD):
            store(out, (i + s) * lanes(out), da[s])


@helper
def _coefficient_gradients(f, dz, dz_start, depth, g, ranks, out):
    """Add what a group of queries gives: sum_i cos(m a[i]) dz[i, p], and with sin, keys in the lanes."""
    sums = tile(out, _SUMS)
    for m in range(g):
        for p in range(0, ranks, _RANKS):
            cosines = (2 * m * ranks + p) * lanes(out)
            sines = cosines + ranks * lanes(out)
            for s in range(_RANKS):
                sums[s] = load(out, cosines + s * lanes(out))
                sums[_RANKS + s] = load(out, sines + s * lanes(out))
            for i in range(_GROUP):
                at = 2 * (i * g + m) * lanes(out)
                cosine, sine = load(f, at), load(f, at + lanes(out))
                for s in range(_RANKS):
                    factor = scalar(dz, dz_start + i * depth + p + s)
                    sums[s] = mul_add(cosine, factor, sums[s])
                    sums[_RANKS + s] = mul_add(sine, factor, sums[_RANKS + s])
            for s in range(_RANKS):
                store(out, cosines + s * lanes(out), sums[s])
                store(out, sines + s * lanes(out), sums[_RANKS + s])


@helper
def _load_coefficients(phi_cos, phi_sin, start, rows, g, r, ranks, out):
    """Coefficients of the keys in the lanes, (frequency, cos or sin, rank); zero where there is none."""
    _clear(out, 0, 2 * g * ranks * lanes(out))
    for i in range(rows):
        for m in range(g):
            for p in range(r):
                at = (start + i) * g * r + m * r + p
                out[(2 * m * ranks + p) * lanes(out) + i] = phi_cos[at]
                out[((2 * m + 1) * ranks + p) * lanes(out) + i] = phi_sin[at]


@kernel
def _backward(queries, keys, dz, dz_total, phi_cos, phi_sin, dq_parts, dk, dphi, kind, parts, sizes, counter):
    """Tasks: a head and a part of its keys, by vectors of keys that meet all queries."""
    _, n, h, d, g, r, padded, width, ranks, depth = sizes
    count = lanes(dk)
    blocks = -(-n // count)
    columns = numpy.empty(d * count + _SPARE, dk.dtype)
    columns = columns[_line(columns) :]
    a = numpy.empty(_GROUP * count + _SPARE, dk.dtype)
    a = a[_line(a) :]
    f = numpy.empty(_GROUP * 2 * g * count + _SPARE, dk.dtype)
    f = f[_line(f) :]
    da = numpy.empty(_GROUP * count + _SPARE, dk.dtype)
    da = da[_line(da) :]
    phi = numpy.empty(2 * g * ranks * count + _SPARE, dk.dtype)
    phi = phi[_line(phi) :]
    sums = numpy.empty(2 * g * ranks * count + _SPARE, dk.dtype)
    sums = sums[_line(sums) :]
    rows_of_dk = numpy.empty(count * width + _SPARE, dk.dtype)
    rows_of_dk = rows_of_dk[_line(rows_of_dk) :]
    for task in tasks(counter):
        pair, part = task // parts, task % parts
        item, head = pair // h, pair % h
        _clear(dq_parts, task * padded * width, padded * width)
        for block in range(part * blocks // parts, (part + 1) * blocks // parts):
            j = block * count
            rows = min(n - j, count)
            key_start = (pair * padded + j) * width
            _as_lanes(keys, key_start, width, rows, d, columns)
            _load_coefficients(phi_cos, phi_sin, head * n + j, rows, g, r, ranks, phi)
            _clear(sums, 0, 2 * g * ranks * count)
            _clear(rows_of_dk, 0, count * width)
            for i in range(0, n, _GROUP):
                first = pair * padded + i
                for s in range(0, _GROUP, _ROWS):
                    _logits(queries, (first + s) * width, width, d, columns, a, s * count)
                for s in range(_GROUP):
                    _frequencies(load(a, s * count), g, f, s * 2 * g * count)
                _logit_gradients(f, phi, dz, first * depth, depth, g, r, ranks, da)
                if kind != _ZERO:
                    for s in range(_GROUP):
                        slope = _base_slope(kind, load(a, s * count))
                        value = mul_add(slope, scalar(dz_total, first + s), load(da, s * count))
                        store(da, s * count, value)
                _coefficient_gradients(f, dz, first * depth, depth, g, ranks, sums)
                at = (task * padded + i) * width
                _multiply_add(da, 0, count, 1, _GROUP, count, keys, key_start, dq_parts, at, width)
                _multiply_add(da, 0, 1, count, count, _GROUP, queries, first * width, rows_of_dk, 0, width)
            at = ((item * n + j) * h + head) * d
            _unpack(rows_of_dk, 0, width, rows, d, dk.dtype.type(1), dk, at, h * d)
            start = (pair * blocks + block) * 2 * g * ranks * count
            for s in range(0, 2 * g * ranks * count, count):
                store(dphi, start + s, load(sums, s))


@kernel
def _sum_queries(dq_parts, dq, factor, parts, sizes, counter):
    """dq = scale times the sum over the parts of the keys."""
    _, n, h, d, _, _, padded, width, _, _ = sizes
    for task in tasks(counter):
        item, head = task // h, task % h
        start = task * parts * padded * width
        for part in range(1, parts):
            other = start + part * padded * width
            for i in range(0, n * width, lanes(dq)):
                store(dq_parts, start + i, load(dq_parts, start + i) + load(dq_parts, other + i))
        _unpack(dq_parts, start, width, n, d, factor, dq, (item * n * h + head) * d, h * d)


@kernel
def _sum_coefficients(dphi, dw, dphi_cos, dphi_sin, dw_up, sizes, counter):
    """Sums over the batch, from the lanes back to (h, n, g, r) and (h, n, r). Tasks: a head, a vector of keys."""
    b, n, h, _, g, r, padded, _, ranks, depth = sizes
    count = lanes(dw_up)
    blocks = -(-n // count)
    for task in tasks(counter):
        head, j = task // blocks, task % blocks * count
        rows = min(n - j, count)
        size = 2 * g * ranks * count
        for m in range(2 * g):
            for p in range(r):
                total = zeros(dphi)
                for item in range(b):
                    block = (item * h + head) * blocks + task % blocks
                    total = total + load(dphi, block * size + (m * ranks + p) * count)
                out = dphi_sin if m % 2 else dphi_cos
                for i in range(rows):
                    out[((head * n + j + i) * g + m // 2) * r + p] = lane(total, i)
        for i in range(rows):
            for p in range(0, r, count):
                total = zeros(dw)
                for item in range(b):
                    total = total + load(dw, ((item * h + head) * padded + j + i) * depth + p)
                at = (head * n + j + i) * r + p
                store_first(dw_up, at, total, min(r - p, count))
