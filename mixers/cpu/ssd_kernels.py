"""Kernels of the scan with one decay per head: chunks of tokens as products of small matrices.

A task owns some heads of one group of one batch item; the products of C and B within a chunk serve all its heads.
All arrays are flat, states are (n, p). Within a chunk, with alpha the running sum of step A (here in powers of two),

    y = (C B^T * decay) (step x) + e^alpha C S,     decay[t, s] = e^(alpha[t] - alpha[s]) for s <= t, else 0
    S <- e^alpha[last] S + B^T (e^(alpha[last] - alpha) step x)

The running sum is kept as the sum of two numbers: its differences would lose digits otherwise. A chunk in which
sequences begin is cut there, so that nothing leads from one piece to the next.

Products with a triangle take some rows at a time and meet zeros beyond it; zero times NaN would let a token change
tokens before it. So what they are multiplied with is looked through first, and if it is not finite the product goes
row by row.
"""

import math

from mixers.cpu.aligned import scratch
from mixers.cpu.matrix import panel_width
from mixers.cpu.products import BELOW, LOWER, UPPER, WHOLE, by_row, product
from mixers.cpu.runner import helper, kernel, routine, tasks
from mixers.cpu.simd import (
    full,
    lanes,
    load,
    load_first,
    mul_add,
    select,
    square_tile,
    store,
    sum_lanes,
    transpose,
    zeros,
)
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import exp2, silu, silu_derivative

_LOG2_E = math.log2(math.e)

# what a task does: walk through all chunks with the state, or take one chunk for itself and find only what that adds
# to the state, or only what follows from the state before it
WALK, ADD, USE = 0, 1, 2


@routine
def _scale_rows(source, factors, target, rows, columns):
    """target[i, j] = factors[i] source[i, j]; source is (array, offset, row step), target is compact."""
    X, x, x_row = source
    for i in range(rows):
        for j in range(0, columns, lanes(X)):
            count = min(lanes(X), columns - j)
            put(target, i * columns + j, get(X, x + i * x_row + j, count) * factors[i], count)


@routine
def _scale(array, start, count, factor):
    for i in range(0, count, lanes(array)):
        here = min(lanes(array), count - i)
        put(array, start + i, get(array, start + i, here) * factor, here)


@routine
def _copy(source, start, target, begin, count):
    for i in range(0, count, lanes(source)):
        here = min(lanes(source), count - i)
        put(target, begin + i, get(source, start + i, here), here)


@routine
def _turn(source, start, target, begin, rows, columns):
    """target[j, i] = source[i, j]; both compact."""
    w = lanes(source)
    square = square_tile(source)
    for i in range(0, rows, w):
        for j in range(0, columns, w):
            inside, count = min(w, rows - i), min(w, columns - j)
            for r in range(w):
                here = count if r < inside else 0
                square[r] = load_first(source, start + (i + r) * columns + j, here)
            transpose(square)
            for r in range(count):
                put(target, begin + (j + r) * rows + i, square[r], inside)


@routine
def _take_states(given, start, held, heads, n, p):
    """The states of some heads, (p, n) in memory, as (n, p); zeros if none are given."""
    if given.size:
        for i in range(0, heads * n * p, n * p):
            _turn(given, start + i, held, i, p, n)
    else:
        _clear(held, 0, heads * n * p)


@routine
def _give_states(held, wanted, start, heads, n, p):
    """The opposite, if they are wanted."""
    if wanted.size:
        for i in range(0, heads * n * p, n * p):
            _turn(held, i, wanted, start + i, n, p)


@routine
def _clear(array, start, count):
    array[start : start + count] = 0


@routine
def _dot(left, a, right, b, count):
    total = zeros(left)
    for i in range(0, count, lanes(left)):
        here = min(lanes(left), count - i)
        total = mul_add(get(left, a + i, here), get(right, b + i, here), total)
    return sum_lanes(total)


