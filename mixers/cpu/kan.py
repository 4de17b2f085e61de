"""Kolmogorov-Arnold attention on the CPU.

Forward, the lanes are queries, backward they are keys: a strip of up to three vectors of them at a time. All
products are tiles of a result in registers (:mod:`mixers.cpu.kan_tiles`), whose left factors are read where they are:
logits of a few rows and the strip, their cosines and sines into scratch in the first-level cache, and from there the
sums z or the gradients. Nothing of size n x n exists.
"""

import math

import numpy
from numpy.lib.stride_tricks import as_strided

from mixers.cpu.aligned import contiguous, empty, flat, scratch
from mixers.cpu.kan_tiles import (
    DEPTH,
    WIDE,
    clear,
    multiply,
    multiply_rows,
    pack,
    project,
    side_by_side,
    transpose,
    unpack,
)
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, routine, run, tasks
from mixers.cpu.simd import (
    REGISTERS,
    any_lane,
    lanes,
    load,
    mul_add,
    scalar,
    store,
    tile,
    zeros,
)
from mixers.cpu.turn import turn, turn_back
from mixers.cpu.vector_math import far, gelu, gelu_derivative, silu, silu_derivative, sincos, sincos_near

# rows whose gradients of the logits are in registers at once
_FEW = 4 if REGISTERS == 32 else 2
# rows whose cosines and sines are in the cache at once, and rows whose gradients of the logits are
_GROUP, _CHUNK = 28, 112
# frequencies after which the angle is computed afresh
_RESEED = 16
# tasks below which those of a head are divided
_TASKS = 12

_ZERO, _SILU, _IDENTITY, _GELU = range(4)
_BASES = {"zero": _ZERO, "silu": _SILU, "identity": _IDENTITY, "gelu": _GELU}


def kan_attention_forward(q, k, v, phi_cos, phi_sin, w_up, base="zero", scale=None, save=True):
    """z = sum of the functions of the logits over the keys, y = z (w_up^T v)."""
    plan = _Plan(q, phi_cos, base, scale)
    y, z = empty(q.shape, q.dtype), empty((*plan.batch, plan.n, plan.r), q.dtype)
    if y.size:
        heads, steps = zip(*map(_in_place, (q, k, v)))
        arrays = *map(flat, (phi_cos, phi_sin, w_up)), y.reshape(-1), z.reshape(-1)
        plan.run(_forward, *heads, (*steps, _steps(z.swapaxes(1, 2))), *arrays, True)
    return y, (z,)


def kan_attention_backward(dout, saved):
    """The logits and their sines and cosines are computed again, by strips of keys."""
    q, k, v, phi_cos, w_up = saved.q, saved.k, saved.v, saved.phi_cos, saved.w_up
    plan = _Plan(q, phi_cos, saved.base, saved.scale)
    if not q.size:
        return tuple(numpy.zeros(a.shape, q.dtype) for a in (q, k, v, phi_cos, phi_cos, w_up))
    # a strip holds keys, so each part of them has its own sum of dq; each item its own of the parameters
    dq, dw = empty((plan.parts, *q.shape), q.dtype), empty((plan.batch[0], w_up.size), q.dtype)
    dk, dv = empty(k.shape, q.dtype), empty(v.shape, q.dtype)
    heads, steps = zip(*map(_in_place, (q, k, v, dout)))
    arrays = map(flat, (phi_cos, saved.phi_sin, w_up, saved.z))
    results = (a.reshape(-1) for a in (dq, dk, dv, dw))
    dphi = plan.pull(*heads, (*steps, _steps(dq[0]), _steps(dk)), *arrays, *results, True)
    dq, dw = (a[0] if len(a) == 1 else sum_rows(a.reshape(len(a), -1)) for a in (dq, dw))
    return dq.reshape(q.shape), dk, dv, *dphi, dw.reshape(w_up.shape)


