"""Kernels of the scan with one decay per head: chunks of tokens as products of small matrices.

A task owns some heads of one group of one batch item and walks their chunks one after the other; the products
of C and B within a chunk serve all its heads. All arrays are flat, states are (n, p). Within a chunk, with
alpha the running sum of step A (here in powers of two),

    y = (C B^T * decay) (step x) + e^alpha C S,     decay[t, s] = e^(alpha[t] - alpha[s]) for s <= t, else 0
    S <- e^alpha[last] S + B^T (e^(alpha[last] - alpha) step x)

The running sum is kept as the sum of two numbers: its differences would lose digits otherwise.
"""

import math

from mixers.cpu.aligned import scratch
from mixers.cpu.matrix import panel_width
from mixers.cpu.products import BELOW, LOWER, UPPER, WHOLE, product
from mixers.cpu.runner import helper, kernel, routine, tasks
from mixers.cpu.simd import (
    full,
    lanes,
    load,
    load_first,
    mul_add,
    select,
    store,
    store_first,
    sum_lanes,
    zeros,
)
from mixers.cpu.vector_math import exp2, silu, silu_derivative

_LOG2_E = math.log2(math.e)


@routine
def _scale_rows(source, factors, target, rows, columns):
    """target[i, j] = factors[i] source[i, j]; source is (array, offset, row step), target is compact."""
    X, x, x_row = source
    for i in range(rows):
        for j in range(0, columns, lanes(X)):
            count = min(lanes(X), columns - j)
            store_first(target, i * columns + j, load_first(X, x + i * x_row + j, count) * factors[i], count)


@routine
def _scale(array, start, count, factor):
    for i in range(0, count, lanes(array)):
        here = min(lanes(array), count - i)
        store_first(array, start + i, load_first(array, start + i, here) * factor, here)


@routine
def _copy(source, start, target, begin, count):
    for i in range(0, count, lanes(source)):
        here = min(lanes(source), count - i)
        store_first(target, begin + i, load_first(source, start + i, here), here)


@routine
def _dot(left, a, right, b, count):
    total = zeros(left)
    for i in range(0, count, lanes(left)):
        here = min(lanes(left), count - i)
        total = mul_add(load_first(left, a + i, here), load_first(right, b + i, here), total)
    return sum_lanes(total)


@routine
def _measure(steps, rate, start, stride, resets, token, length, factors):
    """The steps of a chunk and what follows from them; `factors` are arrays over its tokens.

    step; part, how many sequences began in the chunk so far; high and low, whose sum is alpha, counted from where the
    part begins; growth = e^alpha and fade = e^(alpha[last] - alpha), or zero if a sequence begins between. Returns the
    decay over the whole chunk.
    """
    step, part, high, low, growth, fade = factors
    total, begun = 0.0, 0
    for t in range(length):
        if resets.size and resets[token + t]:
            total = 0.0
            begun += 1
        step[t] = steps[start + t * stride]
        if not (resets.size and resets[token + t]):
            total += float(step[t]) * float(rate) * _LOG2_E
        part[t] = begun
        high[t] = total
        low[t] = total - float(high[t])
        growth[t] = 0.0 if begun else exp2(high[t] + low[t])
    for t in range(length):
        power = exp2((high[length - 1] - high[t]) + (low[length - 1] - low[t]))
        fade[t] = power if part[t] == begun else 0.0
    return growth[length - 1]


@helper
def _decay(factors, t, s, counting):
    """decay[t, s], decay[t, s + 1], ... for as many s as a vector has lanes, zero beyond t and before its part."""
    _, part, high, low, _, _ = factors
    exponent = (high[t] - load(high, s)) + (low[t] - load(low, s))
    inside = (load(counting, 0) <= full(high, t - s)) & (load(part, s) == full(part, part[t]))
    return select(inside, exp2(select(inside, exponent, 0.0)), 0.0)


@routine
def _weigh(products, weighed, factors, counting, length, row):
    """weighed = products * decay, (length, row)."""
    w = lanes(products)
    for t in range(length):
        for s in range(0, row, w):
            at = t * row + s
            if s <= t:
                store(weighed, at, load(products, at) * _decay(factors, t, s, counting))
            else:
                store(weighed, at, zeros(products))


