"""Spectral filters in NumPy."""

import numpy

_ORTHO = {"axes": (1, 2), "norm": "ortho"}


def spectral_filter_forward(x, w_re, w_im, save=True):
    """y = irfft2(X W)."""
    if x.size == 0:
        return numpy.zeros_like(x), ()
    spectrum = numpy.fft.rfft2(x, **_ORTHO) * (w_re + 1j * w_im)
    return numpy.fft.irfft2(spectrum, s=x.shape[1:3], **_ORTHO), ()


def spectral_filter_backward(dout, saved):
    """dx = irfft2(conj(W) G), dW = n sum_b conj(X) G, with G = rfft2(dy).

    With the cotangent of a complex number written as that of its real part plus i times that of its imaginary
    part, a product X W passes on conj(W) D to X and conj(X) D to W. The adjoint of irfft2 is n rfft2, where n
    counts how often irfft2 uses a column: column k of the half spectrum stands for itself and for -k, unless the
    two coincide. The adjoint of rfft2 is irfft2 of D / n, so that in dx the n cancel.
    """
    x, W = saved.x, saved.w_re + 1j * saved.w_im
    if x.size == 0:
        return numpy.zeros_like(x), numpy.zeros_like(saved.w_re), numpy.zeros_like(saved.w_im)
    X, G = numpy.fft.rfft2(x, **_ORTHO), numpy.fft.rfft2(dout, **_ORTHO)
    dx = numpy.fft.irfft2(W.conj() * G, s=x.shape[1:3], **_ORTHO)
    dW = _uses(x.shape[2])[:, None] * (X.conj() * G).sum(axis=0)
    return dx, dW.real, dW.imag


def _uses(w):
    """How many columns of the whole spectrum each one of the half spectrum stands for."""
    k = numpy.arange(w // 2 + 1)
    return numpy.where((k == 0) | (2 * k == w), 1, 2)
