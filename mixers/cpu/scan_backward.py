"""Kernels of the selective scans, backward: a chunk of states is recomputed, then walked from its end."""

import math

import numpy

from mixers.cpu.aligned import scratch
from mixers.cpu.lane_sums import fold, folded_sums
from mixers.cpu.runner import helper, kernel, tasks
from mixers.cpu.scan_common import (
    ALIKE,
    BLOCK,
    CHUNK,
    FAR,
    anticipate,
    clear,
    count_directions,
    deliver,
    fetch,
    find,
    measure,
    measure_decays,
    place_of,
    power_of_two,
    raw_step,
    row_of_delta,
    source_of,
    task_of,
)
from mixers.cpu.simd import (
    lane,
    lanes,
    load,
    load_first,
    mul_add,
    prefetch,
    scalar,
    store,
    store_first,
    tile,
    zeros,
)
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import sigmoid, silu, silu_derivative

# rows of dB and dC that a task of gather makes
GATHERED = 256

_LN_2 = math.log(2.0)


@helper
def _recompute(arrays, dy, states, memory, spot, row, sizes, deltas, count, soft, block, ways):
    """Some states of one block of channels before and after every token of a chunk, and the decays.

    With the first states also the steps and the cotangents before the gate.
    """
    u, _, _, B, _, _, z, _, resets = arrays
    rates, history, decays, steps, cotangents = memory[:5]
    visits = memory[8]
    length, direction, group, start, k, own = spot
    _, _, c, g, n = sizes
    w = lanes(u)
    shared = len(ways) == len(ALIKE)
    if k == 0:
        if direction == 0 or not shared:
            measure(steps, arrays, visits, direction, deltas, length, c, start, count, soft, ways)
        for j in range(length):
            at = place_of(visits, direction, j) * c + start
            ds = get(dy, at, count)
            store(cotangents, j * w, ds * silu(get(z, at, count)) if z.size else ds)
    kept = k * CHUNK * w if shared else 0
    if shared and direction == 0:
        measure_decays(decays, kept, steps, rates, own, length, block)
    h = tile(u, BLOCK)
    for i in range(len(block)):
        h[i] = get(states, (row * n + k + i) * c + start, count)
        store(history, i * w, h[i])
    for j in range(length):
        place = place_of(visits, direction, j)
        at_b = (source_of(visits, direction, j, ways) * g + group) * n + k
        step = load(steps, j * w)
        drive = step * get(u, place * c + start, count)
        if resets.size and resets[place]:
            for i in range(len(block)):
                h[i] = zeros(u)
        for i in range(len(block)):
            if shared:
                decay = load(decays, kept + (j * len(block) + i) * w)
            else:
                decay = power_of_two(step * load(rates, own + i * w))
                store(decays, (j * len(block) + i) * w, decay)
            h[i] = mul_add(decay, h[i], drive * scalar(B, at_b + i))
            store(history, ((j + 1) * len(block) + i) * w, h[i])
        if resets.size and resets[place]:
            # no adjoint goes back beyond a start
            for i in range(len(block)):
                store(decays, (j * len(block) + i) * w, zeros(u))