@routine
def _finite(source, rows, columns):
    """Whether no value of the source (array, offset, row step) is NaN or infinite."""
    X, x, x_row = source
    total = zeros(X)
    for i in range(rows):
        for j in range(0, columns, lanes(X)):
            total = mul_add(get(X, x + i * x_row + j, min(lanes(X), columns - j)), zeros(X), total)
    return sum_lanes(total) == 0.0


@routine
def _measure(steps, rate, start, stride, length, factors):
    """The steps of a piece and what follows from them; `factors` are arrays over its tokens.

    step; high and low, whose sum is alpha; growth = e^alpha and fade = e^(alpha[last] - alpha). Returns the decay over
    the whole piece.
    """
    step, high, low, growth, fade = factors
    total = 0.0
    for t in range(length):
        step[t] = steps[start + t * stride]
        total += float(step[t]) * float(rate) * _LOG2_E
        high[t] = total
        low[t] = total - float(high[t])
        growth[t] = exp2(high[t] + low[t])
    for t in range(length):
        fade[t] = exp2((high[length - 1] - high[t]) + (low[length - 1] - low[t]))
    return growth[length - 1]


@helper
def _decay(factors, t, s, inside):
    """decay[t, s], decay[t, s + 1], ... for as many s as a vector has lanes; `inside` says where s <= t."""
    _, high, low, _, _ = factors
    exponent = (high[t] - load(high, s)) + (low[t] - load(low, s))
    return exp2(select(inside, exponent, 0.0))


@routine
def _weigh(products, weighed, factors, counting, length, row):
    """weighed = products * decay, (length, row)."""
    w = lanes(products)
    for t in range(length):
        for s in range(0, row, w):
            at = t * row + s
            if s <= t:
                inside = load(counting, 0) <= full(products, t - s)
                value = load(products, at) * _decay(factors, t, s, inside)
                store(weighed, at, select(inside, value, 0.0))
            else:
                store(weighed, at, zeros(products))


