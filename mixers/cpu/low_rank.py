"""Attention whose matrix of weights is of low rank, on the CPU: small products in the cheap order.

With t = w_up^T x, u = t w_v, m = u w_out and y = z m per item and head, nothing as large as the values is formed.
t, u and their gradients are kept by heads first, (h, b, r, ...), so that the rows of all items are one factor;
m and the gradient of t are kept by items first, (b, h, r, ...), so that those of all heads are.
"""

import numpy

from mixers.cpu import aligned, matrix
from mixers.cpu.aligned import scratch
from mixers.cpu.matrix import fill_panel, fill_panel_transposed, multiply_panel, panel_width
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, run, tasks

# steps of a long sum at a time
_DEPTH = 512


def low_rank_values_forward(z, x, w_up, w_v, w_out, b_v=None, b_out=None, save=True):
    """t, u, m, y."""
    call = _Call(z, x, w_up, w_v, w_out, b_v)
    t = call.t()
    u = call.u(t)
    m = call.m(u)
    return call.over_tokens(call.z, call.n, m, call.o, b_out), (t, u, m) if save else ()


def low_rank_values_backward(dout, saved):
    """dm = z^T dy, du = dm w_out^T, dt = du w_v^T, dx = w_up dt, and what each product gives its other factor."""
    call = _Call(saved.z, saved.x, saved.w_up, saved.w_v, saved.w_out, saved.b_v)
    b, n, h, r, c, d, o = call.sizes
    dout = aligned.contiguous(dout)
    t = call.t() if saved.t is None else saved.t
    u = call.u(t) if saved.u is None else saved.u
    dz = call.over_ranks(dout, call.m(u) if saved.m is None else saved.m, o)
    dm = call.over_items(call.z, n, dout, o)
    du, dw_out = call.empty(h, b, r, d), call.empty(h * d, o)
    sizes = b * r, o, d
    call.product((dm, 0, b * r * o, o, 1), (call.w_out, d * o, 0, o, True), (du, 0, b * r * d, d), sizes)
    sizes = d, b * r, o
    call.product((u, 0, b * r * d, 1, d), (dm, b * r * o, 0, o, False), (dw_out, 0, d * o, o), sizes)
    dt, dw_v = call.empty(b, h, r, c), call.empty(c, h * d)
    left, right = (du, r * d, b * r * d, d, 1), (call.w_v, d, 0, h * d, True)
    call.product(left, right, (dt, h * r * c, r * c, c), (r, d, c), items=b)
    sizes = c, b * r, d
    call.product((t, 0, b * r * c, 1, c), (du, b * r * d, 0, d, False), (dw_v, 0, d, h * d), sizes)
    dx = call.over_tokens(call.w_up, 0, dt, c, None)
    dw_up = call.over_ranks(call.x, dt, c)
    dw_up = sum_rows(dw_up.reshape(b, n * h * r)).reshape(n, h, r).swapaxes(0, 1)
    db_v = None
    if saved.b_v is not None:
        # u has the sums of w_up times b_v in it
        terms = du.sum(axis=1)
        dw_up = dw_up + numpy.einsum("hpd,hd->hp", terms, call.b_v)[:, None]
        db_v = numpy.einsum("hp,hpd->hd", call.sum_of_w_up, terms).reshape(-1)
    db_out = None if saved.b_out is None else sum_rows(dout.reshape(b * n, o))
    return dz.reshape(saved.z.shape), dx, aligned.contiguous(dw_up), dw_v, dw_out, db_v, db_out


