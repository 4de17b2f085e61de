"""Bands of frequencies: runs of coefficients in the order of rising frequency."""

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
    array (b, c, bands)
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
    array([[[0.5, 2.5]]])
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
    gain : array (b, c, bands)
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
    >>> band_scale(numpy.ones((1, 4, 1)), numpy.array([[[2.0, 3.0]]]))[0, :, 0]
    array([2., 2., 3., 3.])
    """
    f = "band_scale"
    check.rank(f, "x", x, (3, 4))
    *_, k = check.shape(f, "gain", gain, b=x.shape[0], c=x.shape[-1], k=None)
    _bands(f, x, k)


def _bands(function, x, bands):
    n = x[0, ..., 0].size if x.shape[0] and x.shape[-1] else bands
    if not 1 <= bands <= n:
        raise ValueError(
            f"{function}: there must be at most as many bands as coefficients ({n}), and one at least, got {bands}"
        )
