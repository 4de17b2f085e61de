"""Short convolutions in NumPy."""

import numpy
from scipy import special


def depthwise_conv2d_forward(x, w, b=None, dilation=1, padding="same", save=True):
    """y[p, q] = b + sum_{i,j} w[i, j] X[p + i d, q + j d] with X = x padded by zeros."""
    padded = numpy.pad(x, ((0, 0), *_padding(w.shape, dilation, padding), (0, 0)))
    y = sum(w[i, j] * window for i, j, window in _windows(padded, w.shape, dilation))
    return (y if b is None else y + b), ()


def depthwise_conv2d_backward(dout, saved):
    """Each tap saw a shifted window of X, so its gradient goes back to that window.

    dX[p + i d, q + j d] += w[i, j] dy[p, q], dx = dX without the padding,
    dw[i, j] = sum_{n,p,q} dy[p, q] X[p + i d, q + j d], db = sum_{n,p,q} dy[p, q].
    """
    x, w, b, dilation = saved.x, saved.w, saved.b, saved.dilation
    rows, columns = _padding(w.shape, dilation, saved.padding)
    padded = numpy.pad(x, ((0, 0), rows, columns, (0, 0)))
    dpadded, dw = numpy.zeros_like(padded), numpy.zeros(w.shape, w.dtype)
    for i, j, window in _windows(padded, w.shape, dilation):
        dw[i, j] = (dout * window).sum(axis=(0, 1, 2))
    for i, j, dwindow in _windows(dpadded, w.shape, dilation):
        dwindow += w[i, j] * dout
    dx = dpadded[:, rows[0] : rows[0] + x.shape[1], columns[0] : columns[0] + x.shape[2]].copy()
    return dx, dw, None if b is None else dout.sum(axis=(0, 1, 2))