class _Call:
    """Arrays and sizes of one call, and its products."""

    def __init__(self, z, x, w_up, w_v, w_out, b_v):
        b, n, h, r = z.shape
        self.o, self.n = w_out.shape[1], n
        self.sizes = b, n, h, r, x.shape[2], w_v.shape[1] // max(h, 1), self.o
        self.none = matrix.no_bias(x)
        self.z, self.x, self.w_v, self.w_out = map(aligned.contiguous, (z, x, w_v, w_out))
        # NumPy adds in an order that depends on the strides
        self.sum_of_w_up = aligned.contiguous(w_up).sum(axis=1)
        self.b_v = None if b_v is None else aligned.contiguous(b_v).reshape(h, -1)
        # like z, with the ranks of all heads side by side
        self.w_up = aligned.contiguous(w_up.swapaxes(0, 1))

    def empty(self, *shape):
        return aligned.empty(shape, self.x.dtype)

    def t(self):
        return self.over_items(self.w_up, 0, self.x, self.sizes[4])

    def u(self, t):
        b, _, h, r, c, d, _ = self.sizes
        u = self.empty(h, b, r, d)
        left, right = (t, 0, b * r * c, c, 1), (self.w_v, d, 0, h * d, False)
        self.product(left, right, (u, 0, b * r * d, d), (b * r, c, d))
        if self.b_v is not None:
            u += (self.sum_of_w_up[:, :, None] * self.b_v[:, None])[:, None]
        return u

    def m(self, u):
        b, _, h, r, _, d, o = self.sizes
        m = self.empty(b, h, r, o)
        left, right = (u, r * d, b * r * d, d, 1), (self.w_out, d * o, 0, o, False)
        self.product(left, right, (m, h * r * o, r * o, o), (r, d, o), items=b)
        return m

    def over_items(self, left, n, x, c):
        """out[h, b, p] = sum over the tokens i of left[b, i, h, p] x[b, i]; n is 0 for the same left for all items."""
        b, tokens, h, r = self.sizes[:4]
        out = self.empty(h, b, r, c)
        left, right = (left, n * h * r, r, 1, h * r), (x, 0, tokens * c, c, False)
        self.product(left, right, (out, r * c, b * r * c, c), (r, tokens, c), items=b)
        return out

    def over_tokens(self, left, n, m, c, bias):
        """out[b, i] = sum over heads and ranks of left[b, i, h, p] m[b, h, p], plus a bias."""
        b, tokens, h, r = self.sizes[:4]
        out = self.empty(b, tokens, c)
        left, right = (left, n * h * r, 0, h * r, 1), (m, 0, h * r * c, c, False)
        self.product(left, right, (out, tokens * c, 0, c), (tokens, h * r, c), items=b, heads=1, bias=bias)
        return out

    def over_ranks(self, x, m, c):
        """out[b, i, h, p] = x[b, i] . m[b, h, p]."""
        b, tokens, h, r = self.sizes[:4]
        out = self.empty(b, tokens, h * r)
        left, right = (x, tokens * c, 0, c, 1), (m, 0, h * r * c, c, True)
        self.product(left, right, (out, tokens * h * r, 0, h * r), (tokens, c, h * r), items=b, heads=1)
        return out

    def product(self, left, right, out, sizes, items=1, heads=None, bias=None):
        """out = left right (rows, depth, columns) for every item and head.

        left is (array, steps of items, heads, rows, columns), right (array, steps of heads, items, rows, whether its
        rows are columns of the factor), out (array, steps of items, heads, rows).
        """
        heads = self.sizes[2] if heads is None else heads
        rows, depth, columns = sizes
        none = self.none
        terms, of_bias = none[0], 0
        if bias is not None:
            terms = numpy.zeros(-(-columns // none[0].size) * none[0].size, none[0].dtype)
            terms[:columns], of_bias = bias, 1
        panels = -(-columns // none[0].size)
        # heads with the same right factor are one task
        together = heads if right[1] == 0 else 1
        arrays = left[0].reshape(-1), right[0].reshape(-1), out[0].reshape(-1), none, terms
        work = items * heads * rows * depth * columns / 10
        args = *arrays, left[1:], right[1:4], right[4], out[1:], sizes, (heads, together), of_bias
        run(_products, items * heads // together * panels, *args, work=work)


@kernel
def _products(A, X, Y, none, terms, left, right, transposed, out, sizes, heads, of_bias, counter):
    """Tasks: an item, a head or all of them, and a panel of columns."""
    rows, depth, columns = sizes
    width = panel_width(X)
    panel = scratch(_DEPTH * width, X), 0
    panels = -(-columns // width)
    heads, together = heads
    for task in tasks(counter):
        j = task % panels * width
        first = task // panels * together % heads
        item = task // panels * together // heads
        count = min(width, columns - j)
        x = first * right[0] + item * right[1]
        bias = none[0], 0, 0, terms, of_bias * j
        for start in range(0, max(depth, 1), _DEPTH):
            part = min(_DEPTH, depth - start)
            if transposed:
                fill_panel_transposed((X, x + j * right[2] + start, right[2]), panel, part, count)
            else:
                fill_panel((X, x + start * right[2] + j, right[2]), panel, part, count)
            for head in range(first, first + together):
                factor = A, item * left[0] + head * left[1] + start * left[3], left[2], left[3]
                place = Y, item * out[0] + head * out[1] + j, out[2]
                multiply_panel(factor, panel, bias, place, rows, part, count, start > 0)
            bias = none
