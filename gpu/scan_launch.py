"""How the selective scan is launched on the GPU.

The kernels keep the states in registers, some per thread; with few channels the tokens are cut into segments, whose
ends are found first. More states than a launch takes are scanned in parts, whose results are added up, as are those of
several directions. Saved states are those of the other backends.
"""

import copy
import functools
from typing import NamedTuple

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

# tokens between two saved states, and the multiple that segments have
CHUNK, _TILE = 16, 32

# more segments are not worth their ends; nor are shorter ones
_MOST_SEGMENTS, _SHORTEST = 16, 64

# of one launch
_MOST_STATES = 128

# the bits of a token's mark, as in scan.cuh
_FROZEN, _RESET = 1, 2

# scan_t of scan.cuh
_SIZES = "length channels groups parts segments segment first step items directions direction"
_LAYOUT = "delta_row b_row c_row order_apart delta_apart rate_apart b_apart c_apart skip_apart bias_apart"
_SCAN = numpy.dtype([(name, "i4") for name in f"{_SIZES} {_LAYOUT} all_states add add_steps".split()])


class Scan:
    """A scan and what its launches have in common.

    Parameters
    ----------
    u : array (b, l, c)
        Its shape, dtype and device are taken.
    groups, states : int
    softplus : bool
    reverse, order, sequence_starts, mask
        As for the op.

    Attributes
    ----------
    cross, directions, direction, add, add_steps
        For scans whose results are added up, see CROSS and scan_t in scan.cuh.
    sums_steps : bool
        Whether ddelta is such a sum too.
    order : int array (l,) or (all directions, l) or None
        On the device.
    """

    cross, directions, direction, add, add_steps, sums_steps = 0, 1, 0, False, False, False

    # the states of a part, None for all of them
    span = None

    def __init__(
        self, u, groups, states, softplus, reverse=False, order=None, sequence_starts=None, mask=None
    ):
        self.device, self.dtype, self.wide, self.shape = device_of(u), u.dtype, wide_of(u), u.shape
        self.groups, self.states, self.all_states, self.softplus = groups, states, states, softplus
        self.first, self.step, self.order = 0, 1, None
        visits = slice(None, None, -1 if reverse else 1)
        if order is not None:
            visits = order[visits]
            self.order = self.device.to_device(numpy.ascontiguousarray(visits, numpy.int32))
        elif reverse:
            self.first, self.step = u.shape[1] - 1, -1
        # by visit
        self.starts = None if sequence_starts is None else sequence_starts[:, visits]
        self.marks = None
        if u.size and (sequence_starts is not None or mask is not None):
            marks = numpy.zeros(u.shape[:2], numpy.uint8)
            if mask is not None:
                marks[~mask[:, visits]] = _FROZEN
            if sequence_starts is not None:
                marks[self.starts] |= _RESET
            self.marks = self.device.to_device(marks)

    def has_parts(self, backward=False, gated=False):
        """Whether the states take several launches: y (or du, ddelta and dz) is then made in the dtype of sums."""
        return self.all_states > self._most_states(backward, gated)

    def forward(self, u, delta, A, B, C, D, z, delta_bias, h0, y, states, last_state):
        """Make y and, if they are given, states and last_state.

        Arrays are contiguous, those of several directions as in cross_selective_scan, except for y: it has an axis of
        the directions of a launch in front, along which its values are to be added up.
        """
        for part in self._parts(self._most_states()):
            own_last = part.like(last_state)
            own_arrays = *part.of(A, B, C), D if part.is_first else None
            kept = None if states is None else part.rows_of(states)
            part._forward(u, delta, *own_arrays, z, delta_bias, *part.of(h0), y, kept, own_last)
            part.put(last_state, own_last)

    def _forward(self, u, delta, A, B, C, D, z, delta_bias, h0, y, states, last_state):
        threads = _forward_threads(self.states)
        segments, layout = self._segments(threads.channels), self._layout(delta, A, B, C, D, delta_bias)
        ends = self._ends(segments, layout, u, delta, A, B, None, delta_bias, backward=False)
        tables = self.order, self.marks, *ends
        arrays = u, delta, A, B, C, D, z, delta_bias, h0, *tables, y, states, last_state
        tile = _tile(self.wide, threads)
        cells = 2 * threads.channels * (2 * tile + 4 + tile + 1) + 4 * tile * threads.width
        self._launch("selective_scan_forward", threads, segments, layout, arrays, cells, z)

    def backward(self, inputs, results, add_b=False, add_c=False):
        """Make or add to the gradients in `results`; return those of A, D and delta_bias, or None.

        Parameters
        ----------
        inputs : tuple
            u, delta, A, B, C, D, z, delta_bias, dy, dlast_state, states
        results : tuple
            du, ddelta, dz, dh0, dB, dC. Of several directions, du and the gradients of what they share have an axis of
            the directions of a launch in front, as y has.
        add_b, add_c : bool
            Whether dB and dC hold the sums of earlier launches.

        Returns
        -------
        dA (directions, c, n), dD, ddelta_bias (directions, c)
        """
        u, delta, A, B, C, D, z, delta_bias, dy, dlast, states = inputs
        du, ddelta, dz, dh0, dB, dC = results
        parts = self._parts(self._most_states(True, z is not None))
        if len(parts) == 1:
            return self._backward(inputs, results, add_b, add_c)
        dA, dD, dbias = self.device.empty((self.directions, *A.shape[-2:]), self.wide), None, None
        for part in parts:
            own_arrays = *part.of(A, B, C), D if part.is_first else None
            own_inputs = u, delta, *own_arrays, z, delta_bias, dy, *part.of(dlast), part.rows_of(states)
            own_dh0, own_dB, own_dC = map(part.like, (dh0, dB, dC))
            own_results = du, ddelta, dz, own_dh0, own_dB, own_dC
            own_dA, own_dD, own_dbias = part._backward(own_inputs, own_results, False, False)
            part.put(dA, own_dA)
            part.put(dh0, own_dh0)
            part.put(dB, own_dB, add_b)
            part.put(dC, own_dC, add_c)
            dD = own_dD if part.is_first else dD
            dbias = own_dbias if part.is_first or delta_bias is None else dbias + own_dbias
        return dA, dD, dbias

    def _backward(self, inputs, results, add_b, add_c):
        _, delta, A, B, C, D, z, delta_bias, dy = inputs[:9]
        du, ddelta, dz, dh0, dB, dC = results
        device, (b, l, c), n = self.device, self.shape, self.states
        threads = _backward_threads(n, self.wide, z is not None, self.dtype.itemsize, device.max_shared)
        segments, blocks = self._segments(threads.channels), self._blocks(threads.channels)
        layout = self._layout(delta, A, B, C, D, delta_bias)
        ends = self._ends(segments, layout, dy, delta, A, C, z, delta_bias, backward=True)
        shares = self.directions, b * segments[0], c
        dA = device.empty((*shares, n), self.wide)
        dD, dbias = (device.empty(shares, self.wide) for _ in range(2))
        rows = b * l * self.groups
        partial = device.empty((blocks, self.directions * rows, 2, n), self.wide)
        steps = (None, ddelta) if self.sums_steps else (ddelta, None)
        tables = self.order, self.marks, *ends
        arrays = *inputs, *tables, du, *steps, dz, dh0, dA, dD, dbias, partial
        self._launch("selective_scan_backward", threads, segments, layout, arrays, None, z)
        sizes = numpy.int64(rows), *map(numpy.int32, (blocks, self.directions))
        own, row, apart = zip(*(self._coefficients(x, crossed=A.ndim == 3) for x in (dB, dC)))
        strides = *map(numpy.int32, row), *map(numpy.int64, apart)
        arguments = partial, *own, *sizes, *strides, numpy.bool_(add_b), numpy.bool_(add_c)
        kernel = self._kernel("sum_coefficients", threads, z)
        device.launch(kernel, (-(-self.directions * rows * 2 * n // 256),), (256,), arguments)
        total = lambda x, given: None if given is None else x.sum(axis=1)
        return total(dA, A), total(dD, D), total(dbias, delta_bias)

    def _coefficients(self, gradient, crossed):
        """Where this launch puts dB or dC, and what rows, and directions, are apart."""
        b, l, _ = self.shape
        if gradient.ndim == 5:
            return gradient, self.states, b * l * self.states
        if crossed:
            return gradient[:, :, self.direction :], gradient.shape[2] * self.states, self.states
        return gradient, self.states, 0

    def _most_states(self, backward=False, gated=False):
        """As many as one launch takes: in a backward their shares must fit shared memory."""
        most = _MOST_STATES
        limits = self.wide, gated, self.dtype.itemsize, self.device.max_shared
        while backward and _backward_threads(min(most, self.all_states), *limits) is None:
            most //= 2
        return most

    def _parts(self, most):
        """This scan, or several scans of some of its states each."""
        n = self.all_states
        if n <= most:
            return [self]
        count = -(-n // most)
        # rows of coefficients that are read by 16 bytes
        size = -(-n // (8 * count)) * 8
        return [self._part(start, min(n, start + size)) for start in range(0, n, size)]

    def _part(self, start, stop):
        part = copy.copy(self)
        part.span, part.states = slice(start, stop), stop - start
        part.cross, part.sums_steps = self.cross or 1, True
        part.add, part.add_steps = self.add or start > 0, self.add_steps or start > 0
        return part

    def at_once(self, directions, backward=False):
        """How many directions a launch takes: no more than fill the device, for each makes sums of its own."""
        if self.has_parts(backward):
            return directions
        limits = self.wide, False, self.dtype.itemsize, self.device.max_shared
        threads = _backward_threads(self.states, *limits) if backward else _forward_threads(self.states)
        blocks = max(1, self.shape[0] * self._blocks(threads.channels))
        return min(directions, max(1, 2 * self.device.sm_count // blocks))

    def along(self, direction, directions):
        """The scan of some directions, after those before them."""
        part = copy.copy(self)
        part.direction, part.directions = direction, directions
        part.add, part.add_steps = direction > 0, direction > 0 and self.add_steps
        return part

    def _layout(self, delta, A, B, C, D, delta_bias):
        """What tokens, and directions, are apart: the fields of scan_t that _LAYOUT names."""
        if not self.cross:
            return (0,) * len(_LAYOUT.split())
        (_, l, c), n = self.shape, self.states
        if A.ndim == 2:
            return (c, *[self.groups * n] * 2, *[0] * 7)
        sizes = (delta, 2, c), (A, 0, c * n), (B, 2, n), (C, 2, n), (D, 0, c), (delta_bias, 0, c)
        apart = (0 if x is None or x.shape[axis] == 1 else size for x, axis, size in sizes)
        return *(x.shape[2] * x.shape[3] for x in (delta, B, C)), l, *apart

    @property
    def is_first(self):
        """Whether this is the part that has the first states."""
        return self.span is None or self.span.start == 0

    def of(self, *arrays):
        """The states of this part of arrays (..., states)."""
        if self.span is None:
            return arrays
        return given(self.device, *(None if x is None else x[..., self.span] for x in arrays))

    def like(self, array):
        """An array (..., states), or a new one for the states of this part."""
        if self.span is None or array is None:
            return array
        return self.device.empty((*array.shape[:-1], self.states), self.wide)

    def rows_of(self, states):
        """The saved states of this part."""
        return states if self.span is None else states[..., self.span, :]

    def put(self, array, own, add=False):
        """Put the states of this part into an array (..., states), or add them to it."""
        if self.span is not None and array is not None:
            array[..., self.span] = array[..., self.span] + own if add else own

    def _blocks(self, channels):
        """Blocks of a group."""
        return -(-(self.shape[2] // self.groups) // channels)

    def _segments(self, channels):
        """Their number and length: two blocks for every multiprocessor."""
        b, l, _ = self.shape
        blocks = b * self.directions * self.groups * self._blocks(channels)
        return _cut(l, 2 * self.device.sm_count // blocks)

    def _ends(self, segments, layout, source, delta, A, V, z, bias, backward):
        """Where sequences start in each segment, what it adds to the state behind it (or the adjoint before it), and
        its sum of steps.
        """
        if segments[0] == 1:
            return None, None, None
        totals = self.device.empty((self.directions * self.shape[0], segments[0], self.shape[2]), self.wide)
        sums = self.device.empty((*totals.shape, self.states), self.wide)
        threads = _segment_threads(self.states, backward)
        tile = _tile(self.wide, threads)
        cells = 2 * threads.channels * (2 * tile + 4) + 2 * tile * threads.width
        starts = None if self.starts is None else _starts_in(self.starts, segments, backward)
        starts = None if starts is None else self.device.to_device(starts)
        arrays = source, delta, A, V, z, bias, self.order, self.marks, starts, sums, totals
        self._launch("segment_sums", threads, segments, layout, arrays, cells, z, rows=segments[0] - 1)
        return starts, sums, totals

    def _kernel(self, name, threads, z):
        return _kernel(
            name,
            threads.file,
            c_type(self.dtype),
            (self.states, threads.share, threads.lanes),
            (self.softplus, z is not None, self.order is not None, self.marks is not None, self.cross),
            tuple(threads.macros.items()),
        )

    def _launch(self, name, threads, segments, layout, arrays, cells, z, rows=None):
        b, l, c = self.shape
        blocks = self._blocks(threads.channels)
        sizes = (
            l,
            c,
            self.groups,
            blocks,
            *segments,
            self.first,
            self.step,
            b,
            self.directions,
            self.direction,
        )
        sums = self.all_states, self.add, self.add_steps
        struct = numpy.array((*sizes, *layout, *sums), _SCAN)[()]
        shared = threads.shared if cells is None else cells * self.wide.itemsize
        grid = self.directions * b * self.groups * blocks, segments[0] if rows is None else rows
        self.device.launch(self._kernel(name, threads, z), grid, (threads.count,), (*arrays, struct), shared)


class _Threads(NamedTuple):
    """How states and channels are shared out among the threads of a block."""

    file: str
    share: int  # states of a thread
    lanes: int  # threads of a channel
    channels: int  # of a block
    count: int
    macros: dict
    shared: int  # bytes, where it is not computed from cells

    @property
    def width(self):
        return self.share * self.lanes


def _forward_threads(n):
    lanes = power(-(-n // 8))
    count = 64 if lanes == 1 else 128
    return _Threads("scan_forward.cu", -(-n // lanes), lanes, count // lanes, count, {}, 0)


def _segment_threads(n, backward):
    share = min(n, 4)
    lanes = power(-(-n // share))
    channels = 64 if lanes == 1 else 128 // lanes
    return _Threads("scan_segments.cu", share, lanes, channels, 64, {"REVERSED": int(backward)}, 0)


def _backward_threads(n, wide, gated, itemsize, max_shared):
    """None if too many states are asked for."""
    double = wide == numpy.float64
    share = min(power(n), 4)
    lanes = power(-(-n // share))
    pair = 1 if double or lanes == 1 else 2
    width, columns = share * lanes, 32 // lanes
    warps = min(4, max(2, lanes))
    while warps:
        channels = columns * pair * warps
        raw = 2 * ((4 if gated else 3) * channels + 2 * width)
        cells = 5 * channels + 2 * min(share, columns) * width + 2 * warps * width
        starts = 2 * channels * width
        shared = CHUNK * raw * itemsize + (CHUNK * cells + starts) * (8 if double else 4)
        if shared <= max_shared:
            macros = {"PAIR": pair, "WARPS": warps, "BLOCKS": 1 if double else 2}
            return _Threads("scan_backward.cu", share, lanes, channels, 32 * warps, macros, shared)
        warps //= 2
    return None


@functools.lru_cache(maxsize=256)
def _kernel(name, file, storage, split, switches, macros):
    states, share, lanes = split
    softplus, gated, ordered, marked, cross = map(int, switches)
    sizes = {"STATES": states, "SHARE": share, "LANES": lanes}
    flags = {"SOFTPLUS": softplus, "GATED": gated, "ORDERED": ordered, "MARKED": marked, "CROSS": cross}
    return Kernel(name, file, T=storage, **sizes, **flags, **dict(macros))


def _cut(length, wanted):
    """Number and length of segments, about so many."""
    count = max(1, min(wanted, _MOST_SEGMENTS, length // _SHORTEST))
    segment = -(-length // (count * _TILE)) * _TILE
    return -(-length // segment), segment


def _starts_in(starts, segments, backward):
    """The last start of a sequence in each segment, -1 for none; backward the first one, the length for none."""
    b, l = starts.shape
    count, segment = segments
    visits = numpy.where(starts, numpy.arange(l), l if backward else -1)
    visits = numpy.pad(visits, ((0, 0), (0, count * segment - l)), mode="edge").reshape(b, count, segment)
    return (visits.min(axis=2) if backward else visits.max(axis=2)).astype(numpy.int32)


def _tile(wide, threads):
    """Tokens of a tile in shared memory, as in scan.cuh."""
    return 16 if wide == numpy.float64 and threads.channels * 16 >= threads.count else 32


def power(n):
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def given(device, *arrays):
    """The arrays as kernels take them, None for one that is absent."""
    return [None if a is None else device.contiguous(a) for a in arrays]


def wide_of(x):
    return numpy.dtype(numpy.float64 if x.dtype == numpy.float64 else numpy.float32)