def _padding(kernel, dilation, padding):
    """((top, bottom), (left, right)); "same" puts the odd row or column of an even kernel at the end."""
    if padding != "same":
        return tuple(map(tuple, padding))
    reach = [dilation * (k - 1) for k in kernel[:2]]
    return tuple((r // 2, r - r // 2) for r in reach)


def _windows(padded, kernel, dilation):
    """For every tap the view of the padded grid that it is multiplied with."""
    kh, kw = kernel[:2]
    h = padded.shape[1] - dilation * (kh - 1)
    w = padded.shape[2] - dilation * (kw - 1)
    for i, j in numpy.ndindex(kh, kw):
        top, left = i * dilation, j * dilation
        yield i, j, padded[:, top : top + h, left : left + w]


def causal_conv1d_forward(
    x,
    w,
    b=None,
    activation="silu",
    initial_state=None,
    return_final_state=False,
    sequence_starts=None,
    mask=None,
    save=True,
):
    """p[t] = b + sum_i w[i] X[t + i] with X = (initial_state or zeros, x); y = silu(p) or p.

    With starts or a mask a token sees the k - 1 kept tokens before it, as far as its sequence goes.
    """
    history = _history(x, initial_state, w.shape[0])
    if sequence_starts is not None or mask is not None:
        seen, last = _seen(x.shape, w.shape[0], sequence_starts, mask)
        rows = _with_zeros(history)
        p = (w * rows[seen]).sum(axis=2) + (0.0 if b is None else b)
        y = p * special.expit(p) if activation == "silu" else p
        y = y if mask is None else numpy.where(mask[..., None], y, 0)
        return (y, rows[last] if return_final_state else None), ()
    p = _convolve(history, w, b)
    y = p * special.expit(p) if activation == "silu" else p
    # X has k - 1 + l rows: from row l on there are k - 1
    return (y, history[:, x.shape[1] :].copy() if return_final_state else None), ()


def causal_conv1d_backward(dout, saved):
    """With g = dy silu'(p), p recomputed, silu'(p) = s (1 + p (1 - s)), s = sigmoid(p).

    X[t + i] was multiplied by w[i] and added to p[t]: dX[t + i] += w[i] g[t], dw[i] = sum_{b,t} g[t] X[t + i],
    db = sum_{b,t} g[t]. The final state is the last k - 1 rows of X and adds its cotangent there. X is the
    initial state followed by x, and so is its gradient.
    """
    x, w, b, state = saved.x, saved.w, saved.b, saved.initial_state
    history = _history(x, state, w.shape[0])
    if saved.sequence_starts is not None or saved.mask is not None:
        dhistory, dw, db = _seen_backward(dout, history, saved)
    else:
        dhistory, dw, db = _convolve_backward(dout.y, history, w, b, saved.activation)
        if dout.final_state is not None:
            dhistory[:, x.shape[1] :] += dout.final_state
    k = w.shape[0]
    dstate = None if state is None else dhistory[:, : k - 1].copy()
    return dhistory[:, k - 1 :].copy(), dw, db, dstate


def _seen(shape, k, starts, mask):
    """The rows of X that each token sees (b, l, k), and those of the final state (b, k - 1); the last row is zeros."""
    b, l, _ = shape
    seen, last = numpy.empty((b, l, k), numpy.int64), numpy.empty((b, k - 1), numpy.int64)
    none = b * (k - 1 + l)
    for item in range(b):
        first = item * (k - 1 + l)
        recent = list(range(first, first + k - 1))
        for t in range(l):
            if starts is not None and starts[item, t]:
                recent = [none] * (k - 1)
            kept = mask is None or mask[item, t]
            window = [*recent, first + k - 1 + t] if kept else [none] * k
            seen[item, t] = window
            recent = window[1:] if kept else recent
        last[item] = recent
    return seen, last


def _with_zeros(history):
    """The rows of X (b, k - 1 + l, c) in one axis, and a row of zeros."""
    c = history.shape[2]
    return numpy.concatenate([history.reshape(-1, c), numpy.zeros((1, c), history.dtype)])


def _seen_backward(dout, history, saved):
    """dX, dw and db where each token sees rows of its own: the sums over taps become sums over pairs."""
    w, b, mask = saved.w, saved.b, saved.mask
    seen, last = _seen(saved.x.shape, w.shape[0], saved.sequence_starts, mask)
    rows = _with_zeros(history)
    g = numpy.zeros_like(saved.x) if dout.y is None else dout.y
    if mask is not None:
        g = numpy.where(mask[..., None], g, 0)
    if saved.activation == "silu":
        p = (w * rows[seen]).sum(axis=2) + (0.0 if b is None else b)
        s = special.expit(p)
        g = g * s * (1.0 + p * (1.0 - s))
    drows = numpy.zeros_like(rows)
    numpy.add.at(drows, seen, w * g[:, :, None])
    if dout.final_state is not None:
        numpy.add.at(drows, last, dout.final_state)
    dw = (rows[seen] * g[:, :, None]).sum(axis=(0, 1))
    return drows[:-1].reshape(history.shape), dw, None if b is None else g.sum(axis=(0, 1))


def causal_conv1d_update_forward(x, state, w, b=None, activation="silu", save=True):
    """The convolution of X = (state, x) at the new tokens; the new state is the last s rows of X."""
    k, s = w.shape[0], state.shape[1]
    full = numpy.concatenate([state, _tokens(x)], axis=1)
    # the oldest s - (k - 1) rows are out of reach of the new tokens
    p = _convolve(full[:, s - (k - 1) :], w, b)
    y = p * special.expit(p) if activation == "silu" else p
    return (y.reshape(x.shape), full[:, full.shape[1] - s :].copy()), ()


def causal_conv1d_update_backward(dout, saved):
    """As :func:`causal_conv1d_backward`, with the cotangent of the new state on the last s rows of X."""
    x, state, w, b = saved.x, saved.state, saved.w, saved.b
    k, s = w.shape[0], state.shape[1]
    full = numpy.concatenate([state, _tokens(x)], axis=1)
    dfull = numpy.zeros_like(full)
    dy = None if dout.y is None else _tokens(dout.y)
    reached = slice(s - (k - 1), None)
    dfull[:, reached], dw, db = _convolve_backward(dy, full[:, reached], w, b, saved.activation)
    if dout.state is not None:
        dfull[:, full.shape[1] - s :] += dout.state
    return dfull[:, s:].reshape(x.shape), dfull[:, :s].copy(), dw, db


def _tokens(x):
    """One token (b, c) as a sequence (b, 1, c)."""
    return x[:, None] if x.ndim == 2 else x


def _history(x, state, k):
    """X = (state or zeros, x), k - 1 rows before the first token."""
    if state is None:
        state = numpy.zeros((x.shape[0], k - 1, x.shape[2]), x.dtype)
    return numpy.concatenate([state, x], axis=1)


def _convolve(history, w, b):
    """p[t] = b + sum_i w[i] X[t + i]."""
    k = w.shape[0]
    tokens = history.shape[1] - (k - 1)
    p = sum(w[i] * history[:, i : i + tokens] for i in range(k))
    return p if b is None else p + b


def _convolve_backward(dy, history, w, b, activation):
    """dX, dw, db of ``activation(_convolve(X, w, b))``; a dy of None counts as zero."""
    dhistory, dw = numpy.zeros_like(history), numpy.zeros_like(w)
    if dy is None:
        return dhistory, dw, None if b is None else numpy.zeros_like(b)
    g = dy
    if activation == "silu":
        p = _convolve(history, w, b)
        s = special.expit(p)
        g = dy * s * (1.0 + p * (1.0 - s))
    tokens = g.shape[1]
    for i in range(w.shape[0]):
        dw[i] = (g * history[:, i : i + tokens]).sum(axis=(0, 1))
        dhistory[:, i : i + tokens] += w[i] * g
    return dhistory, dw, None if b is None else g.sum(axis=(0, 1))
