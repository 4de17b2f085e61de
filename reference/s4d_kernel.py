"""Kernels of diagonal state-space models in NumPy, in float64 throughout: phases grow with the length."""

import numpy


def s4d_kernel_forward(log_dt, log_A_real, A_imag, C_re, C_im, length, disc="zoh", save=True):
    """k[l] = 2 Re sum_n C_n phi_n lambda_n^l, token by token."""
    dt, A, C = _model(log_dt, log_A_real, A_imag, C_re, C_im)
    log_power, phi = _discretised(dt, A, disc)
    k = numpy.empty((length, len(log_dt)), log_dt.dtype)
    for l in range(length):
        k[l] = 2 * (C * phi * numpy.exp(l * log_power)).sum(axis=1).real
    return k, ()


def s4d_kernel_backward(dout, saved):
    """The chain rule in complex numbers: D of f(z) gives D conj(f'(z)) to z, D of z = a b gives D conj(b) to a.

    First the sum over n, then phi and log lambda as functions of z = dt A (zoh: phi = (e^z - 1) / A), then z.
    """
    s = saved
    dt, A, C = _model(s.log_dt, s.log_A_real, s.A_imag, s.C_re, s.C_im)
    log_power, phi = _discretised(dt, A, s.disc)
    P, Q = numpy.zeros_like(A), numpy.zeros_like(A)
    for l, d in enumerate(dout):
        moment = 2 * d[:, None] * numpy.exp(l * log_power).conj()
        P += moment
        Q += l * moment
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
    d_log_dt = (dt * ddt).sum(axis=1)
    gradients = d_log_dt, -numpy.exp(s.log_A_real) * dA.real, dA.imag, dC.real, dC.imag
    return tuple(d.astype(s.log_dt.dtype) for d in gradients)


def _model(log_dt, log_A_real, A_imag, C_re, C_im):
    """dt (c, 1), A and C (c, m)."""
    log_dt, log_A_real = log_dt.astype(float), log_A_real.astype(float)
    return numpy.exp(log_dt)[:, None], -numpy.exp(log_A_real) + 1j * A_imag, C_re + 1j * C_im.astype(float)


def _discretised(dt, A, disc):
    """log lambda and phi."""
    z = dt * A
    if disc == "bilinear":
        return numpy.log((1 + z / 2) / (1 - z / 2)), dt / (1 - z / 2)
    # e^z - 1 without cancellation at small z
    a, b = z.real, z.imag
    real = numpy.expm1(a) * numpy.cos(b) - 2 * numpy.sin(b / 2) ** 2
    return z, (real + 1j * numpy.exp(a) * numpy.sin(b)) / A
