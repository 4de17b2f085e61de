"""Kernel of a single step of the selective scan."""

from mixers.cpu.aligned import scratch
from mixers.cpu.runner import kernel, tasks
from mixers.cpu.scan_common import LOG2_E, power_of_two, raw_step
from mixers.cpu.simd import lanes, load, mul_add, select, store, sum_lanes, zeros
from mixers.cpu.tails import get, put
from mixers.cpu.vector_math import silu, softplus


@kernel
def update(arrays, state, new_state, y, sizes, width, soft, counter):
    """One token: the states of a channel in the lanes, as they lie in memory. Here A is that of the op."""
    u, delta, A, B, C, D, z, bias = arrays
    _, c, g, n = sizes
    w = lanes(u)
    parts = -(-c // width)
    steps, sums = scratch(width, u), scratch(width, u)
    for task in tasks(counter):
        item, first = task // parts, task % parts * width
        last = min(c, first + width)
        for start in range(first, last, w):
            step = raw_step(delta, bias, item * c + start, start, min(w, last - start))
            store(steps, start - first, softplus(step) if soft else step)
        for channel in range(first, last):
            row, at = (item * g + channel // (c // g)) * n, item * c + channel
            step = steps[channel - first]
            drive, exponent = step * u[at], step * LOG2_E
            s = zeros(u)
            for k in range(0, n, w):
                count = min(w, n - k)
                x = get(A, channel * n + k, count) * exponent
                # the scaling of exponents could turn a NaN into a number
                decay = select(x == x, power_of_two(x), x)
                h = mul_add(decay, get(state, at * n + k, count), get(B, row + k, count) * drive)
                s = mul_add(h, get(C, row + k, count), s)
                put(new_state, at * n + k, h, count)
            sums[channel - first] = sum_lanes(s)
        for start in range(first, last, w):
            count, at = min(w, last - start), item * c + start
            s = load(sums, start - first)
            if D.size:
                s = mul_add(get(D, start, count), get(u, at, count), s)
            if z.size:
                s = s * silu(get(z, at, count))
            put(y, at, s, count)
