"""The causal convolution around a backend's kernel: its states, packed and padded tokens. For all plain arrays.

Only tokens close behind a start or padding see other rows than the k - 1 before them. They are few: the plain
convolution is mended there, by rows that are gathered by index and sums over taps in order.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy

from mixers.op import compute_dtype
from mixers.sequences import convolution_rows, on_device, zeroed


class Kernels(NamedTuple):
    """What a backend brings.

    convolve(x, w, b, activation, state) is y, for a state of k - 1 rows or None; pull(dy, x, w, b, activation, state)
    gives dx, dw, db and dstate, also for None as dy. The others are those of the op silu.
    """

    convolve: Callable
    pull: Callable
    silu_forward: Callable
    silu_backward: Callable


def forward(kernels, x, w, b, activation, initial_state, return_final_state, sequence_starts, mask):
    """causal_conv1d: the outputs, and nothing to keep."""
    y = kernels.convolve(x, w, b, activation, initial_state)
    if sequence_starts is None and mask is None:
        final = _last_rows(initial_state, x, w.shape[0] - 1) if return_final_state else None
        return (y, final), ()
    tables = _Tables(x, w, sequence_starts, mask)
    silu = lambda p: kernels.silu_forward(p)[0] if activation == "silu" else p
    y = tables.mend(y, x, w, b, initial_state, silu)
    return (y, tables.final_state(x, initial_state) if return_final_state else None), ()


def backward(kernels, dout, saved):
    """Gradients of causal_conv1d: the cotangent of the final state is added to the last rows of dX."""
    x, w, b, state = saved.x, saved.w, saved.b, saved.initial_state
    if saved.sequence_starts is None and saved.mask is None:
        dx, dw, db, dstate = kernels.pull(dout.y, x, w, b, saved.activation, state)
        _add_to_last_rows(dout.final_state, dstate, dx)
        return dx, dw, db, dstate
    x = zeroed(x, saved.mask)
    tables = _Tables(x, w, saved.sequence_starts, saved.mask)
    plain = lambda dy: kernels.pull(dy, x, w, b, saved.activation, state)
    pull_silu = lambda d, p: kernels.silu_backward(d, SimpleNamespace(x=p))[0]
    return tables.backward(dout, saved, plain, pull_silu if saved.activation == "silu" else lambda d, p: d)


def update_forward(kernels, x, state, w, b, activation):
    """causal_conv1d_update: the convolution of the new tokens, with the last k - 1 rows of the state before them."""
    tokens, s = _tokens(x), state.shape[1]
    y = kernels.convolve(tokens, w, b, activation, state[:, s - (w.shape[0] - 1) :])
    return (y.reshape(x.shape), _last_rows(state, tokens, s)), ()


def update_backward(kernels, dout, saved):
    """As that of the convolution; rows of the state out of the kernel's reach pass on their cotangent."""
    x, state, w = _tokens(saved.x), saved.state, saved.w
    out_of_reach = state.shape[1] - (w.shape[0] - 1)
    dy = None if dout.y is None else _tokens(dout.y)
    dx, dw, db, reached = kernels.pull(dy, x, w, saved.b, saved.activation, state[:, out_of_reach:])
    dstate = numpy.zeros_like(state)
    dstate[:, out_of_reach:] = reached
    _add_to_last_rows(dout.state, dstate, dx)
    return dx.reshape(saved.x.shape), dstate, dw, db


def _tokens(x):
    """One token (b, c) as a sequence (b, 1, c)."""
    return x[:, None] if x.ndim == 2 else x


def _last_rows(state, x, count):
    """The last `count` rows of the state (or zeros) followed by x, in the compute dtype."""
    batch, length, c = x.shape
    rows = numpy.zeros_like(x, shape=(batch, count, c), dtype=compute_dtype(x.dtype))
    new = min(length, count)
    rows[:, count - new :] = x[:, length - new :]
    if state is not None:
        old = state.shape[1]
        rows[:, : count - new] = state[:, old - (count - new) :]
    return rows