@routine
def _weigh_backward(products, weighed, inner, crossing, sums, factors, counting, length, row):
    """weighed as of :func:`_weigh`, inner *= decay step, and what crosses each token.

    crossing[r] is the sum over s < r <= t of what the pair (t, s) contributes: the adjoint of step[r] A. It is
    summed up without differences, which would cancel.
    """
    w = lanes(products)
    step = factors[0]
    for s in range(0, row, w):
        store(sums, s, zeros(sums))
    for t in range(length - 1, -1, -1):
        total = zeros(sums)
        for s in range(0, row, w):
            at = t * row + s
            if s > t:
                store(weighed, at, zeros(products))
                store(inner, at, zeros(products))
                continue
            decay = _decay(factors, t, s, counting)
            value = load(products, at) * decay
            pulled = load(inner, at) * load(step, s)
            reached = mul_add(select(decay == 0.0, 0.0, pulled), value, load(sums, s))
            store(weighed, at, value)
            store(inner, at, select(load(counting, 0) <= full(sums, t - s), pulled * decay, 0.0))
            store(sums, s, reached)
            total = total + select(load(counting, 0) < full(sums, t - s), reached, 0.0)
        crossing[t] = sum_lanes(total)


@routine
def _finish(y, x, D, z, at, skip, stride, length, p):
    """y <- (y + D x) silu(z) for a chunk of one head."""
    w = lanes(y)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = load_first(y, here, count)
            if D.size:
                value = mul_add(load_first(D, skip + j, count), load_first(x, here, count), value)
            if z.size:
                value = value * silu(load_first(z, here, count))
            store_first(y, here, value, count)


@helper
def _place(task, sizes, heads):
    """Batch item, group and first head of a task, and its number within the group."""
    _, _, h, _, g, _ = sizes
    parts = h // g // heads
    part, rest = task % parts, task // parts
    return rest // g, rest % g, rest % g * (h // g) + part * heads, part


@routine
def _counting(like):
    numbers = scratch(lanes(like), like)
    for i in range(lanes(like)):
        numbers[i] = i
    return numbers


@routine
def _factors(row, like):
    """Arrays over the tokens of a chunk, with defined values beyond its last one."""
    factors = (
        scratch(row, like),
        scratch(row, like),
        scratch(row, like),
        scratch(row, like),
        scratch(row, like),
        scratch(row, like),
    )
    for array in factors:
        array[:] = 0
    return factors


