"""Normalisations over channels."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x", parameters="scale bias", saves="mean rstd")
def layer_norm(x, scale=None, bias=None, *, eps=1e-5):
    """Layer norm over the last axis: y = (x - mean) rstd scale + bias, rstd = 1 / sqrt(var + eps).

    Parameters
    ----------
    x : array (..., c)
        float32 or float64; float16 and bfloat16 with float32 statistics.
    scale, bias : array (c,), optional
    eps : float
        >= 0, added to the biased variance.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If scale or bias does not have shape (c,), or eps < 0.

    Notes
    -----
    Saved: `mean` and `rstd`, shape x.shape[:-1]. With q = dy scale and n the normalised x,
    dx = rstd (q - mean(q) - n mean(q n)). About 8 flops per element, one read and one write forward.
    Source: Ba et al. 2016, arXiv:1607.06450, eq. 3-4.

    Examples
    --------
    >>> import numpy
    >>> layer_norm(numpy.array([[1.0, 3.0]]), eps=0.0)
    array([[-1.,  1.]])
    """
    _norm("layer_norm", x, scale, bias, eps)


@op(inputs="x", parameters="scale", saves="rstd")
def rms_norm(x, scale=None, *, eps=1e-5):
    """Root-mean-square norm over the last axis: y = x rstd scale, rstd = 1 / sqrt(mean(x^2) + eps).

    Parameters
    ----------
    x : array (..., c)
    scale : array (c,), optional
    eps : float
        >= 0.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If scale does not have shape (c,), or eps < 0.

    Notes
    -----
    Saved: `rstd`, shape x.shape[:-1]. With q = dy scale and n = x rstd, dx = rstd (q - n mean(q n)).
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    _norm("rms_norm", x, scale, None, eps)


def _norm(function, x, scale, bias, eps):
    if x.ndim < 1:
        raise ValueError(f"{function}: x must have at least 1 axis, got shape {tuple(x.shape)}")
    c = x.shape[-1]
    if scale is not None:
        check.shape(function, "scale", scale, c=c)
    if bias is not None:
        check.shape(function, "bias", bias, c=c)
    check.number(function, "eps", eps, minimum=0.0)
