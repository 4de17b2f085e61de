"""Kernel of the selective scans, forward: the tokens in chunks, some states in registers."""

import numpy

from mixers.cpu.aligned import scratch
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
    source_of,
    task_of,
)
from mixers.cpu.simd import lanes, load, mul_add, scalar, store, tile, zeros
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import silu


@helper
def _advance(arrays, y, memory, spot, sizes, cut, count, soft, block, ways):
    """Carry some states of one block of channels over a chunk in one direction, and add to (or finish) its outputs."""
    u, _, _, B, C, D, z, _, resets = arrays
    held, rates, steps, decays, visits = memory
    length, direction, group, start, k, own = spot
    _, _, c, g, n = sizes
    w = lanes(u)
    shared = len(ways) == len(ALIKE)
    if k == 0 and (direction == 0 or not shared):
        measure(steps, arrays, visits, direction, cut[5], length, c, start, count, soft, ways)
    kept = k * CHUNK * w
    if shared and direction == 0:
        measure_decays(decays, kept, steps, rates, own, length, block)
    added = k > 0 or len(ways) > 0
    h = tile(u, BLOCK)
    for i in range(len(block)):
        h[i] = load(held, own + i * w)
    for j in range(length):
        place = place_of(visits, direction, j)
        at = place * c + start
        row = (source_of(visits, direction, j, ways) * g + group) * n + k
        step = load(steps, j * w)
        x = get(u, at, count)
        drive = step * x
        s = get(y, at, count) if added else zeros(u)
        if resets.size and resets[place]:
            for i in range(len(block)):
                h[i] = zeros(u)
        for i in range(len(block)):
            if shared:
                decay = load(decays, kept + (j * len(block) + i) * w)
            else:
                decay = power_of_two(step * load(rates, own + i * w))
            h[i] = mul_add(decay, h[i], drive * scalar(B, row + i))
            s = mul_add(h[i], scalar(C, row + i), s)
        if k + len(block) == n:
            if D.size and direction == 0:
                s = mul_add(get(D, start, count), x, s)
            if z.size:
                s = s * silu(get(z, at, count))
        put(y, at, s, count)
    for i in range(len(block)):
        store(held, own + i * w, h[i])


@kernel
def forward(arrays, starts, last_state, y, states, walk, sizes, cut, block, ways, soft, counter):
    """The scans of u along every direction: y, and, if of any size, the last states and those of the chunks out.

    `block` is a tuple of as many zeros as states are kept in registers, `ways` is ONE, SEVERAL or ALIKE: their lengths
    are known to the compiler. `starts` (b, segments, n, c) are the states before each segment, zeros if of no size. D
    is the sum over the directions.
    """
    u, _, A = arrays[:3]
    b, l, c, _, n = sizes
    segments, segment_chunks, _, width, _, _ = cut
    directions = count_directions(cut, ways)
    w = lanes(u)
    chunks = -(-l // CHUNK)
    held, rates = scratch(directions * width * n, u), scratch(directions * width * n, u)
    steps, decays = scratch(CHUNK * w, u), scratch(CHUNK * n * w if len(ways) == len(ALIKE) else 0, u)
    visits = numpy.empty(2 * directions * CHUNK, numpy.int64)
    memory = held, rates, steps, decays, visits
    for task in tasks(counter):
        item, segment, group, _, first, last = task_of(task, sizes, cut)
        for i in range(directions):
            fetch(A, i, rates, i * width * n, sizes, first, last)
        held[:] = 0
        if starts.size:
            fetch(starts, item * segments + segment, held, 0, sizes, first, last)
        if len(ways):
            clear(y, item, l, c, first, last)
        for chunk in range(segment * segment_chunks, min(chunks, (segment + 1) * segment_chunks)):
            length = min(CHUNK, l - chunk * CHUNK)
            find(visits, walk, item, l, directions, chunk * CHUNK, length, ways)
            if u.nbytes > FAR:
                anticipate(arrays, walk, item, l, c, cut, (chunk + 1) * CHUNK, first, last, ways)
            for i in range(directions):
                if states.size:
                    row = (i * b + item) * chunks + chunk
                    deliver(held, i * width * n, states, row, sizes, first, last)
            for start in range(first, last, w):
                for i in range(directions):
                    for k in range(0, n, len(block)):
                        own = (i * width + start - first) * n + k * w
                        spot = length, i, group + i, start, k, own
                        # two calls, so that one is compiled for full vectors
                        if last - start >= w:
                            _advance(arrays, y, memory, spot, sizes, cut, w, soft, block, ways)
                        else:
                            count = last - start
                            _advance(arrays, y, memory, spot, sizes, cut, count, soft, block, ways)
        if segment == segments - 1 and last_state.size:
            deliver(held, 0, last_state, item, sizes, first, last)
