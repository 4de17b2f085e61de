"""State-space scans with one decay per head on the GPU: dense products of chunks, small kernels between them.

All is computed in the dtype of the sums. Arrays are cut into chunks (b, chunks, q, ...), padded with zeros. Products
with B and C serve all heads of a group at once, as columns of one matrix (n, heads p).
"""

from types import SimpleNamespace

import numpy

from mixers import single_step
from mixers.gpu.device import Kernel, c_type, device_of
from mixers.gpu.elementwise import silu_backward, silu_forward
from mixers.sequences import zeroed

# the longest chunk, which kernels count on
_LONGEST = 64


def ssd_scan_forward(
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    dt_softplus=False,
    dt_limit=None,
    h0=None,
    chunk_size=256,
    return_last_state=False,
    sequence_starts=None,
    mask=None,
    save=True,
):
    x, dt, B, C, z = (zeroed(a, mask) for a in (x, dt, B, C, z))
    tables = sequence_starts, mask
    scan = _Scan(x, dt, A, B, C, dt_bias, dt_softplus, dt_limit, chunk_size, tables)
    states = scan.device.empty(scan.states_shape, scan.wide) if save else None
    last_state = scan.device.zeros((*x.shape[:1], *x.shape[2:], B.shape[3]), scan.wide)
    if x.size:
        s = scan.outputs(h0, states, last_state if return_last_state else None)
        s = _skipped(s, D, scan.x)
        y = scan.tokens(s if z is None else s * scan.chunks(silu_forward(z.astype(scan.wide))[0]))
        y = scan.device.contiguous(y.astype(x.dtype))
    else:
        y = scan.device.zeros(x.shape, x.dtype)
        if h0 is not None:
            last_state[...] = h0
    return (zeroed(y, mask), last_state if return_last_state else None), (states,)


