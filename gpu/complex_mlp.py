"""Complex networks on the GPU: real products of twice the size, all blocks at once."""

import numpy

from mixers.gpu.device import device_of
from mixers.op import compute_dtype


def block_complex_mlp_forward(
    re, im, w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im, threshold=0.0, save=True
):
    n = len(w1_re)
    W1, W2 = _matrices(w1_re, w1_im), _matrices(w2_re, w2_im)
    _, _, v = _layers(_gather(re, im, n), W1, _biases(b1_re, b1_im), W2, _biases(b2_re, b2_im))
    # not by signs: a NaN stays
    v -= numpy.minimum(numpy.maximum(v, -threshold), threshold)
    z_re, z_im = _scatter(v, re.shape)
    return (z_re.astype(re.dtype, copy=False), z_im), ()


def block_complex_mlp_backward(dout, saved):
    """Through the layers backwards, of u and v only where they are not cut off."""
    s = saved
    n = len(s.w1_re)
    device, wide = device_of(s.re), compute_dtype(s.re.dtype)
    W1, W2 = _matrices(s.w1_re, s.w1_im), _matrices(s.w2_re, s.w2_im)
    X = _gather(s.re, s.im, n)
    u, r, v = _layers(X, W1, _biases(s.b1_re, s.b1_im), W2, _biases(s.b2_re, s.b2_im))
    dz = (device.zeros(s.re.shape, wide) if d is None else d for d in dout)
    dv = _gather(*dz, n) * (abs(v) > s.threshold)
    du = device.matmul(dv, W2.swapaxes(1, 2)) * (u > 0)
    dW1, dW2 = device.matmul(X.swapaxes(1, 2), du), device.matmul(r.swapaxes(1, 2), dv)
    dre, dim = _scatter(device.matmul(du, W1.swapaxes(1, 2)), s.re.shape)
    parts = (*_parts(dW1), *_halves(du.sum(axis=1)), *_parts(dW2), *_halves(dv.sum(axis=1)))
    return dre.astype(s.re.dtype, copy=False), dim, *parts


def _layers(X, W1, B1, W2, B2):
    device = device_of(X)
    u = device.matmul(X, W1) + B1
    r = numpy.maximum(u, 0)
    return u, r, device.matmul(r, W2) + B2


def _gather(re, im, n):
    """Real and imaginary parts of the blocks side by side: (n, positions, 2 d), in the compute dtype."""
    c = re.shape[-1]
    d = c // n
    X = device_of(re).empty((n, re.size // c if c else 0, 2 * d), compute_dtype(re.dtype))
    for half, part in enumerate((re, im)):
        X[..., half * d : half * d + d] = part.reshape(-1, n, d).transpose(1, 0, 2)
    return X


def _scatter(X, shape):
    """Undo :func:`_gather`."""
    return tuple(device_of(X).contiguous(half.transpose(1, 0, 2)).reshape(shape) for half in _halves(X))


def _matrices(re, im):
    """The real matrices (a, b; -b, a)."""
    n, d, e = re.shape
    W = device_of(re).empty((n, 2 * d, 2 * e), re.dtype)
    W[:, :d, :e], W[:, :d, e:] = re, im
    W[:, d:, :e], W[:, d:, e:] = -im, re
    return W


def _biases(re, im):
    n, e = re.shape
    B = device_of(re).empty((n, 1, 2 * e), re.dtype)
    B[:, 0, :e], B[:, 0, e:] = re, im
    return B


def _parts(dW):
    """Gradients of real and imaginary part from that of :func:`_matrices`."""
    d, e = dW.shape[1] // 2, dW.shape[2] // 2
    return dW[:, :d, :e] + dW[:, d:, e:], dW[:, :d, e:] - dW[:, d:, :e]


def _halves(X):
    e = X.shape[-1] // 2
    return X[..., :e].copy(), X[..., e:].copy()
