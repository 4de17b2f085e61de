"""Long convolution in NumPy: the sum over the taps as it is written."""

import numpy


def long_conv1d_forward(x, h, D=None, causal=True, save=True):
    """y[n] = sum_j h[j] x[n - j] + D x[n], one shifted product per tap; j runs from `first`."""
    y = numpy.zeros_like(x) if D is None else x * D
    for tap, j in _shifts(x, h, causal):
        now, before = _overlap(x.shape[1], j)
        y[:, now] += h[tap] * x[:, before]
    return y, (None,)


def long_conv1d_backward(dout, saved):
    """The adjoint of every shifted product of the forward, y[n] += h[j] x[n - j].

    dx[n - j] += h[j] dy[n];  dh[j] = sum over batch and n of dy[n] x[n - j];  dD = sum dy x.
    """
    x, h, D = saved.x, saved.h, saved.D
    dx = numpy.zeros_like(x) if D is None else dout * D
    dh = numpy.zeros_like(h)
    for tap, j in _shifts(x, h, saved.causal):
        now, before = _overlap(x.shape[1], j)
        dx[:, before] += h[tap] * dout[:, now]
        dh[tap] = (dout[:, now] * x[:, before]).sum(axis=(0, 1))
    return dx, dh, None if D is None else (dout * x).sum(axis=(0, 1))


def _shifts(x, h, causal):
    """Rows of h and their shifts j, without those that reach beyond the sequence."""
    first = 0 if causal else -(len(h) // 2)
    return [(tap, tap + first) for tap in range(len(h)) if abs(tap + first) < x.shape[1]]


def _overlap(length, j):
    """The tokens n and n - j that both lie inside the sequence, as slices."""
    return slice(max(j, 0), length + min(j, 0)), slice(max(-j, 0), length - max(j, 0))
