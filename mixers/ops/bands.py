"""Bands of frequencies: runs of coefficients in the order of rising frequency, and weights for them."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x")
def band_mean(x, *, bands):
    """Mean over each band of coefficients.

    The n coefficients of a grid in zigzag order (of a sequence: as they come) are cut into runs; band k holds those
    with floor(k n / bands) <= place < floor((k + 1) n / bands).

    Parameters
    ----------
    x : array (b, l, c) or (b, h, w, c)
        Coefficients, for instance of :data:`dct`.
    bands : int
        1 <= bands <= n.

    Returns
    -------
    array (b, bands, c)
        dtype of x.

    Raises
    ------
    ValueError
        If there are fewer coefficients than bands.

    Notes
    -----
    The zigzag is that of JPEG: along the antidiagonals i + j = s, with i rising if s is odd and falling if it is even.
    The gradient spreads dy / (size of the band) over the band. One flop per value.
    Source: the band selector of Hu & Yu 2023, arXiv:2309.06721.

    Examples
    --------
    >>> import numpy
    >>> band_mean(numpy.arange(4.0).reshape(1, 4, 1), bands=2)
    array([[[0.5],
            [2.5]]])
    """
    f = "band_mean"
    check.rank(f, "x", x, (3, 4))
    _bands(f, x, check.integer(f, "bands", bands, minimum=1))


@op(inputs="x", parameters="gain")
def band_scale(x, gain):
    """Multiply each band of coefficients by a gain.

    Parameters
    ----------
    x : array (b, l, c) or (b, h, w, c)
    gain : array (b, bands, c)
        For the bands of :func:`band_mean`.

    Returns
    -------
    array of the shape of x
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees or there are fewer coefficients than bands.

    Notes
    -----
    dx = gain[band] dy; dgain is the sum of x dy over each band. One flop per value.

    Examples
    --------
    >>> import numpy
    >>> band_scale(numpy.ones((1, 4, 1)), numpy.array([[[2.0], [3.0]]]))[0, :, 0]
    array([2., 2., 3., 3.])
    """
    f = "band_scale"
    check.rank(f, "x", x, (3, 4))
    _, k, _ = check.shape(f, "gain", gain, b=x.shape[0], k=None, c=x.shape[-1])
    _bands(f, x, k)


@op(
    inputs="z",
    parameters="scale bias w1 w2 b1 b2",
    flops=lambda z, w1, **_: z.size * (4 * w1.shape[1] + 10) + 10 * z.size // max(len(w1), 1) * w1.shape[1],
)
def band_weights(z, scale, bias, w1, w2, b1=None, b2=None, *, eps=1e-5):
    """Weights of bands, chosen by what they hold: y = softmax(gelu(norm(z) w1 + b1) w2 + b2) for every channel.

    Norm, products and softmax run over the bands: norm is a layer norm with `scale` and `bias`, and one small network
    serves all channels.

    Parameters
    ----------
    z : array (b, k, c)
        As of :data:`band_mean`.
    scale, bias : array (k,)
    w1 : array (k, v)
    w2 : array (v, k)
    b1 : array (v,), optional
    b2 : array (k,), optional
    eps : float
        >= 0, added to the biased variance.

    Returns
    -------
    array (b, k, c)
        dtype of z; positive, with sum 1 over the bands.

    Raises
    ------
    ValueError
        If a shape disagrees, there is no band, or eps < 0.

    Notes
    -----
    Nothing is saved: the backward computes the small network again. With n the normalised z and h the hidden values:
    do = y (dy - sum over k of y dy), dh = gelu'(h) (w2 do), dn = scale (w1 dh),
    dz = rstd (dn - mean(dn) - n mean(dn n)).
    About 4 v flops per value and 10 v per channel.
    Source: the selector of Hu & Yu 2023, arXiv:2309.06721, section 3.2.

    Examples
    --------
    >>> import numpy
    >>> one = numpy.ones(2)
    >>> band_weights(numpy.ones((1, 2, 1)), one, one, numpy.zeros((2, 3)), numpy.zeros((3, 2)))[0, :, 0]
    array([0.5, 0.5])
    """
    f = "band_weights"
    _, k, _ = check.shape(f, "z", z, b=None, k=None, c=None)
    if k < 1:
        raise ValueError(f"{f}: z must have at least one band, got shape {tuple(z.shape)}")
    check.shape(f, "scale", scale, k=k)
    check.shape(f, "bias", bias, k=k)
    _, v = check.shape(f, "w1", w1, k=k, v=None)
    check.shape(f, "w2", w2, v=v, k=k)
    if b1 is not None:
        check.shape(f, "b1", b1, v=v)
    if b2 is not None:
        check.shape(f, "b2", b2, k=k)
    check.number(f, "eps", eps, minimum=0.0)


def _bands(function, x, bands):
    n = x[0, ..., 0].size if x.shape[0] and x.shape[-1] else bands
    if not 1 <= bands <= n:
        raise ValueError(
            f"{function}: there must be at most as many bands as coefficients ({n}), and one at least, got {bands}"
        )
