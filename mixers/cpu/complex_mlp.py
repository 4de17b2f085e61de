"""Complex networks on the CPU: real products of twice the size, block by block."""

import numpy

from mixers.cpu import matrix
from mixers.cpu.aligned import empty
from mixers.cpu.reduction import sum_rows


def block_complex_mlp_forward(
    re, im, w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im, threshold=0.0, save=True
):
    z = empty(re.shape, re.dtype), empty(re.shape, re.dtype)
    weights = w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im
    for block in range(len(w1_re)):
        W1, B1, W2, B2 = _of_block(weights, block)
        u = matrix.linear(_gather(re, im, block, len(w1_re)), W1, B1)
        v = matrix.linear(numpy.maximum(u, 0, out=u), W2, B2)
        v -= numpy.clip(v, -threshold, threshold)
        _scatter(v, z, block, len(w1_re))
    return z, ()


def block_complex_mlp_backward(dout, saved):
    """Through the layers backwards, of u and v only where they are not cut off."""
    s = saved
    dre, dim = (numpy.zeros_like(s.re) if d is None else d for d in dout)
    dX = empty(s.re.shape, s.re.dtype), empty(s.re.shape, s.re.dtype)
    weights = s.w1_re, s.w1_im, s.b1_re, s.b1_im, s.w2_re, s.w2_im, s.b2_re, s.b2_im
    gradients = [empty(w.shape, w.dtype) for w in weights]
    n = len(s.w1_re)
    for block in range(n):
        W1, B1, W2, B2 = _of_block(weights, block)
        X = _gather(s.re, s.im, block, n)
        u = matrix.linear(X, W1, B1)
        r = numpy.maximum(u, 0)
        dv = _gather(dre, dim, block, n)
        dv *= numpy.abs(matrix.linear(r, W2, B2)) > s.threshold
        du = matrix.linear(dv, W2.T)
        du *= u > 0
        parts = matrix.linear_weights(X, du), sum_rows(du), matrix.linear_weights(r, dv), sum_rows(dv)
        for i, part in enumerate(parts):
            gradients[2 * i][block], gradients[2 * i + 1][block] = _complex(part)
        _scatter(matrix.linear(du, W1.T), dX, block, n)
    return *dX, *gradients


def _gather(re, im, block, n):
    """Real and imaginary parts of a block of channels side by side: (positions, 2 d)."""
    c = re.shape[-1]
    d = c // n
    X = empty((re.size // c if c else 0, 2 * d), re.dtype)
    for half, part in enumerate((re, im)):
        X[:, half * d : half * d + d] = part[..., block * d : block * d + d].reshape(-1, d)
    return X


def _scatter(X, parts, block, n):
    """Undo :func:`_gather`."""
    d = X.shape[1] // 2
    for half, part in enumerate(parts):
        shape = (*part.shape[:-1], d)
        part[..., block * d : block * d + d] = X[:, half * d : half * d + d].reshape(shape)


def _of_block(weights, block):
    """The real matrices (a, b; -b, a) and the biases of both layers."""
    w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im = (w[block] for w in weights)
    matrices = [numpy.block([[a, b], [-b, a]]) for a, b in ((w1_re, w1_im), (w2_re, w2_im))]
    return matrices[0], numpy.concatenate([b1_re, b1_im]), matrices[1], numpy.concatenate([b2_re, b2_im])


def _complex(gradient):
    """Gradients of real and imaginary part from that of such a matrix, or of a pair of biases."""
    e = gradient.shape[-1] // 2
    if gradient.ndim == 1:
        return gradient[:e], gradient[e:]
    d = len(gradient) // 2
    return gradient[:d, :e] + gradient[d:, e:], gradient[:d, e:] - gradient[d:, :e]