@routine
def _weigh_backward(products, weighed, inner, shared, fresh, crossing, sums, factors, counting, length, row):
    """weighed as of :func:`_weigh`; shared (+)= inner decay step; and what crosses each token.

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
                if fresh:
                    store(shared, at, zeros(products))
                continue
            inside = load(counting, 0) <= full(sums, t - s)
            decay = _decay(factors, t, s, inside)
            value = select(inside, load(products, at) * decay, 0.0)
            pulled = load(inner, at) * load(step, s)
            # what decayed to nothing contributes nothing, however large it is
            reached = mul_add(select(decay == 0.0, 0.0, pulled), value, load(sums, s))
            pulled = select(inside, pulled * decay, 0.0)
            store(weighed, at, value)
            store(shared, at, pulled if fresh else pulled + load(shared, at))
            store(sums, s, reached)
            total = total + select(load(counting, 0) < full(sums, t - s), reached, 0.0)
        crossing[t] = sum_lanes(total)


@routine
def _finish(y, x, D, z, at, skip, stride, length, p):
    """y <- (y + D x) silu(z) for a piece of one head."""
    w = lanes(y)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = get(y, here, count)
            if D.size:
                value = mul_add(get(D, skip + j, count), get(x, here, count), value)
            if z.size:
                value = value * silu(get(z, here, count))
            put(y, here, value, count)


@helper
def _place(task, sizes, cut):
    """Batch item, group and first head of a task, its number within the group, its first token and its last but one."""
    _, l, h, _, g, _ = sizes
    q, heads, mode = cut
    low, high = 0, l
    if mode != WALK:
        chunks = -(-l // q)
        low = task % chunks * q
        high = min(low + q, l)
        task //= chunks
    parts = h // g // heads
    part, rest = task % parts, task // parts
    return rest // g, rest % g, rest % g * (h // g) + part * heads, part, low, high


@helper
def _begins(resets, token):
    return resets.size > 0 and resets[token]


@helper
def _end_of_piece(resets, item, begin, high):
    """The first token after `begin`, and at most `high`, at which a sequence begins."""
    if resets.size == 0:
        return high
    begin += 1
    while begin < high and not resets[item + begin]:
        begin += 1
    return begin


@helper
def _begin_of_piece(resets, item, low, end):
    """The last token before `end`, and at least `low`, at which a sequence begins."""
    if resets.size == 0:
        return low
    end -= 1
    while end > low and not resets[item + end]:
        end -= 1
    return end


@routine
def _counting(like):
    numbers = scratch(lanes(like), like)
    for i in range(lanes(like)):
        numbers[i] = i
    return numbers


@routine
def _factors(row, like):
    """Arrays over the tokens of a piece, with defined values beyond its last one."""
    factors = (
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
    """starts and last_state (b, h, p, n), states (b, chunks, h, n, p), y.

    WALK takes `starts`, or zeros, and writes y and, if of any size, last_state and the states before each chunk. ADD
    writes what each chunk adds to the state into its place in `states`; USE takes the states from there and writes y.
    """
    x, steps, A, B, C, D, z, resets = arrays
    _, l, h, p, g, n = sizes
    q, heads, mode = cut
    chunks, size = -(-l // q), n * p
    row = -(-q // lanes(x)) * lanes(x)
    held, panel = scratch(heads * size, x), scratch(max(row, n, p) * panel_width(x), x)
    products, weighed = scratch(row * row, x), scratch(row * row, x)
    driven, grown = scratch(q * p, x), scratch(q * n, x)
    factors, counting = _factors(row, x), _counting(x)
    step, _, _, growth, fade = factors
    for task in tasks(counter):
        item, group, first, _, low, high = _place(task, sizes, cut)
        if mode == WALK:
            _take_states(starts, (item * h + first) * size, held, heads, n, p)
        else:
            of_chunk = ((item * chunks + low // q) * h + first) * size
            if mode == USE:
                _copy(states, of_chunk, held, 0, heads * size)
            else:
                _clear(held, 0, heads * size)
        begin = low
        while begin < high:
            chunk, token = begin // q, item * l + begin
            end = _end_of_piece(resets, item * l, begin, min(high, chunk * q + q))
            length = end - begin
            if mode == WALK and states.size and begin % q == 0:
                _copy(held, 0, states, ((item * chunks + chunk) * h + first) * size, heads * size)
            if _begins(resets, token):
                _clear(held, 0, heads * size)
            of = (token * g + group) * n
            if mode != ADD:
                square, out = (length, n, length), (products, 0, row)
                product((C, of, g * n, 1), (B, of, g * n), out, square, panel, none, True, BELOW, False)
            for head in range(first, first + heads):
                own, at = (head - first) * size, (token * h + head) * p
                whole = _measure(steps, A[head], token * h + head, h, length, factors)
                _scale_rows((x, at, h * p), step, driven, length, p)
                if mode != ADD:
                    _weigh(products, weighed, factors, counting, length, row)
                    shape = by_row(LOWER, _finite((driven, 0, p), length, p))
                    out, over = (y, at, h * p), (length, length, p)
                    product((weighed, 0, row, 1), (driven, 0, p), out, over, panel, none, False, shape, False)
                    _scale_rows((C, of, g * n), growth, grown, length, n)
                    over = length, n, p
                    product((grown, 0, n, 1), (held, own, p), out, over, panel, none, False, WHOLE, True)
                    if D.size or z.size:
                        _finish(y, x, D, z, at, head * p, h * p, length, p)
                if mode != USE:
                    _scale_rows((driven, 0, p), fade, driven, length, p)
                    _scale(held, own, size, whole)
                    out, over = (held, own, p), (n, length, p)
                    product((B, of, 1, g * n), (driven, 0, p), out, over, panel, none, False, WHOLE, True)
            begin = end
        if mode == WALK:
            _give_states(held, last_state, (item * h + first) * size, heads, n, p)
        if mode == ADD:
            _copy(held, 0, states, of_chunk, heads * size)


@helper
def _turned(at, n, p):
    """Where the value of a state is in (p, n) that is at this place in (n, p)."""
    return at % p * n + at // p


@kernel
def pass_states(steps, A, resets, starts, states, last_state, sizes, cut, counter):
    """From what each chunk adds (ADD) to the states before it, in place; to the adjoints behind it, if backward.

    A task has some values of the state of one head; starts and last_state are those of :func:`forward`.
    """
    _, l, h, p, _, n = sizes
    q, width, backward = cut
    chunks, size = -(-l // q), n * p
    parts = -(-size // width)
    held = scratch(width, states)
    for task in tasks(counter):
        item, head, first = task // parts // h, task // parts % h, task % parts * width
        count = min(width, size - first)
        _clear(held, 0, count)
        if starts.size:
            for i in range(count):
                held[i] = starts[_turned(first + i, n, p) + (item * h + head) * size]
        for i in range(chunks):
            chunk = chunks - 1 - i if backward else i
            total, cut_off = 0.0, False
            for t in range(chunk * q, min(l, chunk * q + q)):
                token = item * l + t
                cut_off = cut_off or _begins(resets, token)
                total += float(steps[token * h + head]) * float(A[head]) * _LOG2_E
            whole = states.dtype.type(exp2(total))
            at = ((item * chunks + chunk) * h + head) * size + first
            for j in range(0, count, lanes(states)):
                here = min(lanes(states), count - j)
                value, added = get(held, j, here), get(states, at + j, here)
                put(states, at + j, value, here)
                put(held, j, added if cut_off else mul_add(value, whole, added), here)
        if last_state.size:
            for i in range(count):
                last_state[_turned(first + i, n, p) + (item * h + head) * size] = held[i]


@routine
def _ungate(dy, z, ds, at, stride, length, p):
    """ds = dy silu(z), or dy: compact rows of one head."""
    w = lanes(dy)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = get(dy, here, count)
            if z.size:
                value = value * silu(get(z, here, count))
            put(ds, t * p + j, value, count)


@routine
def _pull_gate(dz, dy, x, D, z, s, at, skip, stride, length, p):
    """dz = dy (s + D x) silu'(z)."""
    w = lanes(dy)
    for t in range(length):
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value = get(s, t * p + j, count)
            if D.size:
                value = mul_add(get(D, skip + j, count), get(x, here, count), value)
            slope = silu_derivative(get(z, here, count))
            put(dz, here, get(dy, here, count) * value * slope, count)


