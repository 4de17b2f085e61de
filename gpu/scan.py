"""Diagonal linear recurrences on the GPU.

The selective scan keeps the states in registers, some per thread; with few channels its tokens are cut into
segments, whose ends are found first. Its saved states are those of the other backends.
"""

import functools
from types import SimpleNamespace
from typing import NamedTuple

import numpy

from mixers.gpu.device import Kernel, c_type, device_of
from mixers.sequences import zeroed

# tokens between two saved states, and the multiple that segments have
CHUNK, _TILE = 16, 32

# more segments are not worth their ends; nor are shorter ones
_MOST_SEGMENTS, _SHORTEST = 16, 64

_MOST_STATES = 128

# the bits of a token's mark, as in scan.cuh
_FROZEN, _RESET = 1, 2

# scan_t of scan.cuh
_SIZES = "length channels groups parts segments segment first step delta_row b_row c_row add".split()
_SCAN = numpy.dtype([(name, "i4") for name in _SIZES])


def linear_scan_forward(
    a, b, h0=None, reverse=False, return_last_state=False, sequence_starts=None, mask=None, save=True
):
    a, b = _linear_inputs(a, b, sequence_starts, mask)
    device, wide = device_of(a), wide_of(a)
    h = device.empty(a.shape, a.dtype)
    last = device.zeros(a.shape[::2], wide)
    if h.size:
        _linear(device, 0, (a, b, h0), {"out": h, "last": last}, reverse)
    elif h0 is not None:
        last[...] = h0
    return (h, last if return_last_state else None), ()


def linear_scan_backward(dout, saved):
    """The states before each token, then the scan of the adjoints in the other direction."""
    starts, mask, h0 = saved.sequence_starts, saved.mask, saved.h0
    a, b = _linear_inputs(saved.a, saved.b, starts, mask)
    device, wide = device_of(a), wide_of(a)
    da, db = (device.empty(a.shape, a.dtype) for _ in range(2))
    adjoint = device.zeros(a.shape[::2], wide)
    if a.size:
        dh = device.zeros(a.shape, a.dtype) if dout.h is None else dout.h
        states = device.empty(a.shape, wide)
        _linear(device, 1, (a, b, h0), {"before": states}, saved.reverse)
        results = {"states": states, "out": db, "da": da, "last": adjoint}
        _linear(device, 2, (a, dh, dout.last_state), results, not saved.reverse)
    elif dout.last_state is not None:
        adjoint[...] = dout.last_state
    if starts is not None:
        da = zeroed(da, ~starts)
    return zeroed(da, mask), zeroed(db, mask), None if h0 is None else adjoint


def _linear_inputs(a, b, starts, mask):
    """Decays of 0 at a start and of 1 at padding."""
    a = zeroed(a, mask, 1.0)
    return (a if starts is None else zeroed(a, ~starts)), zeroed(b, mask)