def _add_to_last_rows(d, dstate, dx):
    """The gradient of :func:`_last_rows`, added to those of the state (or dropped) and of x."""
    if d is None:
        return
    new = min(dx.shape[1], d.shape[1])
    kept = d.shape[1] - new
    # in the compute dtype, so that half types round the sum only
    dx[:, dx.shape[1] - new :] = dx[:, dx.shape[1] - new :].astype(d.dtype, copy=False) + d[:, kept:]
    if dstate is not None:
        dstate[:, dstate.shape[1] - kept :] += d[:, :kept]


class _Tables:
    """The tokens to mend and the rows they see, as arrays beside x (b, l, c); w is (k, c)."""

    def __init__(self, x, w, sequence_starts, mask):
        self.shape, self.k = x.shape, w.shape[0]
        tables = convolution_rows(*x.shape[:2], self.k, sequence_starts, mask)
        self.count = len(tables[0])
        self.tokens, self.rows, self.last = (on_device(table, x) for table in tables)
        self.mask = mask
        self.wide = compute_dtype(x.dtype)

    def history(self, x, state):
        """The rows of X, the state followed by the tokens, in one axis, and a row of zeros."""
        b, l, c = self.shape
        before = self.k - 1
        rows = numpy.zeros_like(x, shape=(b * (before + l) + 1, c), dtype=self.wide)
        # what padding holds may be anything
        every = rows[:-1].reshape(b, before + l, c)
        every[:, before:] = zeroed(x, self.mask)
        if state is not None:
            every[:, :before] = state
        return rows

    def _convolve(self, rows, w, b):
        p = rows[self.rows[:, 0]] * w[0]
        for i in range(1, self.k):
            p += rows[self.rows[:, i]] * w[i]
        return p if b is None else p + b

    def mend(self, y, x, w, b, state, activate):
        """y with the tokens computed anew; padding becomes zero."""
        if self.count:
            values = activate(self._convolve(self.history(x, state), w, b))
            y.reshape(-1, self.shape[2])[self.tokens] = values.astype(y.dtype)
        return zeroed(y, self.mask)

    def final_state(self, x, state):
        """The last k - 1 rows that the next token of the last sequence would see."""
        return self.history(x, state)[self.last]

    def backward(self, dout, saved, plain, slope):
        """dx, dw, db, dstate: of the plain convolution for all other tokens, and of those that were mended."""
        x, w, state = saved.x, saved.w, saved.initial_state
        b, l, c = self.shape
        rows, before = self.history(x, state), self.k - 1
        drows = numpy.zeros_like(rows)
        every = drows[:-1].reshape(b, before + l, c)
        dw = numpy.zeros_like(w)
        db = None if saved.b is None else numpy.zeros_like(saved.b)
        if dout.y is not None:
            dy = zeroed(dout.y, self.mask)
            rest = dy.copy()
            if self.count:
                rest.reshape(-1, c)[self.tokens] = rest.dtype.type(0)
            dx, dw, db, dstate = plain(rest)
            every[:, before:] = dx
            if state is not None:
                every[:, :before] = dstate
            if self.count:
                d = dy.reshape(-1, c)[self.tokens].astype(self.wide)
                d = slope(d, self._convolve(rows, w, saved.b))
                dw = dw.copy()
                for i in range(self.k):
                    # no two tokens see one row by the same tap, but for the row of zeros
                    drows[self.rows[:, i]] += d * w[i]
                    dw[i] += (d * rows[self.rows[:, i]]).sum(axis=0)
                db = None if db is None else db + d.sum(axis=0)
        if dout.final_state is not None:
            drows[self.last.reshape(-1)] += dout.final_state.reshape(-1, c).astype(self.wide)
        dx = zeroed(every[:, before:].copy(), self.mask)
        return dx, dw, db, None if state is None else every[:, :before].copy()