@helper
def _reverse(arrays, dy, results, carried, memory, spot, part, sizes, cut, count, soft, block, ways):
    """Walk a chunk backward in one direction with the adjoints of some states of one block of channels.

    Sums over the states (the output s, inner = sum lambda B, outer = sum rate w) are carried from block to block
    of states and give du, ddelta and dz with the last; sums over the tokens are those for dA, dD and ddelta_bias;
    sums over the channels, for dB and dC, are put or added to rows of `partial`; part = (its first row, the first
    channel of the task).
    """
    u, delta, _, B, C, D, z, bias, _ = arrays
    du, ddelta, dz, partial = results
    adjoints, rate_sums, skip_sums, bias_sums = carried
    rates, history, decays, steps, cotangents, outputs, inners, outers, visits = memory
    length, direction, group, start, k, own = spot
    _, _, c, g, n = sizes
    width, directions, deltas = cut[3:]
    row, first = part
    w = lanes(u)
    kept = k * CHUNK * w if len(ways) == len(ALIKE) else 0
    adjoint, rate_sum, products = tile(u, BLOCK), tile(u, BLOCK), tile(u, BLOCK)
    for i in range(len(block)):
        adjoint[i] = load(adjoints, own + i * w)
        rate_sum[i] = zeros(u)
    for i in range(len(block), BLOCK):
        products[i] = zeros(u)
    skip_sum, bias_sum = zeros(u), zeros(u)
    for j in range(length - 1, -1, -1):
        at = place_of(visits, direction, j) * c + start
        source = source_of(visits, direction, j, ways)
        place = source * g + group
        step, ds, x = load(steps, j * w), load(cotangents, j * w), get(u, at, count)
        drive = step * x
        s, inner, outer = zeros(u), zeros(u), zeros(u)
        if k:
            s, inner, outer = load(outputs, j * w), load(inners, j * w), load(outers, j * w)
        for i in range(len(block)):
            before = load(history, (j * len(block) + i) * w)
            after = load(history, ((j + 1) * len(block) + i) * w)
            s = mul_add(after, scalar(C, place * n + k + i), s)
            total = mul_add(ds, scalar(C, place * n + k + i), adjoint[i])
            adjoint[i] = total * load(decays, kept + (j * len(block) + i) * w)
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
        if D.size and direction == 0:
            skip = get(D, start, count)
            dx = mul_add(skip, ds, dx)
            s = mul_add(skip, x, s)
            skip_sum = mul_add(ds, x, skip_sum)
        if z.size:
            slope = silu_derivative(get(z, at, count))
            put(dz, at, get(dy, at, count) * s * slope, count)
        dstep = mul_add(x, inner, outer * _LN_2)
        at_delta = row_of_delta(source, direction, deltas, ways) * c + start
        if soft:
            dstep = dstep * sigmoid(raw_step(delta, bias, at_delta, direction * c + start, count))
        bias_sum = bias_sum + dstep
        if len(ways):
            dx = dx + get(du, at, count)
        if len(ways) and directions > deltas:
            dstep = dstep + get(ddelta, at_delta, count)
        put(du, at, dx, count)
        put(ddelta, at_delta, dstep, count)
    for i in range(len(block)):
        store(adjoints, own + i * w, adjoint[i])
        store(rate_sums, own + i * w, load(rate_sums, own + i * w) + rate_sum[i])
    if direction == 0:
        store(skip_sums, start - first, load(skip_sums, start - first) + skip_sum)
    at_sum = direction * width + start - first
    store(bias_sums, at_sum, load(bias_sums, at_sum) + bias_sum)


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


@helper
def _pull_chunk(arrays, dy, states, results, carried, memory, where, sizes, cut, count, soft, block, ways):
    """Both passes over a chunk, for some states of one block of channels in one direction."""
    spot, row, back = where
    _recompute(arrays, dy, states, memory, spot, row, sizes, cut[5], count, soft, block, ways)
    _reverse(arrays, dy, results, carried, memory, spot, back, sizes, cut, count, soft, block, ways)