@routine
def _pull_inputs(dx, dD, x, D, ds, reached, step, inner, at, skip, partial, stride, length, p):
    """dx = step reached + D ds; inner[t] = x . reached; dD += ds x."""
    w = lanes(x)
    for t in range(length):
        total = zeros(x)
        for j in range(0, p, w):
            count, here = min(w, p - j), at + t * stride + j
            value, pulled = get(x, here, count), get(reached, t * p + j, count)
            total = mul_add(value, pulled, total)
            pulled = pulled * step[t]
            if D.size:
                d = get(ds, t * p + j, count)
                pulled = mul_add(get(D, skip + j, count), d, pulled)
                put(dD, partial + j, mul_add(d, value, get(dD, partial + j, count)), count)
            put(dx, here, pulled, count)
        inner[t] = sum_lanes(total)


@routine
def _add_rows(source, target, others, found, rows, columns, fresh):
    """Put compact rows into target (array, offset, row step), or add them; found[i] = row i . row i of others."""
    Y, y, y_row = target
    X, x, x_row = others
    for i in range(rows):
        total = zeros(source)
        for j in range(0, columns, lanes(source)):
            count = min(lanes(source), columns - j)
            value = get(source, i * columns + j, count)
            total = mul_add(value, get(X, x + i * x_row + j, count), total)
            if not fresh:
                value = value + get(Y, y + i * y_row + j, count)
            put(Y, y + i * y_row + j, value, count)
        found[i] = sum_lanes(total)


