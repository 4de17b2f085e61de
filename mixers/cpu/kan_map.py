"""Attention by any Kolmogorov-Arnold map on the CPU, and the simplex projection.

Blocks of queries of one head and all batch items go through the kernels of the layers, one step after the
other; nothing larger than such a block and its rows of logits exists. The backward computes a block again.
"""

import math
from types import SimpleNamespace

import numpy

from mixers.cpu import aligned, elementwise, kan_edges, kan_layer, matrix
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, select, store, store_first, sum_lanes, zeros

# logits of a block, and rows of a task of the projection
_LOGITS, _ROWS = 1 << 19, 16


def simplex_projection_forward(x, save=True):
    """The threshold from the values above it, until no more values fall below (Michelot 1986)."""
    y = aligned.empty(x.shape, x.dtype)
    if y.size:
        n = x.shape[-1]
        rows = x.size // n
        run(_project, -(-rows // _ROWS), aligned.flat(x), y.reshape(-1), rows, n, work=10 * x.size)
    return y, (y,)


def simplex_projection_backward(dout, saved):
    """On the support dx = dy minus its mean there, elsewhere 0."""
    y = saved.y
    dx = aligned.empty(y.shape, y.dtype)
    if dx.size:
        n = y.shape[-1]
        rows = y.size // n
        args = aligned.flat(y), aligned.flat(dout), dx.reshape(-1), rows, n
        run(_project_back, -(-rows // _ROWS), *args, work=4 * y.size)
    return (dx,)


@kernel
def _project(x, y, rows, n, counter):
    lowest = x.dtype.type(-math.inf)
    row = numpy.empty(-(-n // lanes(x)) * lanes(x), x.dtype)
    for task in tasks(counter):
        for start in range(task * _ROWS * n, min((task + 1) * _ROWS, rows) * n, n):
            # without the common offset no digits are lost
            highest = x[start]
            for j in range(n):
                value = x[start + j]
                if value > highest or value != value:
                    highest = value
            for j in range(0, n, lanes(x)):
                store(row, j, load_first(x, start + j, min(lanes(x), n - j)) - highest)
            for j in range(n, row.size):
                row[j] = lowest
            threshold, known = lowest, n + 1
            while True:
                total, count = zeros(x), zeros(x)
                for j in range(0, n, lanes(x)):
                    value = load(row, j)
                    above = value > threshold
                    total = total + select(above, value, 0.0)
                    count = count + select(above, 1.0, zeros(x))
                size = sum_lanes(count)
                if not 0 < size < known:
                    break
                threshold, known = (sum_lanes(total) - x.dtype.type(1)) / size, size
            if known > n:
                # a NaN is above nothing
                threshold = highest
            for j in range(0, n, lanes(x)):
                value = load(row, j) - threshold
                store_first(y, start + j, select(value < 0.0, 0.0, value), min(lanes(x), n - j))


@kernel
def _project_back(y, dy, dx, rows, n, counter):
    for task in tasks(counter):
        for start in range(task * _ROWS * n, min((task + 1) * _ROWS, rows) * n, n):
            total, count = zeros(y), zeros(y)
            for j in range(0, n, lanes(y)):
                width = min(lanes(y), n - j)
                support = load_first(y, start + j, width) > 0.0
                total = total + select(support, load_first(dy, start + j, width), 0.0)
                count = count + select(support, 1.0, zeros(y))
            mean = sum_lanes(total) / max(sum_lanes(count), y.dtype.type(1))
            for j in range(0, n, lanes(y)):
                width = min(lanes(y), n - j)
                support = load_first(y, start + j, width) > 0.0
                value = select(support, load_first(dy, start + j, width) - mean, 0.0)
                store_first(dx, start + j, value, width)


def kan_map_attention_forward(q, k, v, save=True, **arguments):
    """y = map(scale q k^T) v, block by block."""
    call = _Call(SimpleNamespace(q=q, k=k, v=v, **arguments))
    y = aligned.empty(q.shape, q.dtype)
    for head in range(call.h):
        values = call.values(head)
        for rows in call.blocks():
            steps = call.map(call.logits(head, rows), head)
            for item in range(call.b):
                y[item, rows, head] = matrix.linear(steps[-1][item], values[item])
    return y, ()


def kan_map_attention_backward(dout, saved):
    """Gradients of q by blocks; those of everything else add up over the blocks in their order."""
    call = _Call(saved)
    dq, dk, dv = (aligned.zeros(saved.q.shape, saved.q.dtype) for _ in range(3))
    for head in range(call.h):
        values, dvalues = call.values(head), [0.0] * call.b
        for rows in call.blocks():
            a = call.logits(head, rows)
            steps = call.map(a, head)
            d = aligned.empty(steps[-1].shape, a.dtype)
            for item in range(call.b):
                cotangent = aligned.contiguous(dout[item, rows, head])
                d[item] = matrix.linear(cotangent, values[item].T)
                dvalues[item] = dvalues[item] + matrix.linear_weights(steps[-1][item], cotangent)
            d = call.pull(d, steps, head)
            for item in range(call.b):
                dq[item, rows, head] = matrix.linear(d[item], call.head(saved.k, item, head)) * call.scale
                query = aligned.contiguous(saved.q[item, rows, head])
                dk[item, :, head] += matrix.linear_weights(d[item], query) * call.scale
        for item in range(call.b if call.n else 0):
            dv[item, :, head] = call.pull_values(dvalues[item], item, head)
    return dq, dk, dv, *(call.gradients[name] for name in _PARAMETERS)


_PARAMETERS = ("phi", "phi_2", "phi_3", "psi", "psi_2", "psi_3", "w")


class _Call:
    """One call: its sizes, its blocks of queries, and the steps from logits to weights and back.

    With operator "w_phi" and no projection of the output, y = z (w^T v) is cheaper than (z w^T) v; then the
    weights are z and the values w^T v.
    """

    def __init__(self, call):
        self.call = call
        self.b, self.n, self.h, d = call.q.shape
        scale = 1.0 / math.sqrt(max(d, 1)) if call.scale is None else call.scale
        self.scale = call.q.dtype.type(scale)
        self.low_rank = call.operator == "w_phi" and call.projection != "output"
        arrays = {name: getattr(call, name) for name in _PARAMETERS}
        self.gradients = {
            name: None if a is None else aligned.zeros(a.shape, a.dtype) for name, a in arrays.items()
        }

    def blocks(self):
        """Slices of queries."""
        size = max(1, _LOGITS // max(self.b * self.n, 1))
        return [slice(start, min(start + size, self.n)) for start in range(0, self.n if self.b else 0, size)]

    def head(self, x, item, head):
        return aligned.contiguous(x[item, :, head])

    def values(self, head):
        """What the weights of each item are applied to."""
        values = [self.head(self.call.v, item, head) for item in range(self.b)]
        return [matrix.linear_weights(self.call.w[head], v) for v in values] if self.low_rank else values

    def pull_values(self, d, item, head):
        """The gradient of v, and that of w, from the gradient of what :meth:`values` gave."""
        if not self.low_rank:
            return d
        values = self.head(self.call.v, item, head)
        self.gradients["w"][head] += matrix.linear(values, d.T)
        return matrix.linear(aligned.contiguous(self.call.w[head]), d)

    def logits(self, head, rows):
        """(b, rows, n)."""
        q, k = self.call.q, self.call.k
        a = aligned.empty((self.b, rows.stop - rows.start, self.n), q.dtype)
        for item in range(self.b):
            query = aligned.contiguous(q[item, rows, head]) * self.scale
            a[item] = matrix.linear(query, self.head(k, item, head).T)
        return a

    def map(self, a, head):
        """The logits and everything that becomes of them, the weights last."""
        call, steps = self.call, [a]
        if call.operator == "phi_w":
            steps.append(_linear(a, call.w[head].T))
        steps.append(self._layer("phi", steps[-1], head))
        if call.projection == "hidden":
            steps.append(simplex_projection_forward(steps[-1])[0])
        if call.operator == "w_phi" and not self.low_rank:
            steps.append(_linear(steps[-1], call.w[head].T))
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
        rows, drows = _rows(x), _rows(d)
        self.gradients["w"][head] += matrix.linear_weights(drows, rows)
        return _linear(d, self.call.w[head])

    def _functions(self, name, head):
        arrays = [getattr(self.call, name + end) for end in ("", "_2", "_3")]
        return [None if a is None else a[head] for a in arrays]

    def _layer(self, name, a, head):
        """Phi or Psi of all rows."""
        call, (first, second, third) = self.call, self._functions(name, head)
        if call.basis in ("fourier", "bspline"):
            w = first if second is None else numpy.concatenate([first, second], axis=1)
            options = {"basis": call.basis, "order": call.order, "low": call.low, "high": call.high}
            z = kan_layer.kan_contract_forward(a, w, **options)[0]
        else:
            z = kan_edges.kan_edges_forward(a, first, second, third, call.basis)[0]
        if call.base == "zero":
            return z
        base = a if call.base == "identity" else _BASES[call.base][0](a)[0]
        z += base.sum(axis=2, keepdims=True)
        return z

    def _pull_layer(self, name, a, d, head):
        call, (first, second, third) = self.call, self._functions(name, head)
        if call.basis in ("fourier", "bspline"):
            w = first if second is None else numpy.concatenate([first, second], axis=1)
            options = {"basis": call.basis, "order": call.order, "low": call.low, "high": call.high}
            saved = SimpleNamespace(x=a, w=w, first=None, second=None, width=None, **options)
            da, dw, *_ = kan_layer.kan_contract_backward(d, saved)
            gradients = [dw] if second is None else [dw[:, : first.shape[1]], dw[:, first.shape[1] :]]
        else:
            saved = SimpleNamespace(x=a, first=first, second=second, third=third, function=call.basis)
            da, *gradients = kan_edges.kan_edges_backward(d, saved)
        for end, gradient in zip(("", "_2", "_3"), gradients):
            if gradient is not None:
                self.gradients[name + end][head] += gradient
        if call.base == "zero":
            return da
        total = numpy.broadcast_to(d.sum(axis=2, keepdims=True), a.shape)
        base = total if call.base == "identity" else _BASES[call.base][1](total, SimpleNamespace(x=a))[0]
        return da + base


_BASES = {
    "silu": (elementwise.silu_forward, elementwise.silu_backward),
    "gelu": (elementwise.gelu_forward, elementwise.gelu_backward),
}


def _unproject(d, y):
    return simplex_projection_backward(d, SimpleNamespace(y=y))[0]


def _rows(a):
    return aligned.contiguous(a).reshape(-1, a.shape[-1])


def _linear(a, w):
    """Rows of a (b, rows, i) times w (i, o)."""
    return matrix.linear(_rows(a), w).reshape(*a.shape[:-1], w.shape[1])
