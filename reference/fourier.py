"""Fourier transforms in NumPy: the sums as products with matrices of cosines and sines."""

import numpy


def fourier_real_forward(x, save=True):
    """y = C_l x C_c - S_l x S_c, the real part of (C_l - i S_l) x (C_c - i S_c)."""
    _, l, c = x.shape
    tokens, channels = _matrix(l, x.dtype), _matrix(c, x.dtype)
    return tokens.real @ x @ channels.real - tokens.imag @ x @ channels.imag, ()


def fourier_real_backward(dout, saved):
    """C and S are symmetric, so the map is its own adjoint."""
    return (fourier_real_forward(dout)[0],)


def rfft_forward(x, rows=None, columns=None, save=True):
    """X = F_h x F_w^T / sqrt(h w), restricted to the frequencies asked for."""
    F_rows, F_columns = _transforms(x.shape[1:-1], rows, columns, x.dtype)
    X = numpy.einsum("kq,b...qc->b...kc", F_columns, x)
    if x.ndim == 4:
        X = numpy.einsum("ip,bpkc->bikc", F_rows, X)
    return (X.real.copy(), X.imag.copy()), ()


def rfft_backward(dout, saved):
    """The transpose: the cotangent A + i B of X = F x gives Re(conj(F)^T (A + i B)) to a real x."""
    x = saved.x
    F_rows, F_columns = _transforms(x.shape[1:-1], saved.rows, saved.columns, x.dtype)
    D = sum(factor * d for factor, d in zip((1, 1j), dout) if d is not None)
    return (_adjoint(D, F_rows, F_columns),)


def irfft_forward(re, im, grid, rows=None, save=True):
    """x = Re(F^H n X): the adjoint of rfft, with every column counted as often as it occurs in the spectrum."""
    F_rows, F_columns = _transforms(grid, rows, re.shape[-2], re.dtype)
    return _adjoint(_uses(grid[-1])[: re.shape[-2], None] * (re + 1j * im), F_rows, F_columns), ()


def irfft_backward(dout, saved):
    """n F dx, its real part for re and its imaginary part for im."""
    D, _ = rfft_forward(dout, saved.rows, saved.re.shape[-2])
    uses = _uses(dout.shape[-2])[: saved.re.shape[-2], None]
    return tuple((uses * d).astype(dout.dtype) for d in D)


def _adjoint(D, F_rows, F_columns):
    if D.ndim == 4:
        D = numpy.einsum("ip,bikc->bpkc", F_rows.conj(), D)
    x = numpy.einsum("kq,b...kc->b...qc", F_columns.conj(), D).real
    return x.astype(F_columns.real.dtype)


def _transforms(grid, rows, columns, dtype):
    """The orthonormal matrices of both axes, the rows of the frequencies asked for; None for a missing axis."""
    *h, w = grid
    F_columns = (_matrix(w, dtype) / numpy.sqrt(w))[: w // 2 + 1 if columns is None else columns]
    if not h:
        return None, F_columns.astype(_complex(dtype))
    F_rows = _matrix(h[0], dtype) / numpy.sqrt(h[0])
    return F_rows[slice(*rows or (None,))].astype(_complex(dtype)), F_columns.astype(_complex(dtype))


def _matrix(n, dtype):
    """exp(-2 pi i j k / n); reducing j k by the period first keeps the argument exact."""
    k = numpy.arange(n)
    return numpy.exp(-2j * numpy.pi * (numpy.outer(k, k) % max(n, 1)) / max(n, 1)).astype(_complex(dtype))


def _complex(dtype):
    return numpy.result_type(dtype, numpy.complex64)


def _uses(w):
    """How many frequencies of the whole spectrum each one of the half spectrum stands for."""
    k = numpy.arange(w // 2 + 1)
    return numpy.where((k == 0) | (2 * k == w), 1, 2)