def kan_sums_forward(qk, phi_cos, phi_sin, base="zero", scale=None, save=True):
    """z alone, written with the heads behind the tokens."""
    q, k = qk[:, :, 0], qk[:, :, 1]
    plan = _Plan(q, phi_cos, base, scale)
    z = empty((qk.shape[0], plan.n, plan.batch[1], plan.r), q.dtype)
    if z.size:
        heads, steps = zip(*map(_in_place, (q, k)))
        phi, out = tuple(map(flat, (phi_cos, phi_sin))), z.reshape(-1)
        # keys and coefficients stand for values and w_up, which are not read
        plan.run(_forward, *heads, heads[1], (*steps, steps[1], _steps(z)), *phi, phi[0], out, out, False)
    return z, ()


def kan_sums_backward(dout, saved):
    """dq and dk side by side, like q and k."""
    qk, phi_cos = saved.qk, saved.phi_cos
    q, k = qk[:, :, 0], qk[:, :, 1]
    plan = _Plan(q, phi_cos, saved.base, saved.scale)
    if not qk.size:
        return tuple(numpy.zeros(a.shape, q.dtype) for a in (qk, phi_cos, phi_cos))
    dqk = empty(qk.shape, q.dtype)
    dq = empty((plan.parts, *q.shape), q.dtype) if plan.parts > 1 else dqk[None, :, :, 0]
    dk = dqk[:, :, 1]
    heads, steps = zip(*map(_in_place, (q, k, dout)))
    steps = (*steps[:2], steps[1], steps[2], _steps(dq[0]), _steps(dk))
    phi, flat_dqk = tuple(map(flat, (phi_cos, saved.phi_sin))), dqk.reshape(-1)
    results = dq.reshape(-1) if plan.parts > 1 else flat_dqk, flat_dqk[q[0, 0].size :]
    dphi = plan.pull(*heads[:2], heads[1], heads[2], steps, *phi, *phi, *results, *results, False)
    if plan.parts > 1:
        dqk[:, :, 0] = sum_rows(dq.reshape(plan.parts, -1)).reshape(q.shape)
    return dqk, *dphi


