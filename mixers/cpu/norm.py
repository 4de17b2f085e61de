"""Norms over channels on the CPU: a token's channels stay in the first-level cache between the sweeps."""

import math

import numpy

from mixers.cpu import aligned
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, mul_add, store, store_first, sum_lanes

# values of x that a task reads, about
_TASK = 32768


def layer_norm_forward(x, scale=None, bias=None, eps=1e-5, save=True):
    """Three sweeps per token: the mean, the variance of what is left, the output."""
    return _forward(x, scale, bias, eps, centred=True)


def layer_norm_backward(dout, saved):
    """Two sweeps per token: the means of q and q n, then dx and the tasks' shares of the parameters' gradients."""
    return _backward(dout, saved, saved.mean, saved.bias)


def rms_norm_forward(x, scale=None, eps=1e-5, save=True):
    """Layer norm with 0 for the mean."""
    y, (_, rstd) = _forward(x, scale, None, eps, centred=False)
    return y, (rstd,)


def rms_norm_backward(dout, saved):
    """Layer norm with 0 for the means of x and of q."""
    return _backward(dout, saved, None, None)[:2]


def _forward(x, scale, bias, eps, centred):
    c = x.shape[-1]
    y = aligned.empty(x.shape, x.dtype)
    mean, rstd = (aligned.empty(x.shape[:-1], x.dtype) for _ in range(2))
    tokens, block = _cut(x)
    run(
        _normalise,
        -(-tokens // block),
        aligned.flat(x),
        numpy.ones(c, x.dtype) if scale is None else aligned.contiguous(scale),
        numpy.zeros(c, x.dtype) if bias is None else aligned.contiguous(bias),
        _valid_lanes(x),
        *(y.reshape(-1), mean.reshape(-1), rstd.reshape(-1)),
        *(tokens, c, block, float(eps), centred),
        work=4 * x.size,
    )
    return y, (mean, rstd)


def _backward(dout, saved, mean, bias):
    x, scale, c = saved.x, saved.scale, saved.x.shape[-1]
    dx = aligned.empty(x.shape, x.dtype)
    tokens, block = _cut(x)
    count = -(-tokens // block)
    partial = aligned.zeros((count, 2, c), x.dtype)
    rstd = aligned.flat(saved.rstd)
    run(
        _pull,
        count,
        *(aligned.flat(x), aligned.flat(dout)),
        numpy.ones(c, x.dtype) if scale is None else aligned.contiguous(scale),
        *(rstd if mean is None else aligned.flat(mean), rstd),
        *(dx.reshape(-1), partial.reshape(-1)),
        *(tokens, c, block, mean is not None, not (scale is None and bias is None)),
        work=6 * x.size,
    )
    dscale, dbias = sum_rows(partial.reshape(count, 2 * c)).reshape(2, c)
    return dx, (None if scale is None else dscale.copy()), (None if bias is None else dbias.copy())


def _cut(x):
    """Number of tokens, and how many of them make a task."""
    c = x.shape[-1]
    return math.prod(x.shape[:-1]), max(1, _TASK // max(c, 1))


def _valid_lanes(x):
    """1 for the lanes of a token's last vector that hold channels, 0 for the others."""
    count = x.shape[-1] % lanes(x)
    return (numpy.arange(lanes(x)) < count).astype(x.dtype)


@kernel
def _normalise(x, scale, bias, valid, y, means, rstds, tokens, c, block, eps, centred, counter):
    rest = c % lanes(x)
    full = c - rest
    for task in tasks(counter):
        for token in range(task * block, min(tokens, (task + 1) * block)):
            start = token * c
            mean = 0.0
            if centred:
                total = load_first(x, start + full, rest)
                for j in range(0, full, lanes(x)):
                    total = total + load(x, start + j)
                mean = sum_lanes(total) / c
            # the lanes behind the last channel hold -mean, which must not count
            last = (load_first(x, start + full, rest) - mean) * load(valid, 0)
            square = last * last
            for j in range(0, full, lanes(x)):
                value = load(x, start + j) - mean
                square = mul_add(value, value, square)
            rstd = 1.0 / math.sqrt(sum_lanes(square) / c + eps)
            means[token], rstds[token] = mean, rstd
            for j in range(0, full, lanes(x)):
                value = (load(x, start + j) - mean) * rstd
                store(y, start + j, mul_add(value, load(scale, j), load(bias, j)))
            if rest:
                value = (load_first(x, start + full, rest) - mean) * rstd
                value = mul_add(value, load_first(scale, full, rest), load_first(bias, full, rest))
                store_first(y, start + full, value, rest)


@kernel
def _pull(x, dy, scale, means, rstds, dx, partial, tokens, c, block, centred, parameters, counter):
    """dx = rstd (q - mean(q) - n mean(q n)); partial[task] = the sums of dy n and of dy over its tokens."""
    rest = c % lanes(x)
    full = c - rest
    for task in tasks(counter):
        share = task * 2 * c
        for token in range(task * block, min(tokens, (task + 1) * block)):
            start, mean, rstd = token * c, 0.0, rstds[token]
            if centred:
                mean = means[token]
            # q is kept in dx: recomputed, it could be fused with the subtraction and not cancel exactly
            total = load_first(dy, start + full, rest) * load_first(scale, full, rest)
            store_first(dx, start + full, total, rest)
            product = total * ((load_first(x, start + full, rest) - mean) * rstd)
            for j in range(0, full, lanes(x)):
                n = (load(x, start + j) - mean) * rstd
                q = load(dy, start + j) * load(scale, j)
                store(dx, start + j, q)
                total = total + q
                product = mul_add(q, n, product)
            shift, slope = 0.0, sum_lanes(product) / c
            if centred:
                shift = sum_lanes(total) / c
            for j in range(0, full, lanes(x)):
                n = (load(x, start + j) - mean) * rstd
                store(dx, start + j, (load(dx, start + j) - shift - n * slope) * rstd)
                if parameters:
                    d = load(dy, start + j)
                    store(partial, share + j, mul_add(d, n, load(partial, share + j)))
                    store(partial, share + c + j, load(partial, share + c + j) + d)
            if rest:
                n = (load_first(x, start + full, rest) - mean) * rstd
                q = load_first(dx, start + full, rest)
                store_first(dx, start + full, (q - shift - n * slope) * rstd, rest)
                d, at = load_first(dy, start + full, rest), share + full
                store_first(partial, at, mul_add(d, n, load_first(partial, at, rest)), rest)
                store_first(partial, at + c, load_first(partial, at + c, rest) + d, rest)
