"""Attention whose matrix of weights is of low rank, on the GPU: small products in the cheap order.

All of them are in float32 for half types, so that only the results are rounded.
"""

import numpy

from mixers.gpu.device import device_of


def low_rank_values_forward(z, x, w_up, w_v, w_out, b_v=None, b_out=None, save=True):
    """t = w_up^T x, u = t w_v, m = u w_out, y = z m."""
    call = _Call(z, x, w_up, w_v, w_out, b_v)
    y = call.matmul(call.z, call.joined(call.m(call.u(call.t()))))
    return (y if b_out is None else y + b_out), (None, None, None)


def low_rank_values_backward(dout, saved):
    """dm = z^T dy, du = dm w_out^T, dt = du w_v^T, dx = w_up dt, and what each product gives its other factor."""
    call = _Call(saved.z, saved.x, saved.w_up, saved.w_v, saved.w_out, saved.b_v)
    _, n, h, r = saved.z.shape
    dy = dout.astype(call.wide, copy=False)
    t = call.t()
    u = call.u(t)
    dz = call.matmul(dy, call.joined(call.m(u)).swapaxes(1, 2))
    dm = call.by_head(call.matmul(call.z.swapaxes(1, 2), dy))
    du = call.matmul(dm, call.w_out.swapaxes(1, 2))
    dt = call.joined(call.matmul(du, call.w_v.swapaxes(1, 2)))
    dw_v = call.over_items(t, du).transpose(1, 0, 2)
    dw_up = call.matmul(call.x, dt.swapaxes(1, 2)).sum(axis=0).reshape(n, h, r).transpose(1, 0, 2)
    db_v = None
    if saved.b_v is not None:
        # u has the sums of w_up times b_v in it
        terms = du.sum(axis=0)
        dw_up = dw_up + (terms * call.b_v).sum(axis=2)[:, None]
        db_v = (terms * call.sum_of_w_up).sum(axis=1).reshape(saved.b_v.shape)
    return (
        dz.reshape(saved.z.shape),
        call.matmul(call.w_up, dt),
        dw_up,
        call.device.contiguous(dw_v).reshape(saved.w_v.shape),
        call.over_items(u, dm).reshape(saved.w_out.shape),
        db_v,
        None if saved.b_out is None else dy.sum(axis=(0, 1)),
    )


class _Call:
    """The arrays by heads, and products of them."""

    def __init__(self, z, x, w_up, w_v, w_out, b_v):
        self.device = device_of(z)
        self.wide = numpy.dtype(numpy.float64 if z.dtype == numpy.float64 else numpy.float32)
        self.b, n, self.h, self.r = z.shape
        self.z, self.x = self._wide(z).reshape(self.b, n, self.h * self.r), self._wide(x)
        # (n, h r), (h, c, d), (h, d, o)
        self.w_up = self.device.contiguous(w_up.transpose(1, 0, 2)).reshape(n, self.h * self.r)
        self.w_v = self.device.contiguous(w_v.reshape(w_v.shape[0], self.h, -1).transpose(1, 0, 2))
        self.w_out = w_out.reshape(self.h, -1, w_out.shape[1])
        self.sum_of_w_up = w_up.sum(axis=1)[:, :, None]
        self.b_v = None if b_v is None else b_v.reshape(self.h, 1, -1)

    def _wide(self, x):
        return x.astype(self.wide, copy=False)

    def matmul(self, left, right):
        return self.device.matmul(left, right)

    def by_head(self, x):
        """(b, h r, c) as (b, h, r, c)."""
        return x.reshape(self.b, self.h, self.r, x.shape[2])

    def joined(self, x):
        """The inverse of :meth:`by_head`."""
        return x.reshape(self.b, self.h * self.r, x.shape[3])

    def t(self):
        return self.by_head(self.matmul(self.w_up.swapaxes(0, 1), self.x))

    def u(self, t):
        u = self.matmul(t, self.w_v)
        return u if self.b_v is None else u + self.sum_of_w_up * self.b_v

    def m(self, u):
        return self.matmul(u, self.w_out)

    def over_items(self, left, right):
        """left^T right by heads, summed over items and ranks."""
        rows = (self.device.contiguous(a.swapaxes(0, 1)) for a in (left, right))
        left, right = (a.reshape(self.h, self.b * self.r, a.shape[3]) for a in rows)
        return self.matmul(left.swapaxes(1, 2), right)
