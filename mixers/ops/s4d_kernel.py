"""Convolution kernels of diagonal state-space models."""

from mixers import _checks as check
from mixers.op import op


def _flops(A_imag, length, **_):
    return 8 * A_imag.size * length


@op(inputs="log_dt", parameters="log_A_real A_imag C_re C_im", outputs="k", flops=_flops)
def s4d_kernel(log_dt, log_A_real, A_imag, C_re, C_im, *, length, disc="zoh"):
    """The convolution kernel of a diagonal state-space model with B = 1.

    k[l, c] = 2 Re sum_n C_n phi_n lambda_n^l, n = 0 .. m - 1, with A = -exp(log_A_real) + i A_imag, dt = exp(log_dt),
    z = dt A and

    zoh:       lambda = e^z,                        phi = (e^z - 1) / A
    bilinear:  lambda = (1 + z / 2) / (1 - z / 2),  phi = dt / (1 - z / 2)

    Parameters
    ----------
    log_dt : array (c,)
        Logarithm of the step.
    log_A_real, A_imag : array (c, m)
        The modes. Each stands for a conjugate pair, hence the factor 2.
    C_re, C_im : array (c, m)
    length : int
        Tokens of the kernel, >= 0.
    disc : {"zoh", "bilinear"}
        Discretisation.

    Returns
    -------
    array (length, c)
        dtype of log_dt.

    Raises
    ------
    ValueError
        If a shape disagrees or an option is out of its range.

    Notes
    -----
    With P = 2 sum_l dk[l] conj(lambda^l) and Q = 2 sum_l l dk[l] conj(lambda^l), conj(C phi) Q is the gradient of
    log lambda, conj(phi) P that of C and conj(C) P that of phi; from there by the chain rule.
    Powers are exponentials in float64, so that phases do not drift; (c, m, length) values are never held at once.
    8 c m flops per token.
    Source: Gu et al. 2022, arXiv:2206.11893, section 3; S4DKernel of the authors' s4 repository.

    Examples
    --------
    >>> import numpy
    >>> one = numpy.ones((1, 1))
    >>> s4d_kernel(0 * one[0], 0 * one, 0 * one, one / 2, 0 * one, length=3)[:, 0].round(4)
    array([0.6321, 0.2325, 0.0855])
    """
    f = "s4d_kernel"
    c, m = check.shape(f, "log_A_real", log_A_real, c=None, m=None)
    check.shape(f, "log_dt", log_dt, c=c)
    for name, array in (("A_imag", A_imag), ("C_re", C_re), ("C_im", C_im)):
        check.shape(f, name, array, c=c, m=m)
    check.integer(f, "length", length, minimum=0)
    check.choice(f, "disc", disc, ("zoh", "bilinear"))
