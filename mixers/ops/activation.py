"""Activations with parameters or with a second factor."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x", parameters="scale bias", flops=lambda x, **_: 4 * x.size)
def star_relu(x, scale=None, bias=None):
    """StarReLU: y = s max(x, 0)^2 + t; without scale and bias the squared ReLU.

    Parameters
    ----------
    x : array of any shape
    scale, bias : array (1,), optional
        s and t, 1 and 0 by default.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If scale or bias is not of shape (1,).

    Notes
    -----
    With r = max(x, 0): dx = 2 s r dy, ds = sum dy r^2, dt = sum dy, the sums in a fixed order. The derivative at 0
    is 0; NaN stays NaN. Reads and writes each element once.
    Source: Yu et al. 2022, arXiv:2210.13452, eq. 4; the squared ReLU is that of So et al. 2021, arXiv:2109.08668.

    Examples
    --------
    >>> import numpy
    >>> star_relu(numpy.array([-1.0, 2.0]), numpy.array([0.5]), numpy.array([1.0]))
    array([1., 3.])
    """
    for name, array in (("scale", scale), ("bias", bias)):
        if array is not None:
            check.shape("star_relu", name, array, **{"1": 1})


GATES = ("gelu", "silu", "sigmoid", "none")


@op(inputs="x z", flops=lambda x, **_: 2 * x.size)
def gate(x, z, *, activation="gelu"):
    """Gate: y = act(x) z, without act(x) in memory.

    Parameters
    ----------
    x, z : arrays (..., c)
        Of the same shape. Slices along the last axis of a wider array are read in place.
    activation : {"gelu", "silu", "sigmoid", "none"}
        "none" is the plain product.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If the shapes differ or the activation is unknown.

    Notes
    -----
    dx = dy z act'(x), dz = dy act(x); nothing is saved. Two reads and a write forward, three and two backward.
    Source: Dauphin et al. 2017, arXiv:1612.08083, eq. 1 (sigmoid); Shazeer 2020, arXiv:2002.05202, eq. 5.

    Examples
    --------
    >>> import numpy
    >>> gate(numpy.array([0.0, 1.0]), numpy.array([2.0, 2.0]), activation="sigmoid").round(3)
    array([1.   , 1.462])
    """
    if tuple(z.shape) != tuple(x.shape):
        raise ValueError(f"gate: z must have the shape {tuple(x.shape)} of x, got {tuple(z.shape)}")
    check.choice("gate", "activation", activation, GATES)
