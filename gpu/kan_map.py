"""Attention by any Kolmogorov-Arnold map on the GPU, and the simplex projection.

Blocks of queries of one head and all batch items go through the kernels of the layers and through cuBLAS, in
float32 for half types; nothing larger than such a block and its rows of logits exists. The backward computes a
block again.
"""

from types import SimpleNamespace

import numpy

from mixers.gpu import elementwise, kan_edges, kan_layer
from mixers.gpu.device import Kernel, c_type, device_of

# logits of a block, threads of the projection
_LOGITS, _LANES, _STRIPES = 1 << 22, 32, 8
_PARAMETERS = ("phi", "phi_2", "phi_3", "psi", "psi_2", "psi_3", "w")


def simplex_projection_forward(x, save=True):
    y = device_of(x).empty(x.shape, x.dtype)
    _rows_kernel("project", x, y)
    return y, (y,)


def simplex_projection_backward(dout, saved):
    dx = device_of(dout).empty(dout.shape, dout.dtype)
    _rows_kernel("project_back", saved.y, dout, dx)
    return (dx,)


def _rows_kernel(name, *arrays):
    out = arrays[-1]
    if out.size:
        device, n = device_of(out), out.shape[-1]
        rows = out.size // n
        kernel = Kernel(name, "kan_map.cu", T=c_type(out.dtype))
        args = (*map(device.contiguous, arrays), numpy.int64(rows), numpy.int32(n))
        device.launch(kernel, (-(-rows // _STRIPES),), (_LANES, _STRIPES), args)


def kan_map_attention_forward(q, k, v, save=True, **arguments):
    call = _Call(SimpleNamespace(q=q, k=k, v=v, **arguments))
    y = call.device.zeros(q.shape, call.wide)
    for head in range(call.h):
        values = call.values(head)
        for rows in call.blocks():
            y[:, rows, head] = call.device.matmul(call.map(call.logits(head, rows), head)[-1], values)
    return y.astype(q.dtype, copy=False), ()


def kan_map_attention_backward(dout, saved):
    call = _Call(saved)
    product = call.device.matmul
    dq, dk, dv = (call.device.zeros(saved.q.shape, call.wide) for _ in range(3))
    for head in range(call.h):
        values, keys = call.values(head), call.head(saved.k, head)
        dvalues = call.device.zeros(values.shape, call.wide)
        for rows in call.blocks():
            cotangent = call.head(dout, head, rows)
            steps = call.map(call.logits(head, rows), head)
            dvalues += product(steps[-1].swapaxes(1, 2), cotangent)
            d = call.pull(product(cotangent, values.swapaxes(1, 2)), steps, head) * call.scale
            dq[:, rows, head] = product(d, keys)
            dk[:, :, head] += product(d.swapaxes(1, 2), call.head(saved.q, head, rows))
        if call.b and call.n:
            dv[:, :, head] = call.pull_values(dvalues, head)
    heads = (a.astype(saved.q.dtype, copy=False) for a in (dq, dk, dv))
    return *heads, *(call.gradients[name] for name in _PARAMETERS)


class _Call:
    """One call: its sizes, its blocks of queries, and the steps from logits to weights and back.

    With operator "w_phi" and no projection of the output, y = z (w^T v) is cheaper than (z w^T) v; then the
    weights are z and the values w^T v.
    """

    def __init__(self, call):
        self.call, self.device = call, device_of(call.q)
        self.b, self.n, self.h, d = call.q.shape
        self.wide = call.phi.dtype
        self.scale = self.wide.type(max(d, 1) ** -0.5 if call.scale is None else call.scale)
        self.low_rank = call.operator == "w_phi" and call.projection != "output"
        arrays = {name: getattr(call, name) for name in _PARAMETERS}
        self.gradients = {
            name: None if a is None else self.device.zeros(a.shape, a.dtype) for name, a in arrays.items()
        }

    def blocks(self):
        """Slices of queries."""
        size = max(1, _LOGITS // max(self.b * self.n, 1))
        return [slice(start, min(start + size, self.n)) for start in range(0, self.n if self.b else 0, size)]

    def head(self, x, head, rows=slice(None)):
        """(b, rows, d) of one head, in the dtype of the sums."""
        return self.device.contiguous(x[:, rows, head]).astype(self.wide, copy=False)

    def values(self, head):
        """What the weights are applied to."""
        values = self.head(self.call.v, head)
        return self.device.matmul(self.call.w[head].swapaxes(0, 1), values) if self.low_rank else values

    def pull_values(self, d, head):
        """The gradient of v, and that of w, from the gradient of what :meth:`values` gave."""
        if not self.low_rank:
            return d
        values = self.head(self.call.v, head)
        self.gradients["w"][head] += self.device.matmul(values, d.swapaxes(1, 2)).sum(axis=0)
        return self.device.matmul(self.call.w[head], d)

    def logits(self, head, rows):
        """(b, rows, n)."""
        keys = self.head(self.call.k, head).swapaxes(1, 2)
        return self.device.matmul(self.head(self.call.q, head, rows) * self.scale, keys)

    def map(self, a, head):
        """The logits and everything that becomes of them, the weights last."""
        call, product, steps = self.call, self.device.matmul, [a]
        if call.operator == "phi_w":
            steps.append(product(a, call.w[head].swapaxes(0, 1)))
        steps.append(self._layer("phi", steps[-1], head))
        if call.projection == "hidden":
            steps.append(simplex_projection_forward(steps[-1])[0])
        if call.operator == "w_phi" and not self.low_rank:
            steps.append(product(steps[-1], call.w[head].swapaxes(0, 1)))
        if call.operator == "phi_phi":
            steps.append(self._layer("psi", steps[-1], head))
        if call.projection == "output":
            steps.append(simplex_projection_forward(steps[-1])[0])
        return steps

    def pull(self, d, steps, head):
        """The gradient of the logits; those of the map's parameters are added to `gradients`."""
        call, steps = self.call, list(steps)
        if call.projection == "output":
            d = _unproject(d, steps.pop())
        if call.operator == "phi_phi":
            steps.pop()
            d = self._pull_layer("psi", steps[-1], d, head)
        if call.operator == "w_phi" and not self.low_rank:
            steps.pop()
            d = self._pull_linear(steps[-1], d, head)
        if call.projection == "hidden":
            d = _unproject(d, steps.pop())
        steps.pop()
        d = self._pull_layer("phi", steps[-1], d, head)
        if call.operator == "phi_w":
            steps.pop()
            d = self._pull_linear(steps[-1], d, head)
        return d

    def _pull_linear(self, x, d, head):
        self.gradients["w"][head] += self.device.matmul(d.swapaxes(1, 2), x).sum(axis=0)
        return self.device.matmul(d, self.call.w[head])

    def _contraction(self, name, head):
        """Coefficients and options of a layer with a basis, None for one without."""
        call, (first, second, _) = self.call, self._functions(name, head)
        if call.basis not in ("fourier", "bspline"):
            return None
        w = first
        if second is not None:
            g = first.shape[1]
            w = self.device.empty((first.shape[0], 2 * g, first.shape[2]), first.dtype)
            w[:, :g], w[:, g:] = first, second
        return w, {"basis": call.basis, "order": call.order, "low": call.low, "high": call.high}

    def _functions(self, name, head):
        arrays = [getattr(self.call, name + end) for end in ("", "_2", "_3")]
        return [None if a is None else a[head] for a in arrays]

    def _layer(self, name, a, head):
        """Phi or Psi of all rows."""
        call, contraction = self.call, self._contraction(name, head)
        if contraction is None:
            z = kan_edges.kan_edges_forward(a, *self._functions(name, head), call.basis)[0]
        else:
            z = kan_layer.kan_contract_forward(a, contraction[0], **contraction[1])[0]
        if call.base == "zero":
            return z
        base = a if call.base == "identity" else _BASES[call.base][0](a)[0]
        return z + base.sum(axis=2, keepdims=True)

    def _pull_layer(self, name, a, d, head):
        call, contraction = self.call, self._contraction(name, head)
        first, second, third = self._functions(name, head)
        if contraction is None:
            saved = SimpleNamespace(x=a, first=first, second=second, third=third, function=call.basis)
            da, *gradients = kan_edges.kan_edges_backward(d, saved)
        else:
            w, options = contraction
            saved = SimpleNamespace(x=a, w=w, first=None, second=None, width=None, **options)
            da, dw, *_ = kan_layer.kan_contract_backward(d, saved)
            g = first.shape[1]
            gradients = [dw] if second is None else [dw[:, :g], dw[:, g:]]
        for end, gradient in zip(("", "_2", "_3"), gradients):
            if gradient is not None:
                self.gradients[name + end][head] += gradient
        if call.base == "zero":
            return da
        total = d.sum(axis=2, keepdims=True)
        if call.base == "identity":
            return da + total
        spread = self.device.zeros(a.shape, a.dtype) + total
        return da + _BASES[call.base][1](spread, SimpleNamespace(x=a))[0]


_BASES = {
    "silu": (elementwise.silu_forward, elementwise.silu_backward),
    "gelu": (elementwise.gelu_forward, elementwise.gelu_backward),
}


def _unproject(d, y):
    return simplex_projection_backward(d, SimpleNamespace(y=y))[0]
