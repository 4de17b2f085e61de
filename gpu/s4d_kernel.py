"""Kernels of diagonal state-space models on the GPU.

Token i J + j takes the power lambda^(i J) lambda^j, so that the kernel is a product of two tables of about
sqrt(length) powers each. The tables are computed in float64.
"""

import math

import numpy

from mixers.gpu import spatial
from mixers.gpu.device import device_of


def s4d_kernel_forward(log_dt, log_A_real, A_imag, C_re, C_im, length, disc="zoh", save=True):
    """k[i J + j] = sum over modes of Re(a) Re(b) - Im(a) Im(b), a = 2 C phi lambda^(i J), b = lambda^j."""
    device, wide = device_of(log_dt), log_A_real.dtype
    if not (length and A_imag.size):
        return device.zeros((length, len(log_dt)), log_dt.dtype), ()
    dt, A, C = _model(log_dt, log_A_real, A_imag, C_re, C_im)
    log_power, phi = _discretised(dt, A, disc)
    outer, inner = _tables(device, log_power, length)
    left, right = _parts(device, outer * (2 * C * phi), -1, wide), _parts(device, inner, 1, wide)
    k = spatial.multiply(left[None], device.contiguous(right.swapaxes(0, 1))[None])
    return k.reshape(-1, k.shape[-1])[:length].astype(log_dt.dtype), ()


def s4d_kernel_backward(dout, saved):
    """P and Q by the same product with the conjugate tables, then the chain rule."""
    s = saved
    device = device_of(dout)
    dt, A, C = _model(s.log_dt, s.log_A_real, s.A_imag, s.C_re, s.C_im)
    log_power, phi = _discretised(dt, A, s.disc)
    if s.length and A.size:
        P, Q = _moments(device, dout, *_tables(device, log_power, s.length), s.log_A_real.dtype)
    else:
        P, Q = (device.zeros(A.shape, A.dtype) for _ in range(2))
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
    decay = -numpy.exp(s.log_A_real.astype(numpy.float64))
    gradients = decay * dA.real.T, dA.imag.T, dC.real.T, dC.imag.T
    return d_log_dt.astype(s.log_dt.dtype), *(
        device.contiguous(d).astype(s.log_A_real.dtype) for d in gradients
    )


def _model(log_dt, log_A_real, A_imag, C_re, C_im):
    """dt (c,), A and C (m, c), in float64."""
    wide = (a.astype(numpy.float64) for a in (log_dt, log_A_real.T, A_imag.T, C_re.T, C_im.T))
    log_dt, log_A_real, A_imag, C_re, C_im = wide
    return numpy.exp(log_dt), A_imag * 1j - numpy.exp(log_A_real), C_re + 1j * C_im


def _discretised(dt, A, disc):
    """log lambda and phi."""
    z = dt * A
    if disc == "bilinear":
        return numpy.log((1 + z / 2) / (1 - z / 2)), dt / (1 - z / 2)
    # e^z - 1 without cancellation at small z
    a, b = z.real, z.imag
    real = numpy.expm1(a) * numpy.cos(b) - 2 * numpy.sin(b / 2) ** 2
    return z, (real + 1j * (numpy.exp(a) * numpy.sin(b))) / A


def _tables(device, log_power, length):
    """Powers i J and j, as (I, m, c) and (J, m, c) with I J >= length."""
    inner = math.isqrt(length - 1) + 1
    return _powers(device, inner * log_power, -(-length // inner)), _powers(device, log_power, inner)


def _powers(device, exponent, count):
    """exp(k exponent) for k < count, each product of at most log2(count) factors."""
    powers = device.empty((count, *exponent.shape), numpy.complex128)
    powers[0] = 1
    known = 1
    while known < count:
        more = min(known, count - known)
        powers[known : known + more] = powers[:more] * numpy.exp(known * exponent)
        known += more
    return powers


def _parts(device, table, sign, dtype):
    """Real parts, then imaginary parts times the sign, along the axis of the modes."""
    count, m, c = table.shape
    parts = device.empty((count, 2 * m, c), dtype)
    parts[:, :m], parts[:, m:] = table.real, table.imag * sign
    return parts


def _moments(device, dk, outer, inner, dtype):
    """P = 2 sum_l dk[l] conj(lambda^l) and Q = 2 sum_l l dk[l] conj(lambda^l), l = i J + j, first over j."""
    (rows, m, c), J = outer.shape, len(inner)
    padded = device.zeros((rows * J, c), dtype)
    padded[: len(dk)] = 2 * dk.astype(dtype)
    steps = device.to_device(numpy.arange(J, dtype=numpy.float64)[:, None, None])
    first = device.to_device(J * numpy.arange(rows, dtype=numpy.float64)[:, None, None])
    sums = (
        spatial.multiply(padded.reshape(1, rows, J, c), _parts(device, table, -1, dtype)[None])[0]
        for table in (inner, steps * inner)
    )
    zero, one = (s[:, :m].astype(numpy.float64) + 1j * s[:, m:].astype(numpy.float64) for s in sums)
    powers = outer.conj()
    return (powers * zero).sum(axis=0), (powers * (one + first * zero)).sum(axis=0)
