"""Complex networks in NumPy."""

import numpy


def block_complex_mlp_forward(
    re, im, w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im, threshold=0.0, save=True
):
    """z = S(relu(X w1 + b1) w2 + b2)."""
    X = _blocks(re + 1j * im, len(w1_re))
    *_, v = _layers(X, w1_re + 1j * w1_im, b1_re + 1j * b1_im, w2_re + 1j * w2_im, b2_re + 1j * b2_im)
    v = v.reshape(re.shape)
    return tuple(_shrink(part, threshold).astype(re.dtype) for part in (v.real, v.imag)), ()


def block_complex_mlp_backward(dout, saved):
    """Backwards through shrinkage, layer, relu, layer.

    The cotangent of a complex number is written as that of its real part plus i times that of its imaginary part;
    then y = a w passes on D conj(w) to a and conj(a) D to w.
    """
    s = saved
    w1, w2 = s.w1_re + 1j * s.w1_im, s.w2_re + 1j * s.w2_im
    X = _blocks(s.re + 1j * s.im, len(w1))
    u, r, v = _layers(X, w1, s.b1_re + 1j * s.b1_im, w2, s.b2_re + 1j * s.b2_im)
    dz = [numpy.zeros(s.re.shape, s.re.dtype) if d is None else d for d in dout]
    dz = _blocks(dz[0] + 1j * dz[1], len(w1))
    dv = dz.real * (numpy.abs(v.real) > s.threshold) + 1j * dz.imag * (numpy.abs(v.imag) > s.threshold)
    dw2, db2 = numpy.einsum("mne,mnd->ned", r.conj(), dv), dv.sum(axis=0)
    dr = numpy.einsum("mnd,ned->mne", dv, w2.conj())
    du = dr.real * (u.real > 0) + 1j * dr.imag * (u.imag > 0)
    dw1, db1 = numpy.einsum("mnd,mne->nde", X.conj(), du), du.sum(axis=0)
    dX = numpy.einsum("mne,nde->mnd", du, w1.conj()).reshape(s.re.shape)
    return tuple(part for d in (dX, dw1, db1, dw2, db2) for part in (d.real.copy(), d.imag.copy()))


def _blocks(X, n):
    """(..., c) -> (positions, n, c / n)."""
    return X.reshape(-1 if X.size else 0, n, X.shape[-1] // n)


def _layers(X, w1, b1, w2, b2):
    u = numpy.einsum("mnd,nde->mne", X, w1) + b1
    r = numpy.maximum(u.real, 0) + 1j * numpy.maximum(u.imag, 0)
    return u, r, numpy.einsum("mne,ned->mnd", r, w2) + b2


def _shrink(a, threshold):
    return numpy.sign(a) * numpy.maximum(numpy.abs(a) - threshold, 0)
