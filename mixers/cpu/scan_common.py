"""What the kernels of the scans share: their tasks, the memory of a task, steps and decays.

Channels are in the lanes. A task owns a run of channels of one batch item, over one segment of the tokens; all arrays
are flat. sizes = (b, l, c, g, n), with g rows of B and C per token: one per group of channels and direction.
cut = (segments, chunks of a segment, parts of a group, width of a part, directions, rows of delta per token).
A place is the index of a token in the whole batch. Rates are those of A, (directions, n, c), in powers of two: a decay
is 2^(step rate).
"""

import math

from numba import types
from numba.extending import overload

from mixers.cpu.runner import INLINED, helper
from mixers.cpu.simd import (
    bits,
    clamp,
    from_bits,
    lanes,
    load,
    load_first,
    prefetch,
    store,
    store_first,
    zeros,
)
from mixers.cpu.tails import get
from mixers.cpu.vector_math import fraction_power, polynomial, softplus

# tokens between two saved states
CHUNK = 16

# states in registers at once: the adjoint and the sums of a backward sweep take two each
BLOCK = 8

# bytes of u from which its rows are asked for ahead: tasks read short stretches of rows, which no processor foresees
FAR = 1 << 23

LOG2_E = math.log2(math.e)

# how many directions a kernel is compiled for, as tuples whose length the compiler knows: one, whose visits take the
# coefficients of the tokens themselves; several; several that have the same decays at the same time
ONE, SEVERAL, ALIKE = (), (0,), (0, 0)

# as fraction_power, to the rounding of float64
_fraction_power_double = polynomial(
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


def power_of_two(x):
    """2^x with the scale added to the exponent; results below the normal range become its smallest number."""
    raise NotImplementedError("power_of_two is for kernels")


def _decay_single(x):
    x = clamp(x, -126.0, 128.0)
    shifted = x + 12582912.0
    return from_bits(bits(fraction_power(x - (shifted - 12582912.0))) + (bits(shifted) << 23))


def _decay_double(x):
    x = clamp(x, -1022.0, 1024.0)
    shifted = x + 6755399441055744.0
    return from_bits(bits(_fraction_power_double(x - (shifted - 6755399441055744.0))) + (bits(shifted) << 52))


@overload(power_of_two, jit_options=INLINED)
def _choose_decay(x):
    return _decay_single if x.element == types.float32 else _decay_double


@helper
def task_of(task, sizes, cut):
    """Batch item, segment, group, part of the group and range of channels of a task."""
    _, _, c, g, _ = sizes
    segments, _, parts, width, directions, _ = cut
    groups = g // directions
    part, rest = task % parts, task // parts
    group, rest = rest % groups, rest // groups
    first = group * (c // groups) + part * width
    last = min(first + width, (group + 1) * (c // groups))
    return rest // segments, rest % segments, group, part, first, last


@helper
def fetch(source, row, target, offset, sizes, first, last):
    """Copy a row (n, c) of a task's channels to scratch: block after block of channels, states inside."""
    _, _, c, _, n = sizes
    w = lanes(source)
    for start in range(first, last, w):
        for k in range(n):
            value = load_first(source, (row * n + k) * c + start, min(w, last - start))
            store(target, offset + (start - first) * n + k * w, value)


@helper
def deliver(source, offset, target, row, sizes, first, last):
    """The opposite of fetch."""
    _, _, c, _, n = sizes
    w = lanes(source)
    for start in range(first, last, w):
        for k in range(n):
            value = load(source, offset + (start - first) * n + k * w)
            store_first(target, (row * n + k) * c + start, value, min(w, last - start))


@helper
def clear(array, item, rows, c, first, last):
    """Zeros for the channels of a task in all rows of a batch item: those that directions add to."""
    w = lanes(array)
    for row in range(item * rows, (item + 1) * rows):
        for start in range(first, last, w):
            store_first(array, row * c + start, zeros(array), min(w, last - start))


@helper
def count_directions(cut, ways):
    return cut[4] if len(ways) else 1


@helper
def find(visits, walk, item, l, directions, begin, length, ways):
    """Where the tokens of a chunk lie, and those whose coefficients they take, in turn; CHUNK pairs per direction."""
    tokens, owners = walk
    for i in range(directions):
        for j in range(length):
            visit = 2 * (i * CHUNK + j)
            visits[visit] = item * l + tokens[i * l + begin + j]
            if len(ways):
                visits[visit + 1] = item * l + owners[i * l + begin + j]


@helper
def place_of(visits, direction, j):
    """The place of a visit."""
    return visits[2 * (direction * CHUNK + j)]


@helper
def source_of(visits, direction, j, ways):
    """The place whose coefficients a visit takes."""
    return visits[2 * (direction * CHUNK + j) + (1 if len(ways) else 0)]


@helper
def row_of_delta(source, direction, deltas, ways):
    return source * deltas + (direction if deltas > 1 else 0) if len(ways) else source


@helper
def anticipate(arrays, walk, item, l, c, cut, begin, first, last, ways):
    """Ask for what the visits of a chunk will read of the channels of a task."""
    u, delta, z = arrays[0], arrays[1], arrays[6]
    tokens, owners = walk
    for i in range(count_directions(cut, ways)):
        for visit in range(i * l + begin, i * l + min(begin + CHUNK, l)):
            at = (item * l + tokens[visit]) * c
            at_delta = row_of_delta(item * l + owners[visit], i, cut[5], ways) * c
            for start in range(first, last, lanes(u)):
                prefetch(u, at + start)
                prefetch(delta, at_delta + start)
                if z.size:
                    prefetch(z, at + start)


@helper
def raw_step(delta, bias, at, at_bias, count):
    """delta + delta_bias, as far as there is a bias."""
    r = get(delta, at, count)
    return r + get(bias, at_bias, count) if bias.size else r


@helper
def measure(steps, arrays, visits, direction, deltas, length, c, start, count, soft, ways):
    """The steps of one block of channels over a chunk, ahead of the recurrence that would wait for each."""
    delta, bias = arrays[1], arrays[7]
    for j in range(length):
        source = source_of(visits, direction, j, ways)
        at = row_of_delta(source, direction, deltas, ways) * c + start
        step = raw_step(delta, bias, at, direction * c + start, count)
        store(steps, j * lanes(steps), softplus(step) if soft else step)


@helper
def measure_decays(decays, offset, steps, rates, own, length, block):
    """The decays of some states of one block of channels over a chunk, for all directions that share them."""
    w = lanes(steps)
    for j in range(length):
        step = load(steps, j * w)
        for i in range(len(block)):
            store(decays, offset + (j * len(block) + i) * w, power_of_two(step * load(rates, own + i * w)))
