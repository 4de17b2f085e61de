"""Kernel of the segments that long sequences of few channels are cut into."""

import numpy

from mixers.cpu.aligned import scratch
from mixers.cpu.runner import kernel, tasks
from mixers.cpu.scan_common import CHUNK, deliver, fetch, power_of_two, raw_step, task_of
from mixers.cpu.simd import (
    full,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    mul_add,
    scalar,
    store,
    store_first,
    zeros,
)
from mixers.cpu.vector_math import silu, softplus


@kernel
def segment_sums(source, arrays, sums, totals, walk, sizes, cut, backward, counter):
    """What each segment adds to the state after it (or, backward, to the adjoint before it).

    That is the sum over its tokens of x[t] V[t] times the decay over the tokens between t and the end the
    result leaves by. There is no recurrence: the segment is walked from that end with the running sum of the
    steps, until all decays have vanished. Forward x = d u and V = B, backward x = ds and V = C. `totals`
    (b, segments, c) are the sums of the steps. The last segment (backward, the first) is left out.
    Only for one direction, steps by softplus and rates of at most 0.
    """
    u, delta, A, B, C, _, z, bias, _ = arrays
    _, l, c, g, n = sizes
    segments, segment_chunks, _, width, _, _ = cut
    tokens = walk[0]
    w = lanes(u)
    rates, held = scratch(width * n, u), scratch(width * n, u)
    slowest = scratch(w, u)
    for task in tasks(counter):
        item, segment, group, _, first, last = task_of(task, sizes, cut)
        if segment == (0 if backward else segments - 1):
            continue
        fetch(A, 0, rates, 0, sizes, first, last)
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
                step = softplus(raw_step(delta, bias, at, start, count))
                x = load_first(source, at, count)
                if not backward:
                    x = x * step
                else:
                    total = total + step
                    if z.size:
                        x = x * silu(load_first(z, at, count))
                for k in range(n):
                    coefficient = scalar(C, row + k) if backward else scalar(B, row + k)
                    decay = power_of_two(total * load(rates, own + k * w))
                    store(held, own + k * w, mul_add(decay, x * coefficient, load(held, own + k * w)))
                if not backward:
                    total = total + step
                if t % CHUNK == 0 and max_lanes(total * slow) < -126.0:
                    break
            store_first(totals, (item * segments + segment) * c + start, total, count)
        deliver(held, 0, sums, item * segments + segment, sizes, first, last)