@kernel
def backward(arrays, dy, states, ends, adjoints, results, sizes, cut, none, counter):
    """`ends` (b, h, p, n) is the adjoint of the last state, `adjoints` (b, chunks, h, n, p) those behind each chunk.

    WALK takes the adjoint with it, from the last chunk to the first. ADD writes what each chunk adds to it into its
    place in `adjoints`; USE takes the adjoints from there.

    results = (dx, dsteps, dz, dB, dC, dA, dD, dh0): dB and dC (parts of a group, b, l, g, n), dA (tasks of an item, h)
    and dD (likewise, h p) for all items, dh0 (b, h, p, n). Without `ends` they are zeros.
    """
    x, steps, A, B, C, D, z, resets = arrays
    dx, dsteps, dz, dB, dC, dA, dD, dh0 = results
    b, l, h, p, g, n = sizes
    q, heads, mode = cut
    chunks, size = -(-l // q), n * p
    row = -(-q // lanes(x)) * lanes(x)
    carried, before = scratch(heads * size, x), scratch(heads * size, x)
    panel = scratch(max(row, n, p) * panel_width(x), x)
    products, weighed, inner, shared = (
        scratch(row * row, x),
        scratch(row * row, x),
        scratch(row * row, x),
        scratch(row * row, x),
    )
    ds, wide, reached = scratch(q * p, x), scratch(q * p, x), scratch(q * p, x)
    narrow, pulled = scratch(q * n, x), scratch(q * n, x)
    factors, counting = _factors(row, x), _counting(x)
    step, _, _, growth, fade = factors
    sums, crossing, by_input = scratch(row, x), scratch(row, x), scratch(row, x)
    from_before, to_after = scratch(row, x), scratch(row, x)
    for task in tasks(counter):
        item, group, first, part, low, high = _place(task, sizes, cut)
        slot, of_chunk = item, (item * h + first) * size
        if mode != WALK:
            slot, of_chunk = item * chunks + low // q, ((item * chunks + low // q) * h + first) * size
        if mode == WALK:
            _take_states(ends, of_chunk, carried, heads, n, p)
        elif mode == USE:
            _copy(adjoints, of_chunk, carried, 0, heads * size)
        else:
            _clear(carried, 0, heads * size)
        end = high
        while end > low:
            chunk = (end - 1) // q
            begin = _begin_of_piece(resets, item * l, chunk * q, end)
            length, token = end - begin, item * l + begin
            cut_off = _begins(resets, token)
            of = (token * g + group) * n
            to = part * b * l * g * n + of
            tall, flat, within = (length, n, p), (length, p, n), (length, length, p)
            if mode != ADD:
                if cut_off:
                    _clear(before, 0, heads * size)
                else:
                    start = ((item * chunks + chunk) * h + first) * size
                    _copy(states, start, before, 0, heads * size)
                over, out = (length, n, length), (products, 0, row)
                product((C, of, g * n, 1), (B, of, g * n), out, over, panel, none, True, BELOW, False)
            for head in range(first, first + heads):
                own, at, stride = (head - first) * size, (token * h + head) * p, h * p
                whole = _measure(steps, A[head], token * h + head, h, length, factors)
                _ungate(dy, z, ds, at, stride, length, p)
                if mode != ADD:
                    if z.size:
                        _weigh(products, weighed, factors, counting, length, row)
                        _scale_rows((x, at, stride), step, wide, length, p)
                        out, shape = (reached, 0, p), by_row(LOWER, _finite((wide, 0, p), length, p))
                        product(
                            (weighed, 0, row, 1), (wide, 0, p), out, within, panel, none, False, shape, False
                        )
                        _scale_rows((C, of, g * n), growth, narrow, length, n)
                        product(
                            (narrow, 0, n, 1), (before, own, p), out, tall, panel, none, False, WHOLE, True
                        )
                        _pull_gate(dz, dy, x, D, z, reached, at, head * p, stride, length, p)
                    over, out = (length, p, length), (inner, 0, row)
                    product((ds, 0, p, 1), (x, at, stride), out, over, panel, none, True, BELOW, False)
                    _weigh_backward(
                        products,
                        weighed,
                        inner,
                        shared,
                        head == first,
                        crossing,
                        sums,
                        factors,
                        counting,
                        length,
                        row,
                    )
                    # x: from the outputs of its piece, and through the state behind it
                    out, shape = (reached, 0, p), by_row(UPPER, _finite((ds, 0, p), length, p))
                    product((weighed, 0, 1, row), (ds, 0, p), out, within, panel, none, False, shape, False)
                    _scale_rows((B, of, g * n), fade, narrow, length, n)
                    product((narrow, 0, n, 1), (carried, own, p), out, tall, panel, none, False, WHOLE, True)
                    partial = (slot * h + head) * p
                    _pull_inputs(
                        dx, dD, x, D, ds, reached, step, by_input, at, head * p, partial, stride, length, p
                    )
                    # C: through the state before the piece
                    _scale_rows((ds, 0, p), growth, wide, length, p)
                    out, others = (pulled, 0, n), (C, of, g * n)
                    product((wide, 0, p, 1), (before, own, p), out, flat, panel, none, True, WHOLE, False)
                    _add_rows(pulled, (dC, to, g * n), others, from_before, length, n, head == first)
                    # B: through the state behind the piece
                    for t in range(length):
                        fade[t] *= step[t]
                    _scale_rows((x, at, stride), fade, wide, length, p)
                    out, others = (pulled, 0, n), (B, of, g * n)
                    product((wide, 0, p, 1), (carried, own, p), out, flat, panel, none, True, WHOLE, False)
                    _add_rows(pulled, (dB, to, g * n), others, to_after, length, n, head == first)
                    # steps: what crosses a token, within the piece, from before, to after it and through all of it
                    later, earlier = x.dtype.type(0), whole * _dot(carried, own, before, own, size)
                    for t in range(length - 1, -1, -1):
                        later += from_before[t]
                        crossing[t] += later
                    for t in range(length):
                        crossing[t] += earlier
                        earlier += to_after[t]
                        dsteps[(token + t) * h + head] = by_input[t] + A[head] * crossing[t]
                        dA[slot * h + head] += step[t] * crossing[t]
                if mode != USE:
                    _scale(carried, own, size, whole)
                    _scale_rows((C, of, g * n), growth, narrow, length, n)
                    out, over = (carried, own, p), (n, length, p)
                    product((narrow, 0, 1, n), (ds, 0, p), out, over, panel, none, False, WHOLE, True)
            if mode != ADD:
                # C and B: from the inputs of the piece, and to its outputs, for all heads at once
                over = length, length, n
                out, shape = (dC, to, g * n), by_row(LOWER, _finite((B, of, g * n), length, n))
                product((shared, 0, row, 1), (B, of, g * n), out, over, panel, none, False, shape, True)
                out, shape = (dB, to, g * n), by_row(UPPER, _finite((C, of, g * n), length, n))
                product((shared, 0, 1, row), (C, of, g * n), out, over, panel, none, False, shape, True)
            if cut_off:
                _clear(carried, 0, heads * size)
            end = begin
        if mode == WALK:
            _give_states(carried, dh0, of_chunk, heads, n, p)
        if mode == ADD:
            _copy(carried, 0, adjoints, of_chunk, heads * size)


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
                    S = get(state, at + k, count) * decay
                    S = mul_add(get(B, of + k, count), full(x, drive), S)
                    s = mul_add(S, get(C, of + k, count), s)
                    put(new_state, at + k, S, count)
                y[place * p + j] = sum_lanes(s)
            if D.size or z.size:
                _finish(y, x, D, z, place * p, head * p, p, 1, p)