@kernel
def forward(arrays, starts, last_state, y, states, sizes, cut, none, counter):
    """starts (b, h, n, p) in; y, last_state (b, h, n, p) and, if of any size, states out."""
    x, steps, A, B, C, D, z, resets = arrays
    _, l, h, p, g, n = sizes
    q, heads = cut
    chunks, size = -(-l // q), n * p
    row = -(-q // lanes(x)) * lanes(x)
    held, panel = scratch(heads * size, x), scratch(max(row, n, p) * panel_width(x), x)
    products, weighed = scratch(row * row, x), scratch(row * row, x)
    driven, grown = scratch(q * p, x), scratch(q * n, x)
    factors, counting = _factors(row, x), _counting(x)
    step, _, _, _, growth, fade = factors
    for task in tasks(counter):
        item, group, first, _ = _place(task, sizes, heads)
        _copy(starts, (item * h + first) * size, held, 0, heads * size)
        for chunk in range(chunks):
            length, token = min(q, l - chunk * q), item * l + chunk * q
            of = (token * g + group) * n
            square = length, n, length
            product(
                (C, of, g * n, 1),
                (B, of, g * n),
                (products, 0, row),
                square,
                panel,
                none,
                True,
                BELOW,
                False,
            )
            for head in range(first, first + heads):
                own, at = (head - first) * size, (token * h + head) * p
                if states.size:
                    _copy(held, own, states, ((item * chunks + chunk) * h + head) * size, size)
                whole = _measure(steps, A[head], token * h + head, h, resets, token, length, factors)
                _weigh(products, weighed, factors, counting, length, row)
                _scale_rows((x, at, h * p), step, driven, length, p)
                out, over = (y, at, h * p), (length, length, p)
                product((weighed, 0, row, 1), (driven, 0, p), out, over, panel, none, False, LOWER, False)
                _scale_rows((C, of, g * n), growth, grown, length, n)
                over = length, n, p
                product((grown, 0, n, 1), (held, own, p), out, over, panel, none, False, WHOLE, True)
                _scale_rows((driven, 0, p), fade, driven, length, p)
                _scale(held, own, size, whole)
                out, over = (held, own, p), (n, length, p)
                product((B, of, 1, g * n), (driven, 0, p), out, over, panel, none, False, WHOLE, True)
                if D.size or z.size:
                    _finish(y, x, D, z, at, head * p, h * p, length, p)
        _copy(held, 0, last_state, (item * h + first) * size, heads * size)


@routine
def _ungate(dy, z, ds, at, stride, length, p):
    """ds = dy silu(z), or dy: compact rows of one head."""
    w = lanes(dy)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = load_first(dy, here, count)
            if z.size:
                value = value * silu(load_first(z, here, count))
            store_first(ds, t * p + j, value, count)


@routine
def _pull_gate(dz, dy, x, D, z, s, at, skip, stride, length, p):
    """dz = dy (s + D x) silu'(z)."""
    w = lanes(dy)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = load_first(s, t * p + j, count)
            if D.size:
                value = mul_add(load_first(D, skip + j, count), load_first(x, here, count), value)
            slope = silu_derivative(load_first(z, here, count))
            store_first(dz, here, load_first(dy, here, count) * value * slope, count)


@routine
def _pull_inputs(dx, dD, x, D, ds, reached, step, inner, at, skip, partial, stride, length, p):
    """dx = step reached + D ds; inner[t] = x . reached; dD += ds x."""
    w = lanes(x)
    for t in range(length):
        total = zeros(x)
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value, pulled = load_first(x, here, count), load_first(reached, t * p + j, count)
            total = mul_add(value, pulled, total)
            pulled = pulled * step[t]
            if D.size:
                d = load_first(ds, t * p + j, count)
                pulled = mul_add(load_first(D, skip + j, count), d, pulled)
                store_first(dD, partial + j, mul_add(d, value, load_first(dD, partial + j, count)), count)
            store_first(dx, here, pulled, count)
        inner[t] = sum_lanes(total)


@routine
def _add_rows(source, target, rows, columns, fresh):
    """Put compact rows into target (array, offset, row step), or add them to it."""
    Y, y, y_row = target
    for i in range(rows):
        for j in range(0, columns, lanes(source)):
            count = min(lanes(source), columns - j)
            value = load_first(source, i * columns + j, count)
            if not fresh:
                value = value + load_first(Y, y + i * y_row + j, count)
            store_first(Y, y + i * y_row + j, value, count)


@kernel
def backward(arrays, dy, states, ends, results, sizes, cut, none, counter):
    """`ends` (b, h, n, p) is the adjoint of the last state.

    results = (dx, dsteps, dz, dB, dC, dA, dD, dh0): dB and dC (parts of a group, b, l, g, n), dA (b, h),
    dD (b, h, p), dh0 (b, h, n, p).
    """
    x, steps, A, B, C, D, z, resets = arrays
    dx, dsteps, dz, dB, dC, dA, dD, dh0 = results
    b, l, h, p, g, n = sizes
    q, heads = cut
    chunks, size = -(-l // q), n * p
    row = -(-q // lanes(x)) * lanes(x)
    carried, panel = scratch(heads * size, x), scratch(max(row, n, p) * panel_width(x), x)
    products, weighed, inner = scratch(row * row, x), scratch(row * row, x), scratch(row * row, x)
    ds, wide, reached = scratch(q * p, x), scratch(q * p, x), scratch(q * p, x)
    narrow, pulled = scratch(q * n, x), scratch(q * n, x)
    factors, counting = _factors(row, x), _counting(x)
    step, _, _, _, growth, fade = factors
    sums, crossing, by_input = scratch(row, x), scratch(row, x), scratch(row, x)
    from_before, to_after = scratch(row, x), scratch(row, x)
    for task in tasks(counter):
        item, group, first, part = _place(task, sizes, heads)
        _copy(ends, (item * h + first) * size, carried, 0, heads * size)
        for chunk in range(chunks - 1, -1, -1):
            length, token = min(q, l - chunk * q), item * l + chunk * q
            of = (token * g + group) * n
            to = part * b * l * g * n + of
            square, tall, flat = (length, n, length), (length, n, p), (length, p, n)
            product(
                (C, of, g * n, 1),
                (B, of, g * n),
                (products, 0, row),
                square,
                panel,
                none,
                True,
                BELOW,
                False,
            )
            for head in range(first, first + heads):
                own, at, stride = (head - first) * size, (token * h + head) * p, h * p
                start = ((item * chunks + chunk) * h + head) * size
                whole = _measure(steps, A[head], token * h + head, h, resets, token, length, factors)
                _ungate(dy, z, ds, at, stride, length, p)
                within = length, length, p
                if z.size:
                    _weigh(products, weighed, factors, counting, length, row)
                    _scale_rows((x, at, stride), step, wide, length, p)
                    out = reached, 0, p
                    product((weighed, 0, row, 1), (wide, 0, p), out, within, panel, none, False, LOWER, False)
                    _scale_rows((C, of, g * n), growth, narrow, length, n)
                    product((narrow, 0, n, 1), (states, start, p), out, tall, panel, none, False, WHOLE, True)
                    _pull_gate(dz, dy, x, D, z, reached, at, head * p, stride, length, p)
                over = length, p, length
                out = inner, 0, row
                product((ds, 0, p, 1), (x, at, stride), out, over, panel, none, True, BELOW, False)
                _weigh_backward(products, weighed, inner, crossing, sums, factors, counting, length, row)
                # x: from the outputs of its chunk, and through the state behind it
                out = reached, 0, p
                product((weighed, 0, 1, row), (ds, 0, p), out, within, panel, none, False, UPPER, False)
                _scale_rows((B, of, g * n), fade, narrow, length, n)
                product((narrow, 0, n, 1), (carried, own, p), out, tall, panel, none, False, WHOLE, True)
                partial = (item * h + head) * p
                _pull_inputs(
                    dx, dD, x, D, ds, reached, step, by_input, at, head * p, partial, stride, length, p
                )
                # C: through the state before the chunk, and from its inputs
                _scale_rows((ds, 0, p), growth, wide, length, p)
                out = pulled, 0, n
                product((wide, 0, p, 1), (states, start, p), out, flat, panel, none, True, WHOLE, False)
                for t in range(length):
                    from_before[t] = _dot(pulled, t * n, C, of + t * g * n, n)
                _add_rows(pulled, (dC, to, g * n), length, n, head == first)
                over, out = (length, length, n), (dC, to, g * n)
                product((inner, 0, row, 1), (B, of, g * n), out, over, panel, none, False, LOWER, True)
                # B: through the state behind the chunk, and to its outputs
                for t in range(length):
                    fade[t] *= step[t]
                _scale_rows((x, at, stride), fade, wide, length, p)
                out = pulled, 0, n
                product((wide, 0, p, 1), (carried, own, p), out, flat, panel, none, True, WHOLE, False)
                for t in range(length):
                    to_after[t] = _dot(pulled, t * n, B, of + t * g * n, n)
                _add_rows(pulled, (dB, to, g * n), length, n, head == first)
                out = dB, to, g * n
                product((inner, 0, 1, row), (C, of, g * n), out, over, panel, none, False, UPPER, True)
                # steps: what crosses a token, within the chunk, from before, to after it and through all of it
                later, earlier = x.dtype.type(0), whole * _dot(carried, own, states, start, size)
                for t in range(length - 1, -1, -1):
                    later += from_before[t]
                    crossing[t] += later
                for t in range(length):
                    crossing[t] += earlier
                    earlier += to_after[t]
                    dsteps[(token + t) * h + head] = by_input[t] + A[head] * crossing[t]
                    dA[item * h + head] += step[t] * crossing[t]
                _scale(carried, own, size, whole)
                _scale_rows((C, of, g * n), growth, narrow, length, n)
                out, over = (carried, own, p), (n, length, p)
                product((narrow, 0, 1, n), (ds, 0, p), out, over, panel, none, False, WHOLE, True)
        _copy(carried, 0, dh0, (item * h + first) * size, heads * size)


@kernel
def update(arrays, decays, state, new_state, y, sizes, width, counter):
    """One token: `decays` (b, h) per head, states (p, n) in the lanes as they lie in memory."""
    x, steps, _, B, C, D, z = arrays
    _, h, p, g, n = sizes
    w = lanes(x)
    parts = -(-h // width)
    for task in tasks(counter):
        item, first = task // parts, task % parts * width
        for head in range(first, min(h, first + width)):
            place = item * h + head
            of, decay, step = (item * g + head // (h // g)) * n, decays[place], steps[place]
            for j in range(p):
                at, drive = (place * p + j) * n, step * x[place * p + j]
                s = zeros(x)
                for k in range(0, n, w):
                    count = min(w, n - k)
                    S = load_first(state, at + k, count) * decay
                    S = mul_add(load_first(B, of + k, count), full(x, drive), S)
                    s = mul_add(S, load_first(C, of + k, count), s)
                    store_first(new_state, at + k, S, count)
                y[place * p + j] = sum_lanes(s)
            if D.size or z.size:
                _finish(y, x, D, z, place * p, head * p, p, 1, p)
