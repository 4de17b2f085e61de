"""Attention with softmax in NumPy."""

import numpy

# added to the scores of tokens that only a roll brought together
_APART = -100.0


def shifted_window_attention_forward(q, k, v, table, window, shift=0, scale=None, save=True):
    """Roll, cut into windows, attend, put back."""
    p, _, _, v = _weights(q, k, v, table, window, shift, scale)
    return _from_windows(p @ v, q.shape, window, shift), ()


def shifted_window_attention_backward(dout, saved):
    """With p the weights and g the cotangent, by windows and heads:

    dv = p^T g;  dp = g v^T;  ds = p (dp - sum_j p dp);  dq = scale ds k;  dk = scale ds^T q;
    dtable[r] = the sum of ds over batch, windows and the pairs at the relative position r.
    """
    q, window, shift = saved.q, saved.window, saved.shift
    p, qs, ks, vs = _weights(q, saved.k, saved.v, saved.table, window, shift, saved.scale)
    g = _to_windows(dout, window, shift)
    dp = g @ vs.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    scale = _scale(q, saved.scale)
    dtable = numpy.zeros_like(saved.table)
    numpy.add.at(dtable, _relative(window), ds.sum(axis=(0, 1)).transpose(1, 2, 0))
    back = lambda a: _from_windows(a, q.shape, window, shift)
    return (
        back(scale * ds @ ks),
        back(scale * ds.swapaxes(-1, -2) @ qs),
        back(p.swapaxes(-1, -2) @ g),
        dtable,
    )


def _weights(q, k, v, table, window, shift, scale):
    """Weights (b, windows, n, m^2, m^2), and q, k, v by windows."""
    h, w = q.shape[1:3]
    factor = _scale(q, scale)
    q, k, v = (_to_windows(a, window, shift) for a in (q, k, v))
    scores = factor * q @ k.swapaxes(-1, -2) + table[_relative(window)].transpose(2, 0, 1)
    scores += _mask(h, w, window, shift).astype(q.dtype)[:, None]
    weights = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True), q, k, v


def _scale(q, scale):
    return q.dtype.type(q.shape[-1] ** -0.5 if scale is None else scale)


def _to_windows(a, m, shift):
    """(b, h, w, n, d) to (b, windows, n, m^2, d)."""
    b, h, w, n, d = a.shape
    a = numpy.roll(a, (-shift, -shift), axis=(1, 2)).reshape(b, h // m, m, w // m, m, n, d)
    return a.transpose(0, 1, 3, 5, 2, 4, 6).reshape(b, (h // m) * (w // m), n, m * m, d)


def _from_windows(a, shape, m, shift):
    b, h, w, n, d = shape
    a = a.reshape(b, h // m, w // m, n, m, m, d).transpose(0, 1, 4, 2, 5, 3, 6).reshape(shape)
    return numpy.roll(a, (shift, shift), axis=(1, 2))


def _relative(m):
    """Row of the table for each query and key of a window, (m^2, m^2)."""
    i, j = numpy.divmod(numpy.arange(m * m), m)
    return (i[:, None] - i + m - 1) * (2 * m - 1) + j[:, None] - j + m - 1


def _mask(h, w, m, shift):
    """(windows, m^2, m^2): 0 within a region of the rolled grid, else -100."""
    if not shift:
        return numpy.zeros((1, 1, 1))

    def region(size):
        p = numpy.arange(size)
        return numpy.where(p < size - m, 0, numpy.where(p < size - shift, 1, 2))

    labels = 3 * region(h)[:, None] + region(w)
    labels = _to_windows(labels[None, :, :, None, None], m, 0)[0, :, 0, :, 0]
    return numpy.where(labels[:, :, None] == labels[:, None], 0.0, _APART)