def _linear(device, kind, inputs, results, reverse):
    a = inputs[0]
    (b, l, c), warps = a.shape, 16
    kernel = Kernel("linear_scan", "scan_linear.cu", T=c_type(a.dtype), KIND=kind, WARPS=warps, STEPS=8)
    arrays = [*given(device, *inputs), *(results.get(n) for n in ("states", "out", "before", "da", "last"))]
    sizes = numpy.int32(l), numpy.int32(c), numpy.bool_(reverse)
    device.launch(kernel, (b * -(-c // 32),), (32, warps), (*arrays, *sizes))


def selective_scan_forward(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    h0=None,
    return_last_state=False,
    reverse=False,
    order=None,
    sequence_starts=None,
    mask=None,
    save=True,
):
    scan = Scan(u, *B.shape[2:], delta_softplus, reverse, order, sequence_starts, mask)
    device, n = scan.device, scan.states
    b, l, c = u.shape
    y = device.empty(u.shape, u.dtype)
    states = device.empty((b, -(-l // CHUNK), n, c), scan.wide) if save else None
    last_state = device.zeros((b, c, n), scan.wide) if return_last_state else None
    if y.size:
        arrays = given(device, u, delta, A, B, C, D, z, delta_bias, h0)
        scan.forward(*arrays, y, states, last_state)
    elif last_state is not None and h0 is not None:
        last_state[...] = h0
    return (y, last_state), (states,)


def selective_scan_backward(dout, saved):
    u, B, z, h0 = saved.u, saved.B, saved.z, saved.h0
    options = saved.delta_softplus, saved.reverse, saved.order, saved.sequence_starts, saved.mask
    scan = Scan(u, *B.shape[2:], *options)
    device, n, wide = scan.device, scan.states, scan.wide
    b, _, c = u.shape
    plan = scan.backward_plan(gated=z is not None)
    du, ddelta = (device.empty(u.shape, u.dtype) for _ in range(2))
    dz = None if z is None else device.empty(u.shape, u.dtype)
    dh0 = None if h0 is None else device.zeros(h0.shape, wide)
    dB, dC = (device.empty(B.shape, B.dtype) for _ in range(2))
    dA = device.zeros((b * plan.segments[0], c, n), wide)
    dD, dbias = (device.zeros((b * plan.segments[0], c), wide) for _ in range(2))
    if u.size:
        dy = device.zeros(u.shape, u.dtype) if dout.y is None else dout.y
        arrays = u, saved.delta, saved.A, B, saved.C, saved.D, z, saved.delta_bias, dy, dout.last_state
        results = du, ddelta, None, dz, dh0, dA, dD, dbias
        scan.backward(plan, (*given(device, *arrays), saved.states), results, dB, dC)
    elif dh0 is not None and dout.last_state is not None:
        dh0[...] = dout.last_state
    return (
        du,
        ddelta,
        dA.sum(axis=0),
        dB,
        dC,
        None if saved.D is None else dD.sum(axis=0),
        dz,
        None if saved.delta_bias is None else dbias.sum(axis=0),
        dh0,
    )


def selective_state_update_forward(
    state,
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    out_state=None,
    save=True,
):
    device, n = device_of(u), A.shape[1]
    y = device.empty(u.shape, u.dtype)
    in_place = out_state is not None and out_state.flags.c_contiguous
    new_state = out_state if in_place else device.empty(state.shape, wide_of(u))
    if y.size:
        lanes = min(32, _power(n))
        kernel = Kernel(
            "selective_state_update",
            "scan_update.cu",
            T=c_type(u.dtype),
            LANES=lanes,
            SOFTPLUS=int(delta_softplus),
        )
        arrays = given(device, state, u, delta, A, B, C, D, z, delta_bias)
        sizes = numpy.int64(u.size), *map(numpy.int32, (u.shape[1], B.shape[1], n))
        grid = (-(-u.size * lanes // 256),)
        device.launch(kernel, grid, (256,), (*arrays, y, new_state, *sizes))
    if out_state is not None and not in_place:
        out_state[...] = new_state
        new_state = out_state
    return (y, new_state), ()


def selective_state_update_backward(dout, saved):
    """The scan over a sequence of one token, whose saved states are the one before it."""
    device = device_of(saved.u)
    token = lambda x: None if x is None else x[:, None]
    sequence = {name: token(getattr(saved, name)) for name in ("u", "delta", "B", "C", "z")}
    constant = {name: getattr(saved, name) for name in ("A", "D", "delta_bias", "delta_softplus")}
    before = device.contiguous(saved.state.swapaxes(1, 2))[:, None]
    options = {"reverse": False, "order": None, "sequence_starts": None, "mask": None}
    scan = SimpleNamespace(**sequence, **constant, **options, h0=saved.state, states=before)
    gradients = selective_scan_backward(SimpleNamespace(y=token(dout.y), last_state=dout.state), scan)
    du, ddelta, dA, dB, dC, dD, dz, ddelta_bias, dstate = gradients
    first = lambda x: None if x is None else x[:, 0]
    return dstate, first(du), first(ddelta), dA, first(dB), first(dC), dD, first(dz), ddelta_bias


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
    lanes = _power(-(-n // 8))
    count = 64 if lanes == 1 else 128
    return _Threads("scan_forward.cu", -(-n // lanes), lanes, count // lanes, count, {}, 0)


def _segment_threads(n, backward):
    share = min(n, 4)
    lanes = _power(-(-n // share))
    channels = 64 if lanes == 1 else 128 // lanes
    return _Threads("scan_segments.cu", share, lanes, channels, 64, {"REVERSED": int(backward)}, 0)


def _backward_threads(n, wide, gated, itemsize, max_shared):
    double = wide == numpy.float64
    share = min(_power(n), 4)
    lanes = _power(-(-n // share))
    pair = 1 if double or lanes == 1 else 2
    width, columns = share * lanes, 32 // lanes
    warps = min(4, max(2, lanes))
    while True:
        channels = columns * pair * warps
        raw = 2 * ((4 if gated else 3) * channels + 2 * width)
        cells = 5 * channels + 2 * min(share, columns) * width + 2 * warps * width
        starts = 2 * channels * width
        shared = CHUNK * raw * itemsize + (CHUNK * cells + starts) * (8 if double else 4)
        if shared <= max_shared:
            break
        if warps == 1:
            raise _too_many(n)
        warps //= 2
    macros = {"PAIR": pair, "WARPS": warps, "BLOCKS": 1 if double else 2}
    return _Threads("scan_backward.cu", share, lanes, channels, 32 * warps, macros, shared)


class _Plan(NamedTuple):
    """How a backward is cut: its threads, the number and length of segments, and blocks of a group."""

    threads: _Threads
    segments: tuple
    parts: int


class Scan:
    """What the launches of one scan have in common."""

    # of one of several directions, see CROSS and scan_t in scan.cuh
    cross, rows, add = 0, (0, 0, 0), False

    def __init__(
        self, u, groups, states, softplus, reverse=False, order=None, sequence_starts=None, mask=None
    ):
        if states > _MOST_STATES:
            raise _too_many(states)
        self.device, self.dtype, self.wide = device_of(u), u.dtype, wide_of(u)
        self.shape, self.groups, self.states, self.softplus = u.shape, groups, states, softplus
        l = u.shape[1]
        self.first, self.step, self.order = 0, 1, None
        visits = numpy.arange(l) if order is None else order
        visits = visits[::-1] if reverse else visits
        if order is not None:
            self.order = self.device.to_device(numpy.ascontiguousarray(visits, numpy.int32))
        elif reverse:
            self.first, self.step = l - 1, -1
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

    def forward(self, u, delta, A, B, C, D, z, delta_bias, h0, y, states, last_state):
        """One launch, after that for the segments."""
        threads = _forward_threads(self.states)
        segments = self.segments(threads.channels)
        ends = self.ends(segments, u, delta, A, B, None, delta_bias, backward=False)
        tables = self.order, self.marks, *ends
        arrays = u, delta, A, B, C, D, z, delta_bias, h0, *tables, y, states, last_state
        tile = _tile(self.wide, threads)
        cells = 2 * threads.channels * (2 * tile + 4 + tile + 1) + 4 * tile * threads.width
        self.launch("selective_scan_forward", threads, segments, arrays, cells, z)

    def backward_plan(self, gated):
        max_shared = self.device.max_shared
        threads = _backward_threads(self.states, self.wide, gated, self.dtype.itemsize, max_shared)
        segments = self.segments(threads.channels) if 0 not in self.shape else (1, 0)
        return _Plan(threads, segments, self.parts(threads.channels))

    def backward(self, plan, inputs, results, dB, dC, add_b=False, add_c=False):
        """The adjoint scan, then the sums of dB and dC: arrays, or views of one direction, (b, l, groups, states)."""
        _, delta, A, _, C, _, z, delta_bias, dy = inputs[:9]
        ends = self.ends(plan.segments, dy, delta, A, C, z, delta_bias, backward=True)
        tables = self.order, self.marks, *ends
        rows = self.shape[0] * self.shape[1] * self.groups
        partial = self.device.empty((plan.parts, rows, 2, self.states), self.wide)
        arrays = *inputs, *tables, *results, partial
        self.launch("selective_scan_backward", plan.threads, plan.segments, arrays, None, z)
        kernel = self.kernel("sum_coefficients", plan.threads, z)
        _, b_row, c_row = self.rows if self.cross else (0, self.states, self.states)
        sizes = numpy.int64(rows), *map(numpy.int32, (plan.parts, b_row, c_row))
        arguments = partial, dB, dC, *sizes, numpy.bool_(add_b), numpy.bool_(add_c)
        self.device.launch(kernel, (-(-rows * 2 * self.states // 256),), (256,), arguments)

    def parts(self, channels):
        """Blocks of a group."""
        return -(-(self.shape[2] // self.groups) // channels)

    def segments(self, channels):
        """Their number and length: two blocks for every multiprocessor."""
        b, l, _ = self.shape
        return _cut(l, 2 * self.device.sm_count // (b * self.groups * self.parts(channels)))

    def ends(self, segments, source, delta, A, V, z, bias, backward):
        """Where sequences start in each segment, what it adds to the state behind it (or the adjoint before it), and
        its sum of steps.
        """
        if segments[0] == 1:
            return None, None, None
        b, _, c = self.shape
        sums = self.device.empty((b, segments[0], c, self.states), self.wide)
        totals = self.device.empty((b, segments[0], c), self.wide)
        threads = _segment_threads(self.states, backward)
        tile = _tile(self.wide, threads)
        cells = 2 * threads.channels * (2 * tile + 4) + 2 * tile * threads.width
        starts = None if self.starts is None else _starts_in(self.starts, segments, backward)
        starts = None if starts is None else self.device.to_device(starts)
        arrays = source, delta, A, V, z, bias, self.order, self.marks, starts, sums, totals
        self.launch("segment_sums", threads, segments, arrays, cells, z, rows=segments[0] - 1)
        return starts, sums, totals

    def kernel(self, name, threads, z):
        return _kernel(
            name,
            threads.file,
            c_type(self.dtype),
            (self.states, threads.share, threads.lanes),
            (self.softplus, z is not None, self.order is not None, self.marks is not None, self.cross),
            tuple(threads.macros.items()),
        )

    def launch(self, name, threads, segments, arrays, cells, z, rows=None):
        b, l, c = self.shape
        parts = self.parts(threads.channels)
        sizes = (l, c, self.groups, parts, *segments, self.first, self.step, *self.rows, self.add)
        struct = numpy.array(sizes, _SCAN)[()]
        shared = threads.shared if cells is None else cells * self.wide.itemsize
        grid = b * self.groups * parts, segments[0] if rows is None else rows
        self.device.launch(self.kernel(name, threads, z), grid, (threads.count,), (*arrays, struct), shared)


def _too_many(n):
    return NotImplementedError(
        f"selective_scan: the gpu backend takes at most {_MOST_STATES} states, in float64 about half as many "
        f"where blocks have less than 132 KiB of shared memory, got {n}; available in: reference, cpu"
    )


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


def _power(n):
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def given(device, *arrays):
    """The arrays as kernels take them, None for one that is absent."""
    return [None if a is None else device.contiguous(a) for a in arrays]


def wide_of(x):
    return numpy.dtype(numpy.float64 if x.dtype == numpy.float64 else numpy.float32)