class _Plan:
    """Sizes of a call; `width` and `depth` are d and r rounded up to whole vectors."""

    def __init__(self, q, phi_cos, base, scale):
        b, self.n, h, d = q.shape
        self.g, self.r = phi_cos.shape[2:]
        self.batch, self.heads = (b, h), b * h
        blocks = -(-self.n // lanes(q))
        self.strips = -(-blocks // WIDE)
        # of whole strips
        self.parts = min(-(-_TASKS // max(self.heads, 1)), self.strips)
        width, depth = (-(-size // lanes(q)) * lanes(q) for size in (d, self.r))
        self.sizes = (b, self.n, h, d, self.g, self.r, width, depth, blocks, self.strips)
        self.work = self.heads * self.n**2 * (d + 2 * self.g * self.r + 20) // 8
        self.kind = _BASES[base]
        self.factor = q.dtype.type(1 / math.sqrt(max(d, 1)) if scale is None else scale)

    def run(self, kernel, *args, times=1):
        args = *args, self.factor, self.kind, self.parts, self.sizes
        run(kernel, self.heads * self.parts, *args, work=times * self.work)

    def pull(self, *args):
        """Run the backward and return dphi_cos, dphi_sin."""
        shape, dtype = (self.batch[1], self.n, self.g, self.r), args[0].dtype
        strips = self.strips * 2 * self.g * self.r * WIDE * lanes(args[0])
        dphi, dphi_cos, dphi_sin = empty(self.heads * strips, dtype), empty(shape, dtype), empty(shape, dtype)
        self.run(_backward, *args[:-1], dphi, args[-1], times=2)
        sums = dphi, dphi_cos.reshape(-1), dphi_sin.reshape(-1), self.sizes
        run(_sum_coefficients, self.batch[1] * self.strips, *sums, work=dphi.size)
        return dphi_cos, dphi_sin


def _steps(x):
    """Steps of batch, token and head."""
    return tuple(step // x.itemsize for step in x.strides[:3])


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
def _base(kind, a):
    if kind == _SILU:
        return silu(a)
    return gelu(a) if kind == _GELU else a


@helper
def _base_slope(kind, a):
    if kind == _SILU:
        return silu_derivative(a)
    return gelu_derivative(a) if kind == _GELU else zeros(a) + 1.0


@helper
def _frequencies(a, g, cosines, sines, at, wide):
    """Vectors cos(m a), sin(m a) for m = 1..g, by turning on; the error of that grows with m."""
    sine_1, cosine_1 = sincos(a)
    sine, cosine = sine_1, cosine_1
    for m in range(1, g + 1):
        store(cosines, at, cosine)
        store(sines, at, sine)
        at += wide
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


def _few_frequencies(rows, vectors):
    """As :func:`_frequencies` for several rows of a strip at once, which keeps the processor busy."""
    count = rows * vectors

    @helper
    def functions(a, known, g, cosines, sines):
        wide = vectors * lanes(a)
        cosine, sine, cosine_1, sine_1 = tile(a, count), tile(a, count), tile(a, count), tile(a, count)
        for i in range(0, known, rows):
            for s in range(rows):
                for v in range(vectors):
                    # a row beyond the last repeats it
                    value = load(a, min(i + s, known - 1) * wide + v * lanes(a))
                    sine[s * vectors + v], cosine[s * vectors + v] = sincos_near(value)
                    sine_1[s * vectors + v], cosine_1[s * vectors + v] = (
                        sine[s * vectors + v],
                        cosine[s * vectors + v],
                    )
            for m in range(g):
                for s in range(rows):
                    for v in range(vectors):
                        t, at = s * vectors + v, (min(i + s, known - 1) * g + m) * wide + v * lanes(a)
                        store(cosines, at, cosine[t])
                        store(sines, at, sine[t])
                        turned = cosine[t] * cosine_1[t] - sine[t] * sine_1[t]
                        sine[t] = sine[t] * cosine_1[t] + cosine[t] * sine_1[t]
                        cosine[t] = turned

    return functions


_in_strips_of_one, _in_strips_of_two, _in_strips_of_three = (
    _few_frequencies(rows, vectors) for rows, vectors in ((4, 1), (2, 2), (1, 3))
)


@routine
def _functions(a, rows, vectors, g, cosines, sines):
    """Cosines and sines of rows of logits: (row, frequency, lane)."""
    wide = vectors * lanes(a)
    beyond = far(zeros(a))
    for i in range(0, rows * wide, lanes(a)):
        beyond = beyond | far(load(a, i))
    if g > _RESEED or any_lane(beyond):
        for i in range(rows):
            for v in range(0, wide, lanes(a)):
                _frequencies(load(a, i * wide + v), g, cosines, sines, i * g * wide + v, wide)
    elif vectors == 3:
        _in_strips_of_three(a, rows, g, cosines, sines)
    elif vectors == 2:
        _in_strips_of_two(a, rows, g, cosines, sines)
    else:
        _in_strips_of_one(a, rows, g, cosines, sines)


@kernel
def _forward(q, k, v, steps, phi_cos, phi_sin, w_up, y, z, valued, factor, kind, parts, sizes, counter):
    """Tasks: a head and a part of its queries, of which each strip meets all keys. y only if `valued`."""
    b, n, h, d, g, r, width, _, blocks, strips = sizes
    most = WIDE * lanes(y)
    queries, packed, u = scratch(d * most, y), scratch(DEPTH * width, y), scratch(r * width, y)
    a, total = scratch(_GROUP * most, y), scratch(most, y)
    cosines, sines = scratch(_GROUP * g * most, y), scratch(_GROUP * g * most, y)
    sums, rows_of_y = scratch(r * most, y), scratch(most * width, y)
    q_steps, k_steps, v_steps, z_steps = steps
    for task in tasks(counter):
        pair, part = task % (b * h), task // (b * h)
        item, head = pair // h, pair % h
        q_start, k_start = _start(q_steps, item, head), _start(k_steps, item, head)
        if valued:
            up = w_up, head * n * r, 1, r
            project(up, v, _start(v_steps, item, head), v_steps[1], r, n, d, packed, u, width)
        for strip in range(part * strips // parts, (part + 1) * strips // parts):
            first, last = strip * blocks // strips, (strip + 1) * blocks // strips
            vectors, wide, i = last - first, (last - first) * lanes(y), first * lanes(y)
            rows = min(n - i, wide)
            side_by_side(q, q_start + i * q_steps[1], q_steps[1], rows, d, factor, queries, wide)
            clear(sums, 0, r * wide)
            clear(total, 0, wide)
            for j in range(0, n, _GROUP):
                known = min(n - j, _GROUP)
                keys = k, k_start + j * k_steps[1], k_steps[1], 1
                multiply(keys, (queries, 0, wide), (a, 0, wide), known, d, vectors, False)
                _functions(a, known, vectors, g, cosines, sines)
                at, out = (head * n + j) * g * r, (sums, 0, wide)
                multiply((phi_cos, at, 1, r), (cosines, 0, wide), out, r, known * g, vectors, True)
                multiply((phi_sin, at, 1, r), (sines, 0, wide), out, r, known * g, vectors, True)
                if kind != _ZERO:
                    for s in range(known):
                        for e in range(0, wide, lanes(y)):
                            store(total, e, load(total, e) + _base(kind, load(a, s * wide + e)))
            for p in range(r):
                for e in range(0, wide, lanes(y)):
                    store(sums, p * wide + e, load(sums, p * wide + e) + load(total, e))
            out = z, _start(z_steps, item, head) + i * z_steps[1], z_steps[1]
            turn_back((sums, 0), out, rows, r, wide)
            if valued:
                multiply_rows((sums, 0, 1, wide), (u, 0, width), (rows_of_y, 0, width), rows, r, width, False)
                unpack(rows_of_y, width, rows, d, y, ((item * n + i) * h + head) * d, h * d)


def _pull_tile(rows, vectors):
    """Gradients of the logits of some queries and the keys in a strip, base function apart, from row i on.

    da = sum_m cos(m a) e_sin + sin(m a) e_cos with e = sum_p dz[p] phi[m, p], where phi_sin and phi_cos are
    times m and -m.
    """
    count = rows * vectors

    @helper
    def add(functions, phi, i, m, dz, start, depth, g, r, total):
        wide = vectors * lanes(dz)
        e = tile(dz, count)
        for s in range(count):
            e[s] = zeros(dz)
        for p in range(r):
            for s in range(rows):
                factor = scalar(dz, start + (i + s) * depth + p)
                for v in range(vectors):
                    value = load(phi, (m * r + p) * wide + v * lanes(dz))
                    e[s * vectors + v] = mul_add(value, factor, e[s * vectors + v])
        for s in range(rows):
            for v in range(vectors):
                value = load(functions, ((i + s) * g + m) * wide + v * lanes(dz))
                total[s * vectors + v] = mul_add(value, e[s * vectors + v], total[s * vectors + v])

    @helper
    def pull(i, cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at):
        total = tile(da, count)
        for s in range(count):
            total[s] = zeros(da)
        for m in range(g):
            add(cosines, phi_sin, i, m, dz, start, depth, g, r, total)
            add(sines, phi_cos, i, m, dz, start, depth, g, r, total)
        for s in range(rows):
            for v in range(vectors):
                store(da, at + ((i + s) * vectors + v) * lanes(da), total[s * vectors + v])

    return pull


def _pulls(vectors):
    few, one = _pull_tile(_FEW, vectors), _pull_tile(1, vectors)

    @helper
    def pull(cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at, rows):
        first = rows - rows % _FEW
        for i in range(0, first, _FEW):
            few(i, cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at)
        for i in range(first, rows):
            one(i, cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at)

    return pull


_pull_one, _pull_two, _pull_three = (_pulls(vectors) for vectors in (1, 2, 3))


@routine
def _pull(cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at, rows, vectors):
    """Gradients of the logits of `rows` queries and the keys in a strip; see :func:`_pull_tile`."""
    if vectors == 3:
        _pull_three(cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at, rows)
    elif vectors == 2:
        _pull_two(cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at, rows)
    else:
        _pull_one(cosines, sines, phi_sin, phi_cos, dz, start, depth, g, r, da, at, rows)


@routine
def _coefficients(phi, start, rows, g, r, factor, out, wide):
    """Coefficients of the keys in a strip, times a factor and their frequency m: (m and rank, lane)."""
    turn((phi, start, g * r), (out, 0), rows, g * r, wide)
    for m in range(g):
        for i in range(m * r * wide, (m + 1) * r * wide, lanes(out)):
            store(out, i, load(out, i) * (factor * (m + 1)))


@kernel
def _backward(
    q,
    k,
    v,
    dout,
    steps,
    phi_cos,
    phi_sin,
    w_up,
    z,
    dq,
    dk,
    dv,
    dw,
    dphi,
    valued,
    factor,
    kind,
    parts,
    sizes,
    counter,
):
    """Tasks: a head and a part of its keys, of which each strip meets all queries.

    If not `valued`, dout is the gradient of z, and there are no values, no w_up and no z.
    """
    b, n, h, d, g, r, width, depth, blocks, strips = sizes
    most = WIDE * lanes(dk)
    keys, packed = scratch(d * most, dk), scratch(max(DEPTH, most) * width, dk)
    u, turned = scratch(r * width, dk), scratch(d * depth, dk)
    dz, dz_total, dw_rows = scratch(n * depth, dk), scratch(n, dk), scratch(most * depth, dk)
    a, da = scratch(_GROUP * most, dk), scratch(_CHUNK * most, dk)
    cosines, sines = scratch(_GROUP * g * most, dk), scratch(_GROUP * g * most, dk)
    own_cos, own_sin = scratch(g * r * most, dk), scratch(g * r * most, dk)
    rows_of_dq, rows_of_dv, strip_of_dk = (
        scratch(n * width, dk),
        scratch(most * width, dk),
        scratch(d * most, dk),
    )
    q_steps, k_steps, v_steps, dout_steps, dq_steps, dk_steps = steps
    for task in tasks(counter):
        pair, part = task % (b * h), task // (b * h)
        item, head = pair // h, pair % h
        q_start, k_start = _start(q_steps, item, head), _start(k_steps, item, head)
        v_start, dout_start = _start(v_steps, item, head), _start(dout_steps, item, head)
        if valued:
            # u = w_up^T v, dz = dout u^T, du = z^T dout
            project((w_up, head * n * r, 1, r), v, v_start, v_steps[1], r, n, d, packed, u, width)
            transpose(u, r, width, d, turned, depth)
            rows_of_dout = dout, dout_start, dout_steps[1], 1
            multiply_rows(rows_of_dout, (turned, 0, depth), (dz, 0, depth), n, d, depth, False)
            project((z, pair * n * r, 1, r), dout, dout_start, dout_steps[1], r, n, d, packed, u, width)
            transpose(u, r, width, d, turned, depth)
        else:
            pack(dout, dout_start, dout_steps[1], n, r, dz, depth)
        if kind != _ZERO:
            for i in range(n):
                total = dk.dtype.type(0)
                for p in range(r):
                    total += dz[i * depth + p] * factor
                dz_total[i] = total
        clear(rows_of_dq, 0, n * width)
        for strip in range(part * strips // parts, (part + 1) * strips // parts):
            first, last = strip * blocks // strips, (strip + 1) * blocks // strips
            vectors, wide, j = last - first, (last - first) * lanes(dk), first * lanes(dk)
            rows, row = min(n - j, wide), head * n + j
            if valued:
                # dv = w_up du, dw_up = v du^T
                left, values = (w_up, row * r, r, 1), (v, v_start + j * v_steps[1], v_steps[1], 1)
                multiply_rows(left, (u, 0, width), (rows_of_dv, 0, width), rows, r, width, False)
                unpack(rows_of_dv, width, rows, d, dv, ((item * n + j) * h + head) * d, h * d)
                multiply_rows(values, (turned, 0, depth), (dw_rows, 0, depth), rows, d, depth, False)
                unpack(dw_rows, depth, rows, r, dw, (pair * n + j) * r, r)

            key = k_start + j * k_steps[1]
            side_by_side(k, key, k_steps[1], rows, d, factor, keys, wide)
            pack(k, key, k_steps[1], rows, d, packed, width)
            _coefficients(phi_cos, row * g * r, rows, g, r, -factor, own_cos, wide)
            _coefficients(phi_sin, row * g * r, rows, g, r, factor, own_sin, wide)
            clear(strip_of_dk, 0, d * wide)
            start = (pair * strips + strip) * 2 * g * r * most
            clear(dphi, start, 2 * g * r * wide)
            for begin in range(0, n, _CHUNK):
                count = min(_CHUNK, n - begin)
                for i in range(begin, begin + count, _GROUP):
                    known, at = min(begin + count - i, _GROUP), (i - begin) * wide
                    queries = q, q_start + i * q_steps[1], q_steps[1], 1
                    multiply(queries, (keys, 0, wide), (a, 0, wide), known, d, vectors, False)
                    _functions(a, known, vectors, g, cosines, sines)
                    functions = cosines, sines, own_sin, own_cos
                    _pull(*functions, dz, i * depth, depth, g, r, da, at, known, vectors)
                    if kind != _ZERO:
                        for s in range(known):
                            for e in range(s * wide, (s + 1) * wide, lanes(dk)):
                                slope = _base_slope(kind, load(a, e))
                                store(da, at + e, mul_add(slope, scalar(dz_total, i + s), load(da, at + e)))
                    left = dz, i * depth, 1, depth
                    for m in range(g):
                        of_cos, of_sin = start + m * r * wide, start + (g + m) * r * wide
                        right = cosines, m * wide, g * wide
                        multiply(left, right, (dphi, of_cos, wide), r, known, vectors, True)
                        right = sines, m * wide, g * wide
                        multiply(left, right, (dphi, of_sin, wide), r, known, vectors, True)
                into = rows_of_dq, begin * width, width
                multiply_rows((da, 0, wide, 1), (packed, 0, width), into, count, rows, width, True)
                queries = q, q_start + begin * q_steps[1], 1, q_steps[1]
                multiply(queries, (da, 0, wide), (strip_of_dk, 0, wide), d, count, vectors, True)
            out = dk, _start(dk_steps, item, head) + j * dk_steps[1], dk_steps[1]
            turn_back((strip_of_dk, 0), out, rows, d, wide)
        place = part * b * n * h * d + _start(dq_steps, item, head)
        unpack(rows_of_dq, width, n, d, dq, place, dq_steps[1])


@kernel
def _sum_coefficients(dphi, dphi_cos, dphi_sin, sizes, counter):
    """Sums over the batch, from strips back to (h, n, g, r). Tasks: a head and a strip of keys."""
    b, n, h, _, g, r, _, _, blocks, strips = sizes
    most = 2 * g * r * WIDE * lanes(dphi)
    sums = scratch(most, dphi)
    for task in tasks(counter):
        head, strip = task // strips, task % strips
        first, last = strip * blocks // strips, (strip + 1) * blocks // strips
        wide, j = (last - first) * lanes(dphi), first * lanes(dphi)
        for at in range(0, 2 * g * r * wide, lanes(dphi)):
            total = zeros(dphi)
            for item in range(b):
                total = total + load(dphi, ((item * h + head) * strips + strip) * most + at)
            store(sums, at, total)
        rows, start = min(n - j, wide), (head * n + j) * g * r
        turn_back((sums, 0), (dphi_cos, start, g * r), rows, g * r, wide)
        turn_back((sums, g * r * wide), (dphi_sin, start, g * r), rows, g * r, wide)