def ssd_scan_backward(dout, saved):
    """The formulas of the CPU backend, for all chunks at once."""
    D, h0, mask = saved.D, saved.h0, saved.mask
    x, dt, B, C, z = (zeroed(a, mask) for a in (saved.x, saved.dt, saved.B, saved.C, saved.z))
    options = saved.dt_bias, saved.dt_softplus, saved.dt_limit, saved.chunk_size
    scan = _Scan(x, dt, saved.A, B, C, *options, (saved.sequence_starts, mask))
    device, wide = scan.device, scan.wide
    if not x.size:
        return _nothing(device, dout, saved, wide)
    step, _, _, growth, fade, _ = scan.numbers
    dy = device.zeros(x.shape, wide) if dout.y is None else zeroed(dout.y, mask).astype(wide)
    dy = scan.chunks(dy)
    before = scan.by_group(saved.states)
    ds, dz = dy, None
    if z is not None:
        wide_z = z.astype(wide)
        s = _skipped(scan.outputs_from(before), D, scan.x)
        [dz] = silu_backward(device.contiguous(scan.tokens(dy * s)), SimpleNamespace(x=wide_z))
        ds = dy * scan.chunks(silu_forward(wide_z)[0])
    dh0 = None if h0 is None else device.empty(h0.shape, wide)
    # adjoints of the states behind each chunk
    grown = scan.before_starts(ds * growth[..., None])
    behind = scan.passed(scan.transposed_product(scan.C, grown), dout.last_state, None, dh0, backward=True)
    inner = device.matmul(_by_head(ds), _by_head(scan.x).swapaxes(3, 4))
    weighed, inner, crossing = scan.weighed_backward(device.contiguous(inner))
    to_behind = scan.behind_starts(scan.group_product(scan.B, behind))
    reached = scan.triangle(weighed, ds, turned=True) + fade[..., None] * to_behind
    of_group = inner.reshape(*inner.shape[:2], scan.g, -1, *inner.shape[3:]).sum(axis=3)
    faded = scan.x * (step * fade)[..., None]
    through_state = lambda a, states: device.matmul(scan.columns(a), states.swapaxes(3, 4)).swapaxes(2, 3)
    dB = scan.triangle(of_group, _by_head(scan.C), turned=True)
    dB = dB + scan.behind_starts(through_state(faded, behind))
    dC = scan.triangle(of_group, _by_head(scan.B))
    dC = dC + scan.before_starts(through_state(grown, before))
    by_input = (scan.x * reached).sum(axis=4)
    from_before = (grown * scan.before_starts(scan.group_product(scan.C, before))).sum(axis=4)
    to_after = (scan.behind_starts(faded) * to_behind).sum(axis=4)
    b, chunks, _, h, p = scan.x.shape
    through = (behind * before).reshape(b, chunks, scan.g, scan.n, h // scan.g, p).sum(axis=(3, 5))
    ddt, dA = scan.pulled_steps(by_input, from_before, to_after, through.reshape(b, chunks, h), crossing)
    dx = reached * step[..., None]
    dD = None
    if D is not None:
        dx = dx + ds * (D if D.ndim == 2 else D[:, None])
        dD = (ds * scan.x).sum(axis=(0, 1, 2, 4) if D.ndim == 1 else (0, 1, 2))
    fresh = lambda a: device.contiguous(scan.tokens(a))
    return (
        fresh(dx),
        ddt,
        dA,
        fresh(dB),
        fresh(dC),
        dD,
        dz,
        None if saved.dt_bias is None else ddt.sum(axis=(0, 1)),
        dh0,
    )


def ssd_state_update_forward(
    state,
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    dt_softplus=False,
    dt_limit=None,
    out_state=None,
    save=True,
):
    token = lambda a: a[:, None]
    options = dt_bias, dt_softplus, dt_limit, 1, (None, None)
    scan = _Scan(token(x), token(dt), A, token(B), token(C), *options)
    device = scan.device
    in_place = out_state is not None and out_state.flags.c_contiguous
    new_state = out_state if in_place else device.empty(state.shape, scan.wide)
    s = device.empty(x.shape, scan.wide)
    wide_x = device.contiguous(x.astype(scan.wide))
    if x.size:
        (h, p), (g, n) = x.shape[1:], B.shape[1:]
        kernel = Kernel("update_state", "ssd.cu", T=c_type(scan.wide))
        steps = device.contiguous(scan.numbers[0])
        inputs = device.contiguous(state), wide_x, steps, A, scan.B, scan.C
        args = (*map(device.contiguous, inputs), new_state, s, numpy.int64(s.size))
        device.launch(kernel, (-(-s.size // 4),), (128,), (*args, *map(numpy.int32, (h, p, g, n))))
    s = _skipped(s, D, wide_x)
    if z is not None:
        s = s * silu_forward(z.astype(scan.wide))[0]
    if out_state is not None and not in_place:
        out_state[...] = new_state
        new_state = out_state
    return (s.astype(x.dtype), new_state), ()


def ssd_state_update_backward(dout, saved):
    return single_step.backward(ssd_scan_backward, dout, saved)


class _Scan:
    """The arrays of a scan by chunks, the numbers of its steps, and its products."""

    def __init__(self, x, dt, A, B, C, dt_bias, softplus, limit, chunk_size, tables):
        self.device = device_of(x)
        self.wide = numpy.dtype(numpy.float64 if x.dtype == numpy.float64 else numpy.float32)
        (self.b, self.l, self.h, self.p), (self.g, self.n) = x.shape, B.shape[2:]
        wanted = min(chunk_size, _LONGEST)
        self.count = -(-self.l // wanted)
        self.states_shape = (self.b, self.count, self.h, self.n, self.p)
        self.q = wanted if self.count != 1 else self.l
        if x.size:
            wide = lambda a: self.device.contiguous(a.astype(self.wide))
            tables = (None if t is None else self.device.to_device(t.astype(numpy.uint8)) for t in tables)
            self._steps = (wide(dt), None if dt_bias is None else self.device.contiguous(dt_bias), *tables)
            self._A = self.device.contiguous(A)
            lo, hi = (0.0, 0.0) if limit is None else limit
            self._options = (
                *(numpy.int32(softplus), numpy.int32(limit is not None)),
                *(self.wide.type(lo), self.wide.type(hi)),
            )
            self.x = self.chunks(wide(x))
            # (b, chunks, g, q, n)
            self.B, self.C = (self.device.contiguous(self.chunks(wide(a)).swapaxes(2, 3)) for a in (B, C))
            self.numbers = self._measured()

    def chunks(self, a):
        """(b, l, ...) as (b, chunks, q, ...), with zeros at the end."""
        if self.count * self.q != self.l:
            padded = self.device.zeros((self.b, self.count * self.q, *a.shape[2:]), a.dtype)
            padded[:, : self.l] = a
            a = padded
        return a.reshape(self.b, self.count, self.q, *a.shape[2:])

    def tokens(self, a):
        """The opposite of chunks."""
        return a.reshape(self.b, self.count * self.q, *a.shape[3:])[:, : self.l]

    def columns(self, a):
        """(b, chunks, q, h, p) as (b, chunks, g, q, heads p)."""
        return a.reshape(*a.shape[:3], self.g, -1).swapaxes(2, 3)

    def by_group(self, states):
        """(b, chunks, h, n, p) as (b, chunks, g, n, heads p)."""
        states = states.reshape(self.b, self.count, self.g, self.h // self.g, self.n, self.p)
        return self.device.contiguous(states.swapaxes(3, 4)).reshape(self.b, self.count, self.g, self.n, -1)

    def group_product(self, coefficients, states):
        """Coefficients (q, n) times states (n, heads p), as (b, chunks, q, h, p)."""
        product = self.device.matmul(coefficients, states)
        return product.swapaxes(2, 3).reshape(*self.x.shape)

    def transposed_product(self, coefficients, a):
        """Coefficients^T (n, q) times tokens (q, heads p)."""
        return self.device.matmul(coefficients.swapaxes(3, 4), self.columns(a))

    def before_starts(self, a):
        """(b, chunks, q, h or g, ...) with zeros at tokens of sequences that began within the chunk."""
        return self._only(a, lambda part: part == 0)

    def behind_starts(self, a):
        """The same with zeros at all tokens but those of the last sequence of the chunk."""
        return self._only(a, lambda part: part == part[:, :, -1:])

    def _only(self, a, keep):
        # not by a product with zero, which what is not finite would survive
        if self._steps[2] is None:
            return a
        kept = keep(self.numbers[5][..., :: self.h // a.shape[3]])
        return numpy.where(kept[..., None], a, self.wide.type(0))

    def triangle(self, weights, right, turned=False):
        """Weights (b, chunks, heads, q, q) times tokens (b, chunks, q, heads, columns); see the kernel."""
        heads, columns = right.shape[3:]
        out = self.device.empty(right.shape, self.wide)
        args = *map(self.device.contiguous, (weights, self.numbers, right)), out, self._plane
        sizes = self.q, self.h, heads, columns, turned
        blocks = self.b * self.count * heads * -(-columns // 64)
        self._launch("triangle", blocks, 256, (*args, *map(numpy.int32, sizes)))
        return out

    def outputs(self, h0, states, last_state):
        """The outputs before D and the gate; fills states and last_state if they are wanted."""
        faded = self.behind_starts(self.x * (self.numbers[0] * self.numbers[4])[..., None])
        local = self.transposed_product(self.B, faded)
        return self.outputs_from(self.passed(local, h0, states, last_state))

    def outputs_from(self, before):
        """The outputs from the states before each chunk."""
        products = self.products()
        weighed = self.device.empty((self.b, self.count, self.h, self.q, self.q), self.wide)
        args = products, self.numbers, weighed, numpy.int64(weighed.size), self._plane
        sizes = map(numpy.int32, (self.q, self.h, self.g))
        self._launch("weigh", -(-weighed.size // 256), 256, (*args, *sizes))
        driven = self.x * self.numbers[0][..., None]
        crossing = self.before_starts(self.group_product(self.C, before))
        return self.triangle(weighed, driven) + self.numbers[3][..., None] * crossing

    def products(self):
        """C B^T of each chunk, (b, chunks, g, q, q)."""
        return self.device.matmul(self.C, self.B.swapaxes(3, 4))

    def weighed_backward(self, inner):
        weighed = self.device.empty(inner.shape, self.wide)
        crossing = self.device.empty(self.numbers.shape[1:], self.wide)
        args = self.products(), self.numbers, weighed, inner, crossing, self._plane
        sizes = map(numpy.int32, (self.q, self.h, self.g))
        self._launch("weigh_backward", self.b * self.count * self.h, 64, (*args, *sizes))
        return weighed, inner, crossing

    def passed(self, local, start, states, last, backward=False):
        """States before each chunk (adjoints behind each) from what each adds, by groups."""
        before = self.device.empty(local.shape, self.wide)
        given = None if start is None else self.device.contiguous(start.astype(self.wide))
        count = self.b * self.h * self.n * self.p
        args = self.device.contiguous(local), self.numbers, given, before, states, last
        sizes = map(numpy.int32, (self.count, self.q, self.h, self.p, self.g, self.n, backward))
        self._launch("pass_states", -(-count // 256), 256, (*args, numpy.int64(count), self._plane, *sizes))
        return before

    def pulled_steps(self, by_input, from_before, to_after, through, crossing):
        """Gradients of dt and A."""
        ddt = self.device.empty((self.b, self.l, self.h), self.wide)
        dA = self.device.empty((self.b * self.count, self.h), self.wide)
        inputs = map(self.device.contiguous, (by_input, from_before, to_after, through))
        dt, bias, _, mask = self._steps
        args = (dt, bias, mask, self._A, self.numbers, *inputs, crossing, ddt, dA)
        sizes = map(numpy.int32, (self.l, self.count, self.q, self.h))
        args = (*args, numpy.int64(dA.size), self._plane, *sizes, *self._options)
        self._launch("pull_steps", -(-dA.size // 128), 128, args)
        return ddt, dA.sum(axis=0)

    def _measured(self):
        numbers = self.device.empty((6, self.b, self.count, self.q, self.h), self.wide)
        self._plane = numpy.int64(numbers.size // 6)
        count = self.b * self.count * self.h
        sizes = map(numpy.int32, (self.l, self.count, self.q, self.h))
        args = *self._steps, self._A, numbers, numpy.int64(count), self._plane
        self._launch("measure_steps", -(-count // 128), 128, (*args, *sizes, *self._options))
        return numbers

    def _launch(self, name, blocks, threads, args):
        kernel = Kernel(name, "ssd.cu", T=c_type(self.wide))
        self.device.launch(kernel, (blocks,), (threads,), args)


def _by_head(a):
    """(b, chunks, q, h, p) to (b, chunks, h, q, p), or back."""
    return a.swapaxes(2, 3)


def _skipped(s, D, x):
    return s if D is None else s + x * (D if D.ndim == 2 else D[:, None])


def _nothing(device, dout, saved, wide):
    """Gradients where there are no tokens or no batch: zeros, and the cotangent of the state passes."""
    dh0 = None
    if saved.h0 is not None:
        dh0 = device.zeros(saved.h0.shape, wide)
        if dout.last_state is not None:
            dh0[...] = dout.last_state
    names = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias")
    arrays = (getattr(saved, name) for name in names)
    return (*(None if a is None else device.zeros(a.shape, wide) for a in arrays), dh0)
