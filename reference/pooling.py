"""Average pooling in NumPy."""

import numpy


def avg_pool_forward(x, size=3, minus_identity=False, save=True):
    """y = S(x) / n with the box sum S and the counts n of tokens inside the window, minus x if asked."""
    y = _box_sum(x, size) / _counts(x, size)
    return (y - x if minus_identity else y), ()


def avg_pool_backward(dout, saved):
    """dx = S(dy / n) (- dy).

    S is self-adjoint, as the window is symmetric; the division comes before the sum, so near borders this is
    not the forward operator.
    """
    dx = _box_sum(dout / _counts(dout, saved.size), saved.size)
    return (dx - dout if saved.minus_identity else dx,)


def _box_sum(x, size):
    """Sum over the window along every token axis, zeros outside the grid."""
    reach = size // 2
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        lines = [x.take(range(max(0, i - reach), min(n, i + reach + 1)), axis=axis) for i in range(n)]
        x = numpy.stack([line.sum(axis=axis) for line in lines], axis=axis) if n else x.copy()
    return x


def _counts(x, size):
    """Number of tokens inside each window, shape (grid..., 1)."""
    return _box_sum(numpy.ones((1, *x.shape[1:-1], 1), x.dtype), size)[0]
