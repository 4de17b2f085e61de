"""Complex networks that act on each frequency of a spectrum."""

from mixers import _checks as check
from mixers.op import op


def _flops(re, w1_re, **_):
    return 16 * re.size * w1_re.shape[2]


@op(
    inputs="re im",
    parameters="w1_re w1_im b1_re b1_im w2_re w2_im b2_re b2_im",
    outputs="z_re z_im",
    flops=_flops,
)
def block_complex_mlp(re, im, w1_re, w1_im, b1_re, b1_im, w2_re, w2_im, b2_re, b2_im, *, threshold=0.0):
    """A complex layer, ReLU, another layer and soft shrinkage, for each block of channels on its own.

    z = S(relu(X w1 + b1) w2 + b2), X = re + i im and likewise the weights; relu and
    S(a) = sign(a) max(|a| - threshold, 0) act on real and imaginary parts separately.

    Parameters
    ----------
    re, im : array (b, ..., c)
        Channels in n blocks of d = c / n.
    w1_re, w1_im : array (n, d, e)
    b1_re, b1_im : array (n, e)
    w2_re, w2_im : array (n, e, d)
    b2_re, b2_im : array (n, d)
    threshold : float
        >= 0.

    Returns
    -------
    z_re, z_im : array (b, ..., c)
        z_re has the dtype of re, z_im is float32 or float64: convert half types to float32 before.

    Raises
    ------
    ValueError
        If a shape disagrees or the threshold is negative.

    Notes
    -----
    With the cotangent D of v = relu(u) w2 + b2 (that of z where |v| exceeds the threshold, else zero):
    dw2 = sum conj(relu(u)) D, db2 = sum D, du = D conj(w2)^T where u > 0, dw1 = sum conj(X) du, db1 = sum du,
    dX = du conj(w1)^T; all nonlinearities by parts, with derivative zero at their kinks. u and v are computed again.
    16 c e flops per position.
    Source: Guibas et al. 2022, arXiv:2111.13587, section 4.

    Examples
    --------
    >>> import numpy
    >>> one, zero = numpy.ones((1, 1, 1)), numpy.zeros((1, 1, 1))
    >>> weights = one, zero, zero[0], zero[0], one, zero, zero[0], zero[0]
    >>> z = block_complex_mlp(3 * one, -one, *weights, threshold=0.5)
    >>> z.z_re.item(), z.z_im.item()
    (2.5, 0.0)
    """
    f = "block_complex_mlp"
    if re.ndim < 2:
        raise ValueError(f"{f}: re must have at least 2 axes, got shape {tuple(re.shape)}")
    if im.shape != re.shape:
        raise ValueError(f"{f}: im must have the shape of re {tuple(re.shape)}, got {tuple(im.shape)}")
    n, d, e = check.shape(f, "w1_re", w1_re, n=None, d=None, e=None)
    if n * d != re.shape[-1]:
        raise ValueError(f"{f}: w1_re must have n d = {re.shape[-1]}, the channels of re, got {n} * {d}")
    check.shape(f, "w1_im", w1_im, n=n, d=d, e=e)
    for name, bias in (("b1_re", b1_re), ("b1_im", b1_im)):
        check.shape(f, name, bias, n=n, e=e)
    for name, weight in (("w2_re", w2_re), ("w2_im", w2_im)):
        check.shape(f, name, weight, n=n, e=e, d=d)
    for name, bias in (("b2_re", b2_re), ("b2_im", b2_im)):
        check.shape(f, name, bias, n=n, d=d)
    check.number(f, "threshold", threshold, minimum=0)
