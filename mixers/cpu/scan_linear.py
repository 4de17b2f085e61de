"""Kernels of the plain linear scan: channels in the lanes, one sweep per direction."""

from mixers.cpu.runner import kernel, tasks
from mixers.cpu.simd import lanes, mul_add
from mixers.cpu.tails import get, put


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
                state = get(held, item * c + start, count)
                state = mul_add(get(a, row + start, count), state, get(b, row + start, count))
                put(held, item * c + start, state, count)
                put(h, row + start, state, count)


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
                state = get(held, item * c + start, count)
                put(da, row + start, state, count)
                state = mul_add(get(a, row + start, count), state, get(b, row + start, count))
                put(held, item * c + start, state, count)
        for i in range(l - 1, -1, -1):
            row = (item * l + (l - 1 - i if backward else i)) * c
            for start in range(first, last, lanes(a)):
                count = min(lanes(a), last - start)
                total = get(adjoint, item * c + start, count) + get(dh, row + start, count)
                put(db, row + start, total, count)
                put(da, row + start, total * get(da, row + start, count), count)
                put(adjoint, item * c + start, total * get(a, row + start, count), count)
