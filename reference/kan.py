"""Kolmogorov-Arnold attention in NumPy."""

import numpy
from scipy import special


def kan_attention_forward(q, k, v, phi_cos, phi_sin, w_up, base="zero", scale=None, save=True):
    """The rows of the logits through the Fourier functions and down to rank r, then U = w_up^T V.

    y[i] = sum_p z[i, p] u[p],   u[p] = sum_j w_up[j, p] v[j]
    """
    z = _sums(logits(q, k, scale), phi_cos, phi_sin, base)
    return numpy.einsum("bhip,bhpd->bihd", z, _project(w_up, v)), (z,)


def kan_attention_backward(dout, saved):
    """The chain in reverse; the logits are computed again.

    y = z u          ->  dz = dy u^T,  du = z^T dy
    u = w_up^T v     ->  dw_up = v du^T (summed over the batch),  dv = w_up du
    """
    v, w_up = saved.v, saved.w_up
    dz = numpy.einsum("bihd,bhpd->bhip", dout, _project(w_up, v))
    du = numpy.einsum("bhip,bihd->bhpd", saved.z, dout)
    dq, dk, dphi_cos, dphi_sin = _pull_sums(saved.q, saved.k, saved, dz)
    return (
        dq,
        dk,
        numpy.einsum("hjp,bhpd->bjhd", w_up, du),
        dphi_cos,
        dphi_sin,
        numpy.einsum("bjhd,bhpd->hjp", v, du),
    )


def kan_sums_forward(qk, phi_cos, phi_sin, base="zero", scale=None, save=True):
    """z alone, tokens before heads."""
    a = logits(qk[:, :, 0], qk[:, :, 1], scale)
    return _sums(a, phi_cos, phi_sin, base).swapaxes(1, 2), ()


def kan_sums_backward(dout, saved):
    """As in :func:`kan_attention_backward`, from dz on."""
    dz = dout.swapaxes(1, 2)
    dq, dk, *dphi = _pull_sums(saved.qk[:, :, 0], saved.qk[:, :, 1], saved, dz)
    return numpy.stack([dq, dk], axis=2), *dphi


def _sums(a, phi_cos, phi_sin, base):
    """z (b, h, n, r) of logits a (b, h, n, n).

    z[i, p] = sum_j base(a[i, j]) + sum_{j, m} cos(m a[i, j]) phi_cos[j, m - 1, p]
                                              + sin(m a[i, j]) phi_sin[j, m - 1, p]
    """
    z = numpy.zeros((*a.shape[:3], phi_cos.shape[3]), a.dtype)
    for m, cosine, sine in _frequencies(a, phi_cos.shape[2]):
        z += cosine @ phi_cos[:, :, m - 1] + sine @ phi_sin[:, :, m - 1]
    return z + BASES[base][0](a).sum(axis=3, keepdims=True)


def _pull_sums(q, k, saved, dz):
    """dq, dk, dphi_cos, dphi_sin from the gradient of z.

    z from a and phi, with e_cos[i, j] = sum_p dz[i, p] phi_cos[j, m - 1, p], e_sin likewise:
        dphi_cos[j, m - 1] = sum_{b, i} cos(m a[i, j]) dz[i],  dphi_sin with sin
        da[i, j] = sum_m m (cos(m a) e_sin - sin(m a) e_cos) + base'(a[i, j]) sum_p dz[i, p]
    a = scale q k^T          ->  dq = scale da k,  dk = scale da^T q
    """
    phi_cos, phi_sin = saved.phi_cos, saved.phi_sin
    a = logits(q, k, saved.scale)
    da = BASES[saved.base][1](a) * dz.sum(axis=3, keepdims=True)
    dphi_cos, dphi_sin = numpy.zeros_like(phi_cos), numpy.zeros_like(phi_sin)
    for m, cosine, sine in _frequencies(a, phi_cos.shape[2]):
        dphi_cos[:, :, m - 1] = (cosine.swapaxes(2, 3) @ dz).sum(axis=0)
        dphi_sin[:, :, m - 1] = (sine.swapaxes(2, 3) @ dz).sum(axis=0)
        e_cos = dz @ phi_cos[:, :, m - 1].swapaxes(1, 2)
        e_sin = dz @ phi_sin[:, :, m - 1].swapaxes(1, 2)
        da += m * (cosine * e_sin - sine * e_cos)
    da *= scale_of(q, saved.scale)
    dq, dk = numpy.einsum("bhij,bjhd->bihd", da, k), numpy.einsum("bhij,bihd->bjhd", da, q)
    return dq, dk, dphi_cos, dphi_sin


def scale_of(q, scale):
    return q.shape[3] ** -0.5 if scale is None else float(scale)


def logits(q, k, scale):
    """a (b, h, n, n), query by key."""
    return numpy.einsum("bihd,bjhd->bhij", q, k) * scale_of(q, scale)


def _project(w_up, v):
    """u (b, h, r, d)."""
    return numpy.einsum("hjp,bjhd->bhpd", w_up, v)


def _frequencies(a, count):
    """m, cos(m a) and sin(m a) for m = 1..count, each from its own argument: no recurrence."""
    for m in range(1, count + 1):
        yield m, numpy.cos(m * a), numpy.sin(m * a)


def _silu_slope(a):
    s = special.expit(a)
    return s * (1.0 + a * (1.0 - s))


def _gelu_slope(a):
    return special.ndtr(a) + a * numpy.exp(-0.5 * a * a) / float(numpy.sqrt(2.0 * numpy.pi))


# base function and its derivative
BASES = {
    "zero": (numpy.zeros_like, numpy.zeros_like),
    "silu": (lambda a: a * special.expit(a), _silu_slope),
    "identity": (lambda a: a, numpy.ones_like),
    "gelu": (lambda a: a * special.ndtr(a), _gelu_slope),
}
