"""Normalisations with statistics over tokens: batch norm and group norm."""

from mixers import _checks as check
from mixers.op import op


@op(
    inputs="x",
    parameters="scale bias mean var",
    outputs="y batch_mean batch_var",
    saves="centre rstd",
    flops=lambda x, **_: 8 * x.size,
)
def batch_norm(x, scale, bias, mean, var, *, eps=1e-5, training=False):
    """Batch norm per channel: y = (x - m) / sqrt(v + eps) scale + bias.

    Parameters
    ----------
    x : array (b, ..., c)
    scale, bias : array (c,)
    mean, var : array (c,)
        Running statistics: m and v unless training. They get no gradient.
    eps : float
        >= 0.
    training : bool
        Take m and v over batch and tokens of x (v biased), and return them.

    Returns
    -------
    y : array
        Shape and dtype of x.
    batch_mean, batch_var : array (c,)
        With training only; float32 (float64 for float64 x).

    Raises
    ------
    ValueError
        If a shape disagrees, eps < 0, or training without a single token.

    Notes
    -----
    Saved: `centre` = m and `rstd` = 1 / sqrt(v + eps), both (c,). With q = dy scale, n = (x - m) rstd:
    dx = q rstd, and with training dx = rstd (q - mean(q) - n mean(q n)), means over batch and tokens, plus
    (dbatch_mean + 2 (x - m) dbatch_var) / count.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy
    >>> one, zero = numpy.ones(1), numpy.zeros(1)
    >>> batch_norm(numpy.array([[[1.0], [3.0]]]), one, zero, zero, one, eps=0.0, training=True).y[0, :, 0]
    array([-1.,  1.])
    """
    f = "batch_norm"
    if x.ndim < 2:
        raise ValueError(f"{f}: x must have at least 2 axes (b, ..., c), got shape {tuple(x.shape)}")
    for name, array in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
        check.shape(f, name, array, c=x.shape[-1])
    check.number(f, "eps", eps, minimum=0.0)
    if check.boolean(f, "training", training) and x.size == 0:
        raise ValueError(f"{f}: x must have at least one token when training, got shape {tuple(x.shape)}")


@op(inputs="x", parameters="scale bias", saves="mean rstd", flops=lambda x, **_: 8 * x.size)
def group_norm(x, scale=None, bias=None, *, groups=1, eps=1e-5):
    """Group norm: statistics per batch item over all tokens and the channels of a group.

    groups = 1 is the sample norm; groups = c normalises each channel over the tokens (instance norm).

    Parameters
    ----------
    x : array (b, ..., c)
    scale, bias : array (c,), optional
    groups : int
        >= 1, divides c; groups are runs of c / groups neighbouring channels.
    eps : float
        >= 0, added to the biased variance.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, groups does not divide c, or eps < 0.

    Notes
    -----
    Saved: `mean` and `rstd`, (b, groups). The variance is that of the centred values. Backward as for layer
    norm with means over the group's tokens and channels.
    Source: Wu & He 2018, arXiv:1803.08494, eq. 1-7.

    Examples
    --------
    >>> import numpy
    >>> group_norm(numpy.array([[[1.0], [3.0]]]), eps=0.0)[0, :, 0]
    array([-1.,  1.])
    """
    f = "group_norm"
    if x.ndim < 2:
        raise ValueError(f"{f}: x must have at least 2 axes (b, ..., c), got shape {tuple(x.shape)}")
    c = x.shape[-1]
    for name, array in (("scale", scale), ("bias", bias)):
        if array is not None:
            check.shape(f, name, array, c=c)
    check.integer(f, "groups", groups, minimum=1)
    check.divides(f, "groups", groups, "c", c)
    check.number(f, "eps", eps, minimum=0.0)
