"""Causal convolutions of packed or padded tokens, by mending the plain one: for any backend of plain arrays.

Only tokens close behind a start or padding see other rows than the k - 1 before them. They are few: their rows are
gathered by index, and the sums over taps done in order.
"""

import numpy

from mixers.op import compute_dtype
from mixers.sequences import convolution_rows, on_device, zeroed


class Tables:
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
