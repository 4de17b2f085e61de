"""Kolmogorov-Arnold attention on the GPU.

The sums z and the gradients of the logits come from kernels that stream over tiles of keys or queries; what is
of low rank around them (u = w_up^T v, y = z u and their gradients) from small ones. Coefficients are first
copied to the layouts that the streaming kernels read.
"""

from types import SimpleNamespace

import numpy

from mixers.gpu.device import Kernel, c_type, device_of

# rows of a block, rows of a tile, threads of an elementwise kernel, rows of blocks of the low-rank kernels
_OWN, _TILE, _THREADS, _STRIPES = 64, 32, 256, 8
_BASES = {"zero": 0, "silu": 1, "identity": 2, "gelu": 3}


def kan_attention_forward(q, k, v, phi_cos, phi_sin, w_up, base="zero", scale=None, save=True):
    call = _Call(q, phi_cos, base, scale)
    y, z = call.empty_heads(), call.empty((*call.pairs, call.n, call.r))
    if y.size:
        u = call.project(w_up, v, shared=True)
        call.sums(q, k, phi_cos, phi_sin, z)
        call.expand(z, u, y, shared=False)
    return y, (z,)


def kan_attention_backward(dout, saved):
    call = _Call(saved.q, saved.phi_cos, saved.base, saved.scale)
    dq, dk, dv = (call.empty_heads() for _ in range(3))
    dphi = tuple(call.device.zeros(saved.phi_cos.shape, call.wide) for _ in range(2))
    if not dq.size:
        return dq, dk, dv, *dphi, call.device.zeros(saved.w_up.shape, call.wide)
    # y = z u
    dz = call.contract(dout, call.project(saved.w_up, saved.v, shared=True))
    du = call.project(saved.z, dout, shared=False)
    # u = w_up^T v
    call.expand(saved.w_up, du, dv, shared=True)
    dw_up = call.contract(saved.v, du).sum(axis=0)
    call.pull(saved, dz, dq, dk, *dphi)
    return dq, dk, dv, *dphi, dw_up


def kan_sums_forward(qk, phi_cos, phi_sin, base="zero", scale=None, save=True):
    q, k = qk[:, :, 0], qk[:, :, 1]
    call = _Call(q, phi_cos, base, scale)
    z = call.empty((*call.pairs, call.n, call.r))
    if z.size:
        call.sums(q, k, phi_cos, phi_sin, z)
    return call.device.contiguous(z.swapaxes(1, 2)), ()


def kan_sums_backward(dout, saved):
    q, k = saved.qk[:, :, 0], saved.qk[:, :, 1]
    call = _Call(q, saved.phi_cos, saved.base, saved.scale)
    dqk = call.device.empty(saved.qk.shape, saved.qk.dtype)
    dphi = tuple(call.device.zeros(saved.phi_cos.shape, call.wide) for _ in range(2))
    if dqk.size:
        dq, dk = call.empty_heads(), call.empty_heads()
        dz = call.device.contiguous(dout.swapaxes(1, 2)).astype(call.wide, copy=False)
        given = SimpleNamespace(q=q, k=k, phi_cos=saved.phi_cos, phi_sin=saved.phi_sin)
        call.pull(given, dz, dq, dk, *dphi)
        dqk[:, :, 0], dqk[:, :, 1] = dq, dk
    return dqk, *dphi


