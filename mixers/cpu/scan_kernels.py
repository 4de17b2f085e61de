"""Kernels of the selective scan: channels in the lanes, the tokens in chunks, some states in registers.

A task owns a run of channels of one group, of one batch item, over one segment of the tokens. All arrays are
flat. Tokens are visited in the order of `tokens`; a place is the index of a token in the whole batch.
`block` is a tuple of as many zeros as states are kept in registers: its length is known to the compiler.
Rates are those of A, (n, c), in powers of two: a decay is 2^(step rate).
"""

import math

import numpy
from numba import types
from numba.extending import overload

from mixers.cpu.lane_sums import fold, folded_sums
from mixers.cpu.runner import INLINED, helper, kernel, routine, tasks
from mixers.cpu.simd import (
    bits,
    clamp,
    from_bits,
    full,
    lane,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    mul_add,
    scalar,
    select,
    store,
    store_first,
    sum_lanes,
    tile,
    zeros,
)
from mixers.cpu.vector_math import polynomial, sigmoid, silu, silu_derivative, softplus

# tokens between two saved states
CHUNK = 16

# states in registers at once: the adjoint and the sums of a backward sweep take two each
BLOCK = 8

# rows of dB and dC that a task of gather makes
GATHERED = 256

LOG2_E = math.log2(math.e)
_LN_2 = math.log(2.0)

# 2^r on [-1/2, 1/2] to the rounding of each type, exactly 1 at 0
_power = polynomial(
    1.0,
    0.6931472028550494,
    0.24022647913631054,
    0.05550332471151603,
    0.00961843735752832,
    0.0013398874405831096,
    0.00015353361925973807,
)
_power_double = polynomial(
    1.0,
    0.6931471805599457,
    0.24022650695910097,
    0.05550410866479039,
    0.009618129107607003,
    0.0013333558153439764,
    0.00015403530441573428,
    1.5252727385369675e-05,
    1.3215442674462599e-06,
    1.0180647586069513e-07,
    7.072570583264251e-09,
    4.0780833181809637e-10,
)


def _decay(x):
    """2^x with the scale added to the exponent; results below the normal range become its smallest number."""
    raise NotImplementedError("_decay is for kernels")


def _decay_single(x):
    x = clamp(x, -126.0, 128.0)
    shifted = x + 12582912.0
    return from_bits(bits(_power(x - (shifted - 12582912.0))) + (bits(shifted) << 23))


def _decay_double(x):
    x = clamp(x, -1022.0, 1024.0)
    shifted = x + 6755399441055744.0
    return from_bits(bits(_power_double(x - (shifted - 6755399441055744.0))) + (bits(shifted) << 52))


@overload(_decay, jit_options=INLINED)
def _choose_decay(x):
    return _decay_single if x.element == types.float32 else _decay_double