@helper
def _anticipate_more(dy, states, walk, item, sizes, directions, chunk, first, last):
    """Ask for the cotangents and the states of a chunk."""
    b, l, c, _, n = sizes
    tokens, _ = walk
    for i in range(directions):
        row = ((i * b + item) * -(-l // CHUNK) + chunk) * n
        for start in range(first, last, lanes(dy)):
            for j in range(CHUNK):
                prefetch(dy, (item * l + tokens[i * l + chunk * CHUNK + j]) * c + start)
            for k in range(n):
                prefetch(states, (row + k) * c + start)


@kernel
def backward(arrays, dy, states, ends, results, sums, walk, sizes, cut, block, ways, soft, counter):
    """The adjoint scans: `ends` (b, segments, n, c) is the adjoint that enters each segment from behind, or of no size.

    Out come results = (du, ddelta, dz, partial), with the shares of dB and dC in partial, see :func:`gather`, and sums
    over a segment: (dA (directions, b segments, n, c), dh0 (b, n, c) if of any size, dD (b segments, 1, c),
    ddelta_bias (directions, b segments, 1, c)). `block` and `ways` are those of the forward kernel.
    """
    u, _, A = arrays[:3]
    du, ddelta = results[:2]
    dA, dh0, dD, dbias = sums
    b, l, c, g, n = sizes
    segments, segment_chunks, _, width, _, deltas = cut
    directions = count_directions(cut, ways)
    w = lanes(u)
    chunks = -(-l // CHUNK)
    flat_sizes = (b, l, c, g, 1)
    size = width * n
    adjoints, rate_sums = scratch(directions * size, u), scratch(directions * size, u)
    skip_sums, bias_sums = scratch(width, u), scratch(directions * width, u)
    carried = adjoints, rate_sums, skip_sums, bias_sums
    rates = scratch(directions * size, u)
    visits = numpy.empty(2 * directions * CHUNK, numpy.int64)
    memory = (
        rates,
        scratch((CHUNK + 1) * BLOCK * w, u),
        scratch(CHUNK * (n if len(ways) == len(ALIKE) else BLOCK) * w, u),
        scratch(CHUNK * w, u),
        scratch(CHUNK * w, u),
        scratch(CHUNK * w, u),
        scratch(CHUNK * w, u),
        scratch(CHUNK * w, u),
        visits,
    )
    for task in tasks(counter):
        item, segment, group, part, first, last = task_of(task, sizes, cut)
        own_row = item * segments + segment
        for i in range(directions):
            fetch(A, i, rates, i * size, sizes, first, last)
        adjoints[:] = 0
        if ends.size:
            fetch(ends, own_row, adjoints, 0, sizes, first, last)
        rate_sums[:] = 0
        skip_sums[:] = 0
        bias_sums[:] = 0
        if len(ways):
            clear(du, item, l, c, first, last)
        if len(ways) and directions > deltas:
            clear(ddelta, item, l, c, first, last)
        begin, end = segment * segment_chunks, min(chunks, (segment + 1) * segment_chunks)
        for chunk in range(end - 1, begin - 1, -1):
            length = min(CHUNK, l - chunk * CHUNK)
            find(visits, walk, item, l, directions, chunk * CHUNK, length, ways)
            if u.nbytes > FAR and chunk > begin:
                anticipate(arrays, walk, item, l, c, cut, (chunk - 1) * CHUNK, first, last, ways)
                _anticipate_more(dy, states, walk, item, sizes, directions, chunk - 1, first, last)
            back = part * b * l * g, first
            for start in range(first, last, w):
                for i in range(directions):
                    row = (i * b + item) * chunks + chunk
                    for k in range(0, n, len(block)):
                        spot = length, i, group + i, start, k, i * size + (start - first) * n + k * w
                        where = spot, row, back
                        # two calls, so that one is compiled for full vectors
                        if last - start >= w:
                            _pull_chunk(
                                *(arrays, dy, states, results, carried, memory, where),
                                *(sizes, cut, w, soft, block, ways),
                            )
                        else:
                            _pull_chunk(
                                *(arrays, dy, states, results, carried, memory, where),
                                *(sizes, cut, last - start, soft, block, ways),
                            )
        for i in range(directions):
            deliver(rate_sums, i * size, dA, i * b * segments + own_row, sizes, first, last)
            deliver(bias_sums, i * width, dbias, i * b * segments + own_row, flat_sizes, first, last)
        deliver(skip_sums, 0, dD, own_row, flat_sizes, first, last)
        if segment == 0 and dh0.size:
            deliver(adjoints, 0, dh0, item, sizes, first, last)


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
