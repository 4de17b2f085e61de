"""Discrete cosine transforms in NumPy: products with the dense orthonormal matrix."""

import numpy


def dct_forward(x, axes=None, save=True):
    """F = D x along every axis, D the orthonormal DCT-II matrix."""
    return _along_axes(x, axes, inverse=False), ()


def dct_backward(dout, saved):
    """dx = D^T dF: D is orthogonal, so the adjoint is the inverse."""
    return (_along_axes(dout, saved.axes, inverse=True),)


def idct_forward(x, axes=None, save=True):
    """y = D^T x along every axis."""
    return _along_axes(x, axes, inverse=True), ()


def idct_backward(dout, saved):
    """dx = D dy."""
    return (_along_axes(dout, saved.axes, inverse=False),)


def _along_axes(x, axes, inverse):
    for axis in range(1, x.ndim - 1) if axes is None else axes:
        D = _matrix(x.shape[axis]).astype(x.dtype)
        x = numpy.moveaxis(numpy.tensordot(D.T if inverse else D, x, (1, axis)), 0, axis)
    return numpy.ascontiguousarray(x)


def _matrix(n):
    """D[k, m] = s_k sqrt(2 / n) cos(pi (2 m + 1) k / (2 n)), s_0 = 1 / sqrt 2, else 1.

    The cosine has period 4 n in (2 m + 1) k; reducing the integer first keeps the argument exact.
    """
    k, m = numpy.arange(n)[:, None], numpy.arange(n)
    D = numpy.sqrt(2.0 / max(n, 1)) * numpy.cos(numpy.pi * ((2 * m + 1) * k % (4 * n)) / (2 * n))
    D[:1] /= numpy.sqrt(2.0)
    return D