@routine
def _scratch(count, like):
    """Memory of a kernel of its own, at the start of a cache line: vectors that cross lines cost a stall."""
    raw = numpy.empty(count + 64 // like.itemsize, like.dtype)
    skip = -raw.ctypes.data % 64 // like.itemsize
    return raw[skip : skip + count]


@helper
def _load(array, offset, count):
    return load(array, offset) if count == lanes(array) else load_first(array, offset, count)


@helper
def _store(array, offset, value, count):
    if count == lanes(array):
        store(array, offset, value)
    else:
        store_first(array, offset, value, count)


@helper
def _task(task, sizes, cut):
    """Batch item, segment, group, part of the group and range of channels of a task."""
    _, _, c, g, _ = sizes
    segments, _, parts, width = cut
    part, rest = task % parts, task // parts
    group, rest = rest % g, rest // g
    first = group * (c // g) + part * width
    last = min(first + width, (group + 1) * (c // g))
    return rest // segments, rest % segments, group, part, first, last


@helper
def _fetch(source, target, row, sizes, first, last):
    """Copy rows (n, c) of a task's channels to scratch: block after block of channels, states inside."""
    _, _, c, _, n = sizes
    w = lanes(source)
    for start in range(first, last, w):
        for k in range(n):
            value = load_first(source, (row * n + k) * c + start, min(w, last - start))
            store(target, (start - first) * n + k * w, value)


@helper
def _deliver(source, target, row, sizes, first, last):
    """The opposite of _fetch."""
    _, _, c, _, n = sizes
    w = lanes(source)
    for start in range(first, last, w):
        for k in range(n):
            value = load(source, (start - first) * n + k * w)
            store_first(target, (row * n + k) * c + start, value, min(w, last - start))


@helper
def _raw_step(delta, bias, at, start, count):
    r = _load(delta, at, count)
    return r + _load(bias, start, count) if bias.size else r


@helper
def _measure(steps, arrays, places, length, c, start, count, soft):
    """The steps of one block of channels over a chunk, ahead of the recurrence that would wait for each."""
    delta, bias = arrays[1], arrays[7]
    for j in range(length):
        step = _raw_step(delta, bias, places[j] * c + start, start, count)
        store(steps, j * lanes(steps), softplus(step) if soft else step)


@helper
def _advance(arrays, y, scratch, places, spot, sizes, count, soft, block):
    """Carry some states of one block of channels over a chunk, and add to (or finish) its outputs."""
    u, _, _, B, C, D, z, _, resets = arrays
    held, rates, steps = scratch
    length, group, start, k, own = spot
    _, _, c, g, n = sizes
    w = lanes(u)
    if k == 0:
        _measure(steps, arrays, places, length, c, start, count, soft)
    h = tile(u, BLOCK)
    for i in range(len(block)):
        h[i] = load(held, own + i * w)
    for j in range(length):
        at = places[j] * c + start
        row = (places[j] * g + group) * n + k
        step = load(steps, j * w)
        x = _load(u, at, count)
        drive = step * x
        s = _load(y, at, count) if k else zeros(u)
        if resets.size and resets[places[j]]:
            for i in range(len(block)):
                h[i] = zeros(u)
        for i in range(len(block)):
            h[i] = mul_add(_decay(step * load(rates, own + i * w)), h[i], drive * scalar(B, row + i))
            s = mul_add(h[i], scalar(C, row + i), s)
        if k + len(block) == n:
            if D.size:
                s = mul_add(_load(D, start, count), x, s)
            if z.size:
                s = s * silu(_load(z, at, count))
        _store(y, at, s, count)
    for i in range(len(block)):
        store(held, own + i * w, h[i])


@kernel
def forward(arrays, starts, last_state, y, states, tokens, sizes, cut, block, soft, counter):
    """The scan: `starts` (b, segments, n, c) in; y, last_state (b, n, c) and, if of any size, states out."""
    u, _, A = arrays[:3]
    l, n = sizes[1], sizes[4]
    segments, segment_chunks, _, width = cut
    w = lanes(u)
    chunks = -(-l // CHUNK)
    held, rates, steps = _scratch(width * n, u), _scratch(width * n, u), _scratch(CHUNK * w, u)
    scratch = held, rates, steps
    places = numpy.empty(CHUNK, numpy.int64)
    for task in tasks(counter):
        item, segment, group, _, first, last = _task(task, sizes, cut)
        _fetch(A, rates, 0, sizes, first, last)
        _fetch(starts, held, item * segments + segment, sizes, first, last)
        for chunk in range(segment * segment_chunks, min(chunks, (segment + 1) * segment_chunks)):
            if states.size:
                _deliver(held, states, item * chunks + chunk, sizes, first, last)
            length = min(CHUNK, l - chunk * CHUNK)
            for j in range(length):
                places[j] = item * l + tokens[chunk * CHUNK + j]
            for start in range(first, last, w):
                for k in range(0, n, len(block)):
                    spot = length, group, start, k, (start - first) * n + k * w
                    # two calls, so that one is compiled for full vectors
                    if last - start >= w:
                        _advance(arrays, y, scratch, places, spot, sizes, w, soft, block)
                    else:
                        _advance(arrays, y, scratch, places, spot, sizes, last - start, soft, block)
        if segment == segments - 1:
            _deliver(held, last_state, item, sizes, first, last)


@kernel
def segment_sums(source, arrays, sums, totals, tokens, sizes, cut, backward, counter):
    """What each segment adds to the state after it (or, backward, to the adjoint before it).

    That is the sum over its tokens of x[t] V[t] times the decay over the tokens between t and the end the
    result leaves by. There is no recurrence: the segment is walked from that end with the running sum of the
    steps, until all decays have vanished. Forward x = d u and V = B, backward x = ds and V = C. `totals`
    (b, segments, c) are the sums of the steps. The last segment (backward, the first) is left out.
    Only for steps by softplus and rates of at most 0.
    """
    u, delta, A, B, C, _, z, bias, _ = arrays
    _, l, c, g, n = sizes
    segments, segment_chunks, _, width = cut
    w = lanes(u)
    rates, held = _scratch(width * n, u), _scratch(width * n, u)
    slowest = _scratch(w, u)
    for task in tasks(counter):
        item, segment, group, _, first, last = _task(task, sizes, cut)
        if segment == (0 if backward else segments - 1):
            continue
        _fetch(A, rates, 0, sizes, first, last)
        begin, end = segment * segment_chunks * CHUNK, min(l, (segment + 1) * segment_chunks * CHUNK)
        for start in range(first, last, w):
            count = min(w, last - start)
            own = (start - first) * n
            slow = load(rates, own)
            for k in range(n):
                store(held, own + k * w, zeros(u))
                slow = maximum(slow, load(rates, own + k * w))
            # lanes without a channel must not keep the walk going
            store(slowest, 0, full(u, -numpy.inf))
            store_first(slowest, 0, slow, count)
            slow = load(slowest, 0)
            total = zeros(u)
            for t in range(end - begin):
                place = item * l + tokens[begin + t if backward else end - 1 - t]
                at = place * c + start
                row = (place * g + group) * n
                step = softplus(_raw_step(delta, bias, at, start, count))
                x = load_first(source, at, count)
                if not backward:
                    x = x * step
                else:
                    total = total + step
                    if z.size:
                        x = x * silu(load_first(z, at, count))
                for k in range(n):
                    coefficient = scalar(C, row + k) if backward else scalar(B, row + k)
                    decay = _decay(total * load(rates, own + k * w))
                    store(held, own + k * w, mul_add(decay, x * coefficient, load(held, own + k * w)))
                if not backward:
                    total = total + step
                if t % CHUNK == 0 and max_lanes(total * slow) < -126.0:
                    break
            store_first(totals, (item * segments + segment) * c + start, total, count)
        _deliver(held, sums, item * segments + segment, sizes, first, last)


@helper
def _recompute(arrays, dy, states, scratch, places, spot, sizes, count, soft, block):
    """Some states of one block of channels before and after every token of a chunk, and the decays.

    With the first states also the steps and the cotangents before the gate.
    """
    u, _, _, B, _, _, z, _, resets = arrays
    rates, history, decays, steps, cotangents = scratch[:5]
    length, group, start, k, own, row = spot
    _, _, c, g, n = sizes
    w = lanes(u)
    if k == 0:
        _measure(steps, arrays, places, length, c, start, count, soft)
        for j in range(length):
            at = places[j] * c + start
            ds = _load(dy, at, count)
            store(cotangents, j * w, ds * silu(_load(z, at, count)) if z.size else ds)
    h = tile(u, BLOCK)
    for i in range(len(block)):
        h[i] = _load(states, (row * n + k + i) * c + start, count)
        store(history, i * w, h[i])
    for j in range(length):
        row = (places[j] * g + group) * n + k
        step = load(steps, j * w)
        drive = step * _load(u, places[j] * c + start, count)
        if resets.size and resets[places[j]]:
            for i in range(len(block)):
                h[i] = zeros(u)
        for i in range(len(block)):
            decay = _decay(step * load(rates, own + i * w))
            h[i] = mul_add(decay, h[i], drive * scalar(B, row + i))
            store(decays, (j * len(block) + i) * w, decay)
            store(history, ((j + 1) * len(block) + i) * w, h[i])
        if resets.size and resets[places[j]]:
            # no adjoint goes back beyond a start
            for i in range(len(block)):
                store(decays, (j * len(block) + i) * w, zeros(u))


@helper
def _reverse(arrays, dy, results, carried, scratch, places, spot, row, sizes, count, soft, block):
    """Walk a chunk backward with the adjoints of some states of one block of channels.

    Sums over the states (the output s, inner = sum lambda B, outer = sum rate w) are carried from block to block
    of states and give du, ddelta and dz with the last; sums over the tokens are those for dA, dD and ddelta_bias;
    sums over the channels, for dB and dC, are put or added to rows of `partial`, counted from `row`.
    """
    u, delta, _, B, C, D, z, bias, _ = arrays
    du, ddelta, dz, partial = results
    adjoints, rate_sums, skip_sums, bias_sums = carried
    rates, history, decays, steps, cotangents, outputs, inners, outers = scratch
    length, group, start, k, own, first = spot
    _, _, c, g, n = sizes
    w = lanes(u)
    adjoint, rate_sum, products = tile(u, BLOCK), tile(u, BLOCK), tile(u, BLOCK)
    for i in range(len(block)):
        adjoint[i] = load(adjoints, own + i * w)
        rate_sum[i] = zeros(u)
    for i in range(len(block), BLOCK):
        products[i] = zeros(u)
    skip_sum, bias_sum = zeros(u), zeros(u)
    for j in range(length - 1, -1, -1):
        at = places[j] * c + start
        place = places[j] * g + group
        step, ds, x = load(steps, j * w), load(cotangents, j * w), _load(u, at, count)
        drive = step * x
        s, inner, outer = zeros(u), zeros(u), zeros(u)
        if k:
            s, inner, outer = load(outputs, j * w), load(inners, j * w), load(outers, j * w)
        for i in range(len(block)):
            before = load(history, (j * len(block) + i) * w)
            after = load(history, ((j + 1) * len(block) + i) * w)
            s = mul_add(after, scalar(C, place * n + k + i), s)
            total = mul_add(ds, scalar(C, place * n + k + i), adjoint[i])
            adjoint[i] = total * load(decays, (j * len(block) + i) * w)
            exponent = adjoint[i] * before
            inner = mul_add(total, scalar(B, place * n + k + i), inner)
            outer = mul_add(exponent, load(rates, own + i * w), outer)
            rate_sum[i] = mul_add(exponent, step, rate_sum[i])
            products[i] = fold(total * drive, after * ds)
        _sum_channels(partial, (row + place) * 2 * n + 2 * k, products, start == first, block)
        if k + len(block) < n:
            store(outputs, j * w, s)
            store(inners, j * w, inner)
            store(outers, j * w, outer)
            continue
        dx = step * inner
        if D.size:
            skip = _load(D, start, count)
            dx = mul_add(skip, ds, dx)
            s = mul_add(skip, x, s)
            skip_sum = mul_add(ds, x, skip_sum)
        if z.size:
            slope = silu_derivative(_load(z, at, count))
            _store(dz, at, _load(dy, at, count) * s * slope, count)
        dstep = mul_add(x, inner, outer * _LN_2)
        if soft:
            dstep = dstep * sigmoid(_raw_step(delta, bias, at, start, count))
        bias_sum = bias_sum + dstep
        _store(du, at, dx, count)
        _store(ddelta, at, dstep, count)
    for i in range(len(block)):
        store(adjoints, own + i * w, adjoint[i])
        store(rate_sums, own + i * w, load(rate_sums, own + i * w) + rate_sum[i])
    store(skip_sums, start - first, load(skip_sums, start - first) + skip_sum)
    store(bias_sums, start - first, load(bias_sums, start - first) + bias_sum)


@helper
def _sum_channels(partial, row, products, fresh, block):
    """Put the sums over the lanes of folded products of dB and dC into a row, or add them to it."""
    half = lanes(partial) // 2
    if len(block) % half == 0:
        for i in range(0, len(block), half):
            value = folded_sums(products, i)
            if not fresh:
                value = value + load(partial, row + 2 * i)
            store(partial, row + 2 * i, value)
    else:
        for i in range(0, len(block), half):
            value = folded_sums(products, i)
            for m in range(min(half, len(block) - i)):
                at_b, at_c = row + i + m, row + len(block) + i + m
                partial[at_b] = lane(value, m) + (0 if fresh else partial[at_b])
                partial[at_c] = lane(value, half + m) + (0 if fresh else partial[at_c])


@kernel
def backward(arrays, dy, states, ends, results, dA, dh0, dD, dbias, tokens, sizes, cut, block, soft, counter):
    """The adjoint scan: `ends` (b, segments, n, c) is the adjoint that enters each segment from behind.

    Out come results = (du, ddelta, dz, partial), with the shares of dB and dC in partial, see :func:`gather`;
    dh0 (b, n, c); and per segment the shares of dA (b segments, n, c), dD and ddelta_bias (b segments, 1, c).
    """
    u, _, A = arrays[:3]
    b, l, c, g, n = sizes
    segments, segment_chunks, _, width = cut
    w = lanes(u)
    chunks = -(-l // CHUNK)
    flat_sizes = (b, l, c, g, 1)
    adjoints, rate_sums = _scratch(width * n, u), _scratch(width * n, u)
    skip_sums, bias_sums = _scratch(width, u), _scratch(width, u)
    carried = adjoints, rate_sums, skip_sums, bias_sums
    rates = _scratch(width * n, u)
    scratch = (
        rates,
        _scratch((CHUNK + 1) * BLOCK * w, u),
        _scratch(CHUNK * BLOCK * w, u),
        _scratch(CHUNK * w, u),
        _scratch(CHUNK * w, u),
        _scratch(CHUNK * w, u),
        _scratch(CHUNK * w, u),
        _scratch(CHUNK * w, u),
    )
    places = numpy.empty(CHUNK, numpy.int64)
    for task in tasks(counter):
        item, segment, group, part, first, last = _task(task, sizes, cut)
        own_row = item * segments + segment
        _fetch(A, rates, 0, sizes, first, last)
        _fetch(ends, adjoints, own_row, sizes, first, last)
        rate_sums[:] = 0
        skip_sums[:] = 0
        bias_sums[:] = 0
        begin, end = segment * segment_chunks, min(chunks, (segment + 1) * segment_chunks)
        for chunk in range(end - 1, begin - 1, -1):
            length = min(CHUNK, l - chunk * CHUNK)
            for j in range(length):
                places[j] = item * l + tokens[chunk * CHUNK + j]
            for start in range(first, last, w):
                for k in range(0, n, len(block)):
                    own = (start - first) * n + k * w
                    there = length, group, start, k, own, item * chunks + chunk
                    back = length, group, start, k, own, first
                    row = part * b * l * g
                    # two calls each, so that one is compiled for full vectors
                    if last - start >= w:
                        _recompute(arrays, dy, states, scratch, places, there, sizes, w, soft, block)
                        _reverse(
                            arrays, dy, results, carried, scratch, places, back, row, sizes, w, soft, block
                        )
                    else:
                        count = last - start
                        _recompute(arrays, dy, states, scratch, places, there, sizes, count, soft, block)
                        _reverse(
                            arrays,
                            dy,
                            results,
                            carried,
                            scratch,
                            places,
                            back,
                            row,
                            sizes,
                            count,
                            soft,
                            block,
                        )
        _deliver(rate_sums, dA, own_row, sizes, first, last)
        _deliver(skip_sums, dD, own_row, flat_sizes, first, last)
        _deliver(bias_sums, dbias, own_row, flat_sizes, first, last)
        if segment == 0:
            _deliver(adjoints, dh0, item, sizes, first, last)


@kernel
def gather(partial, dB, dC, rows, n, parts, block, counter):
    """dB and dC, of so many rows (b l g), from the sums of the parts over their channels.

    partial is (parts, rows, n / unit, 2, unit): a unit is the states that one vector holds the sums of, if they
    divide a block, else a block.
    """
    total = numpy.empty(2 * n, partial.dtype)
    w = lanes(partial)
    unit = len(block) if len(block) % (w // 2) else w // 2
    for task in tasks(counter):
        for row in range(task * GATHERED, min(rows, (task + 1) * GATHERED)):
            for i in range(0, 2 * n, w):
                count = min(w, 2 * n - i)
                value = load_first(partial, row * 2 * n + i, count)
                for part in range(1, parts):
                    value = value + load_first(partial, (part * rows + row) * 2 * n + i, count)
                store_first(total, i, value, count)
            for k in range(0, n, unit):
                for i in range(unit):
                    dB[row * n + k + i] = total[2 * k + i]
                    dC[row * n + k + i] = total[2 * k + unit + i]


@kernel
def linear_forward(a, b, held, h, sizes, width, backward, counter):
    """h[t] = a[t] h[t-1] + b[t]; `held` (b, c) is the state before the first token and becomes the last one."""
    _, l, c = sizes
    parts = -(-c // width)
    for task in tasks(counter):
        item, first = task // parts, task % parts * width
        last = min(c, first + width)
        for i in range(l):
            row = (item * l + (l - 1 - i if backward else i)) * c
            for start in range(first, last, lanes(a)):
                count = min(lanes(a), last - start)
                state = _load(held, item * c + start, count)
                state = mul_add(_load(a, row + start, count), state, _load(b, row + start, count))
                _store(held, item * c + start, state, count)
                _store(h, row + start, state, count)


@kernel
def linear_backward(dh, a, b, held, adjoint, da, db, sizes, width, backward, counter):
    """First the states before each token, put into da, then the adjoints, from the last token to the first.

    `held` (b, c) is the state before the first token; `adjoint` (b, c) that of the last state, and becomes that
    of the first.
    """
    _, l, c = sizes
    parts = -(-c // width)
    for task in tasks(counter):
        item, first = task // parts, task % parts * width
        last = min(c, first + width)
        for i in range(l):
            row = (item * l + (l - 1 - i if backward else i)) * c
            for start in range(first, last, lanes(a)):
                count = min(lanes(a), last - start)
                state = _load(held, item * c + start, count)
                _store(da, row + start, state, count)
                state = mul_add(_load(a, row + start, count), state, _load(b, row + start, count))
                _store(held, item * c + start, state, count)
        for i in range(l - 1, -1, -1):
            row = (item * l + (l - 1 - i if backward else i)) * c
            for start in range(first, last, lanes(a)):
                count = min(lanes(a), last - start)
                total = _load(adjoint, item * c + start, count) + _load(dh, row + start, count)
                _store(db, row + start, total, count)
                _store(da, row + start, total * _load(da, row + start, count), count)
                _store(adjoint, item * c + start, total * _load(a, row + start, count), count)


@kernel
def update(arrays, state, new_state, y, sizes, width, soft, counter):
    """One token: the states of a channel in the lanes, as they lie in memory. Here A is that of the op."""
    u, delta, A, B, C, D, z, bias = arrays
    _, c, g, n = sizes
    w = lanes(u)
    parts = -(-c // width)
    steps, sums = _scratch(width, u), _scratch(width, u)
    for task in tasks(counter):
        item, first = task // parts, task % parts * width
        last = min(c, first + width)
        for start in range(first, last, w):
            step = _raw_step(delta, bias, item * c + start, start, min(w, last - start))
            store(steps, start - first, softplus(step) if soft else step)
        for channel in range(first, last):
            row, at = (item * g + channel // (c // g)) * n, item * c + channel
            step = steps[channel - first]
            drive, exponent = step * u[at], step * LOG2_E
            s = zeros(u)
            for k in range(0, n, w):
                count = min(w, n - k)
                x = _load(A, channel * n + k, count) * exponent
                # the scaling of exponents could turn a NaN into a number
                decay = select(x == x, _decay(x), x)
                h = mul_add(decay, _load(state, at * n + k, count), _load(B, row + k, count) * drive)
                s = mul_add(h, _load(C, row + k, count), s)
                _store(new_state, at * n + k, h, count)
            sums[channel - first] = sum_lanes(s)
        for start in range(first, last, w):
            count, at = min(w, last - start), item * c + start
            s = load(sums, start - first)
            if D.size:
                s = mul_add(_load(D, start, count), _load(u, at, count), s)
            if z.size:
                s = s * silu(_load(z, at, count))
            _store(y, at, s, count)
