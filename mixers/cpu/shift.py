"""Shifts of channel groups.

x is seen as (lines, n, inner, c): n is the shifted axis, `lines` all axes before it and `inner` all between
it and the channels. The channels of one vector may have several shifts: the table of a vector's distinct
shifts says which line each lane is taken from.
"""

import math

import numpy

from mixers.cpu import linear
from mixers.cpu.aligned import contiguous, empty
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, select, store_first, zeros

_TASK_VALUES = 32768


@kernel
def _gather(x, y, first, last, starts, chosen, n, inner, c, positions, size, counter):
    """y[i] = sum of x[first .. last) of each lane's shift: one line forward, all that were read backward."""
    for task in tasks(counter):
        for position in range(task * size, min(positions, (task + 1) * size)):
            line, i, k = position // (n * inner), position // inner % n, position % inner
            for j in range(0, c, lanes(x)):
                width = min(c - j, lanes(x))
                vector = j // lanes(x)
                value = zeros(x)
                for s in range(starts[vector], starts[vector + 1]):
                    moved = zeros(x)
                    for source in range(first[s * n + i], last[s * n + i]):
                        moved = moved + load_first(x, ((line * n + source) * inner + k) * c + j, width)
                    mask = load_first(chosen, s * lanes(x), lanes(x)) > zeros(x)
                    value = select(mask, moved, value)
                store_first(y, position * c + j, value, width)


def channel_shift_forward(x, shifts, axis=1, mode="zero", save=True):
    """Each position reads one line, or none outside the grid."""
    return _shifted(x, shifts, axis, _read(x.shape[axis], mode)), ()


def channel_shift_backward(dout, saved):
    """Each position sums the lines that read it: a run of neighbours, as clipped indices are sorted."""
    return (_shifted(dout, saved.shifts, saved.axis, _readers(dout.shape[saved.axis], saved.mode)),)


def shift_linear_forward(x, w, b=None, shifts=None, axis=1, mode="zero", save=True):
    """The shifted rows exist until the product is done."""
    return linear.linear_forward(channel_shift_forward(x, shifts, axis, mode)[0], w, b, save=False)[0], ()


def shift_linear_backward(dout, saved):
    """The backward of the product with the shifted rows made again, then the adjoint shift."""
    shifted, _ = channel_shift_forward(saved.x, saved.shifts, saved.axis, saved.mode)
    dshifted, dw, db = linear.linear_backward(dout, saved._replace(x=shifted))
    return channel_shift_backward(dshifted, saved)[0], dw, db


def _shifted(x, shifts, axis, lines):
    y = empty(x.shape, x.dtype)
    axis = axis % x.ndim
    n, c, inner = x.shape[axis], x.shape[-1], math.prod(x.shape[axis + 1 : -1])
    if x.size == 0:
        return y
    starts, distinct, chosen = _table(shifts, lanes(x), x.dtype)
    first, last = lines(distinct)
    positions, size = x.size // c, max(1, _TASK_VALUES // c)
    sizes = (n, inner, c, positions, size)
    run(
        _gather, -(-positions // size), contiguous(x), y, first, last, starts, chosen, *sizes, work=4 * x.size
    )
    return y


def _table(shifts, count, dtype):
    """For each vector of channels its distinct shifts, and for each of them which lanes have it (0 or 1)."""
    starts, distinct, chosen = [0], [], []
    for j in range(0, len(shifts), count):
        own = shifts[j : j + count]
        for s in numpy.unique(own):
            distinct.append(int(s))
            chosen.append(numpy.pad(own == s, (0, count - len(own))))
        starts.append(len(distinct))
    return numpy.array(starts), numpy.array(distinct), contiguous(numpy.concatenate(chosen), dtype)


def _read(n, mode):
    """Bounds of the one line that position i reads for shift s."""

    def lines(distinct):
        index = numpy.arange(n) - distinct[:, None]
        source = index % n if mode == "wrap" else numpy.clip(index, 0, n - 1)
        inside = (index >= 0) & (index < n) if mode == "zero" else True
        return source.reshape(-1), (source + inside).reshape(-1)

    return lines


def _readers(n, mode):
    """Bounds of the lines that read position m for shift s: the adjoint of :func:`_read`."""

    def lines(distinct):
        m, s = numpy.arange(n), distinct[:, None]
        index = (m + s) % n if mode == "wrap" else m + s
        first, last = numpy.clip(index, 0, n), numpy.clip(index + 1, 0, n)
        if mode == "clamp":
            # the border lines are also read by all that lie beyond them
            first = numpy.where(m == 0, 0, first)
            last = numpy.where(m == n - 1, n, last)
        return first.reshape(-1), last.reshape(-1)

    return lines