class _Call:
    """Sizes and launches of one forward or backward."""

    def __init__(self, q, phi_cos, base, scale):
        self.device, self.dtype = device_of(q), q.dtype
        self.wide = numpy.dtype(numpy.float64 if q.dtype == numpy.float64 else numpy.float32)
        self.b, self.n, self.h, self.d = q.shape
        self.g, self.r = phi_cos.shape[2:]
        self.pairs = (self.b, self.h)
        self.base, self.scale = _BASES[base], q.shape[3] ** -0.5 if scale is None else scale
        # what is in registers at once: doubles take twice the room
        narrow = self.wide == numpy.float32
        self.ranks = min(12, 4 * _blocks(self.r, 4)) if narrow and self.r else 4
        self.frequencies = max(1, min(3, self.g)) if narrow else 1

    def empty(self, shape):
        return self.device.empty(shape, self.wide)

    def empty_heads(self):
        return self.device.empty((self.b, self.n, self.h, self.d), self.dtype)

    def launch(self, name, grid, block, *args):
        kernel = Kernel(
            name,
            "kan.cu",
            T=c_type(self.dtype),
            RANKS=self.ranks,
            FREQUENCIES=self.frequencies,
            BASE=self.base,
        )
        # numbers of these kernels are int; those that are not come as NumPy scalars
        args = [numpy.int32(a) if isinstance(a, int) else a for a in args]
        self.device.launch(kernel, grid, block, args)

    def project(self, left, x, shared):
        """out[p] = sum_i left[i, p] x[i], (b, h, r, d); `left` is (b, h, n, r), or (h, n, r) if shared."""
        out = self.empty((*self.pairs, self.r, self.d))
        if out.size:
            (x,), steps = self.heads(x)
            grid = (self.b * self.h, _blocks(self.d, 32), _blocks(self.r, self.ranks))
            args = (self.device.contiguous(left), x, out, int(shared), self.n, self.h, self.d, self.r, *steps)
            self.launch("kan_project", grid, (32, _STRIPES), *args)
        return out

    def contract(self, x, u):
        """out[i, p] = x[i] . u[p], (b, h, n, r)."""
        out = self.empty((*self.pairs, self.n, self.r))
        if out.size:
            (x,), steps = self.heads(x)
            rows = self.b * self.h * self.n
            args = (x, u, out, self.n, self.h, self.d, self.r, numpy.int64(rows), *steps)
            self.launch("kan_contract", (_blocks(rows, _STRIPES),), (32, _STRIPES), *args)
        return out

    def expand(self, left, u, out, shared):
        """out[i] = sum_p left[i, p] u[p], (b, n, h, d)."""
        grid = (self.b * self.h, _blocks(self.n, 4 * _STRIPES), _blocks(self.d, 32))
        args = (self.device.contiguous(left), u, out, int(shared), self.n, self.h, self.d, self.r)
        self.launch("kan_expand", grid, (32, _STRIPES), *args)

    def sums(self, q, k, phi_cos, phi_sin, z):
        """z from the logits and the coefficients."""
        keys, chunks = _TILE * _blocks(self.n, _TILE), _blocks(self.r, self.ranks)
        phi = self.empty((self.h, chunks, keys, self.g, 2, self.ranks))
        self.elementwise("kan_pack_rows", phi.size, phi_cos, phi_sin, phi, self.n, keys, self.g, self.r)
        if z.size:
            (q, k), steps = self.heads(q, k)
            grid = (self.b * self.h * _blocks(self.n, _OWN), chunks)
            self.launch("kan_sums", grid, (_OWN,), q, k, phi, z, *self.sizes(), *steps)

    def pull(self, saved, dz, dq, dk, dphi_cos, dphi_sin):
        """Gradients of q, k and the coefficients from that of z."""
        (q, k), steps = self.heads(saved.q, saved.k)
        chunks = max(1, _blocks(self.g, self.frequencies)) * _blocks(self.r, self.ranks)
        tiles = _blocks(self.n, _TILE)
        shape = (self.h, tiles, chunks, self.frequencies, 2, self.ranks, _TILE)
        phi, parts = self.empty(shape), self.empty((self.b, *shape))
        sizes = (self.n, self.g, self.r)
        self.elementwise("kan_pack_lanes", phi.size, saved.phi_cos, saved.phi_sin, phi, *sizes)
        grid = (self.b * self.h * _blocks(self.n, _OWN), _blocks(self.d, 256 // self.wide.itemsize))
        self.launch("kan_pull_keys", grid, (_OWN,), q, k, phi, dz, dk, parts, *self.sizes(), *steps)
        self.launch("kan_pull_queries", grid, (_OWN,), q, k, phi, dz, dq, *self.sizes(), *steps)
        self.elementwise("kan_sum_lanes", phi.size, parts, dphi_cos, dphi_sin, self.b, *sizes)

    def elementwise(self, name, size, *args):
        """A kernel with one thread per value of a layout of `size` values."""
        args = [a if isinstance(a, int) else self.device.contiguous(a) for a in args]
        if size:
            self.launch(name, (_blocks(size, _THREADS),), (_THREADS,), *args, numpy.int64(size))

    def sizes(self):
        return self.wide.type(self.scale), self.n, self.h, self.d, self.g, self.r

    def heads(self, *arrays):
        """Arrays (b, n, h, d) as kernels take them, and their common steps; copied only if these differ."""
        strides = arrays[0].strides
        alike = all(a.strides == strides for a in arrays)
        if not alike or strides[3] != self.dtype.itemsize or any(s % self.dtype.itemsize for s in strides):
            arrays = [self.device.contiguous(a) for a in arrays]
            strides = arrays[0].strides
        return arrays, [numpy.int64(s // self.dtype.itemsize) for s in strides[:3]]


def _blocks(size, per_block):
    return -(-size // per_block)
