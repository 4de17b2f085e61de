"""Kernels of diagonal state-space models on the CPU.

Token i J + j takes the power lambda^(i J) lambda^j, so that the kernel is a product of two tables of about
sqrt(length) powers each. The tables are computed in float64.
"""

import math

import numpy

from mixers.cpu import spatial
from mixers.cpu.aligned import empty, zeros


def s4d_kernel_forward(log_dt, log_A_real, A_imag, C_re, C_im, length, disc="zoh", save=True):
    """k[i J + j] = sum over modes of Re(a) Re(b) - Im(a) Im(b), a = 2 C phi lambda^(i J), b = lambda^j."""
    if not (length and A_imag.size):
        return zeros((length, len(log_dt)), log_dt.dtype), ()
    dt, A, C = _model(log_dt, log_A_real, A_imag, C_re, C_im)
    log_power, phi = _discretised(dt, A, disc)
    outer, inner = _tables(log_power, length)
    outer *= 2 * C * phi
    dtype = log_dt.dtype
    left = numpy.concatenate([outer.real, -outer.imag], axis=1).astype(dtype)
    right = numpy.concatenate([inner.real, inner.imag], axis=1).astype(dtype)
    k = spatial.multiply(left[None], right.swapaxes(0, 1)[None])
    return k.reshape(-1, k.shape[-1])[:length], ()


def s4d_kernel_backward(dout, saved):
    """P and Q by the same product with the conjugate tables, then the chain rule."""
    s, length = saved, saved.length
    dt, A, C = _model(s.log_dt, s.log_A_real, s.A_imag, s.C_re, s.C_im)
    log_power, phi = _discretised(dt, A, s.disc)
    P, Q = numpy.zeros_like(A), numpy.zeros_like(A)
    if length and A.size:
        outer, inner = _tables(log_power, length)
        P, Q = _moments(dout, outer, inner)
    d_log, d_phi, dC = (C * phi).conj() * Q, C.conj() * P, phi.conj() * P
    z = dt * A
    if s.disc == "zoh":
        dz = d_log + d_phi * (numpy.exp(z) / A).conj()
        dA = dt * dz - d_phi * (phi / A).conj()
        ddt = (dz * A.conj()).real
    else:
        dz = d_log / ((1 + z / 2) * (1 - z / 2)).conj() + d_phi * (dt / (2 * (1 - z / 2) ** 2)).conj()
        dA = dt * dz
        ddt = (dz * A.conj()).real + (d_phi / (1 - z / 2).conj()).real
    d_log_dt = (dt * ddt).sum(axis=0)
    decay = -numpy.exp(s.log_A_real.astype(float))
    gradients = d_log_dt, decay * dA.real.T, dA.imag.T, dC.real.T, dC.imag.T
    return tuple(numpy.ascontiguousarray(d).astype(s.log_dt.dtype, copy=False) for d in gradients)


def _model(log_dt, log_A_real, A_imag, C_re, C_im):
    """dt (c,), A and C (m, c)."""
    dt, decay = numpy.exp(log_dt.astype(float)), -numpy.exp(log_A_real.T.astype(float))
    return dt, decay + 1j * A_imag.T, C_re.T + 1j * C_im.T.astype(float)


def _discretised(dt, A, disc):
    """log lambda and phi."""
    z = dt * A
    if disc == "bilinear":
        return numpy.log((1 + z / 2) / (1 - z / 2)), dt / (1 - z / 2)
    # e^z - 1 without cancellation at small z
    real = numpy.expm1(z.real) * numpy.cos(z.imag) - 2 * numpy.sin(z.imag / 2) ** 2
    return z, (real + 1j * numpy.exp(z.real) * numpy.sin(z.imag)) / A


def _tables(log_power, length):
    """Powers i J and j, as (I, m, c) and (J, m, c) with I J >= length."""
    inner = math.isqrt(length - 1) + 1
    return _powers(inner * log_power, -(-length // inner)), _powers(log_power, inner)


def _powers(exponent, count):
    """exp(k exponent) for k < count, each product of at most log2(count) factors."""
    powers = empty((count, *exponent.shape), numpy.complex128)
    powers[0] = 1
    known = 1
    while known < count:
        more = min(known, count - known)
        numpy.multiply(powers[:more], numpy.exp(known * exponent), out=powers[known : known + more])
        known += more
    return powers


def _moments(dk, outer, inner):
    """P = 2 sum_l dk[l] conj(lambda^l) and Q = 2 sum_l l dk[l] conj(lambda^l), l = i J + j, first over j."""
    (I, _, c), J = outer.shape, len(inner)
    padded = zeros((I * J, c), dk.dtype)
    padded[: len(dk)] = 2 * dk
    weighted = numpy.arange(J)[:, None, None] * inner
    table = numpy.concatenate([part for t in (inner, weighted) for part in (t.real, -t.imag)], axis=1)
    sums = spatial.multiply(padded.reshape(1, I, J, c), table.astype(dk.dtype)[None])[0].astype(float)
    re, im, weighted_re, weighted_im = numpy.split(sums, 4, axis=1)
    powers, first = outer.conj(), J * numpy.arange(I)[:, None, None]
    zero, one = re + 1j * im, weighted_re + 1j * weighted_im
    return (powers * zero).sum(axis=0), (powers * (one + first * zero)).sum(axis=0)
