"""Depthwise convolutions of images that were rolled, each group of channels by its own distance."""

import numpy

from mixers import _checks as check
from mixers.op import op


def _flops(x, kernels, **_):
    return sum(4 * k * k * c for k, c in zip(kernels, group_sizes(x.shape[-1], len(kernels)))) * (
        x.size // max(x.shape[-1], 1)
    )


@op(inputs="x", parameters="w_lr w_td b", flops=_flops)
def rolled_conv2d(x, w_lr, w_td, b=None, *, shifts, kernels):
    """Depthwise convolutions of x rolled along its rows and along its columns, added up.

    Channels form groups of ceil(c / n), the last perhaps smaller. Of group j,
    y = conv(roll of x by s_j along the width; w_lr) + conv(roll of x by s_j along the height; w_td) + b, with kernels
    k_j x k_j. The roll wraps around, the convolution then pads with zeros.

    Parameters
    ----------
    x : array (b, h, w, c)
    w_lr, w_td : array (sum_j k_j^2 c_j,)
        Kernels (k_j, k_j, c_j) of the groups, flat and one after the other.
    b : array (c,), optional
    shifts : tuple of int
        s_j, positions towards larger indices, any size.
    kernels : tuple of int
        k_j, odd.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees, a kernel is even, there are not as many kernels as shifts, or a group would be empty.

    Notes
    -----
    dx is the sum of both convolutions of dy with the kernels flipped, each rolled back; dw as for any convolution, of
    the rolled x. 4 k_j^2 flops per element; one read, one write.
    Source: Zheng et al. 2022, arXiv:2202.06510, section 3.2 (mixing and shifting).

    Examples
    --------
    >>> import numpy
    >>> x = numpy.arange(6.0).reshape(1, 2, 3, 1)
    >>> rolled_conv2d(x, numpy.ones(1), numpy.zeros(1), shifts=(1,), kernels=(1,))[0, :, :, 0]
    array([[2., 0., 1.],
           [5., 3., 4.]])
    """
    f = "rolled_conv2d"
    c = check.shape(f, "x", x, b=None, h=None, w=None, c=None)[-1]
    for name, values in (("shifts", shifts), ("kernels", kernels)):
        if not isinstance(values, tuple) or not values:
            raise ValueError(f"{f}: {name} must be a tuple of at least one integer, got {values!r}")
        for value in values:
            options = {"minimum": 1, "odd": True} if name == "kernels" else {}
            check.integer(f, f"each of {name}", value, **options)
    if len(kernels) != len(shifts):
        raise ValueError(f"{f}: kernels must be as many as shifts = {len(shifts)}, got {len(kernels)}")
    sizes = group_sizes(c, len(shifts))
    if len(sizes) != len(shifts):
        raise ValueError(f"{f}: x must have channels for {len(shifts)} groups, got shape {tuple(x.shape)}")
    size = sum(k * k * n for k, n in zip(kernels, sizes))
    for name, w in (("w_lr", w_lr), ("w_td", w_td)):
        check.shape(f, name, w, size=size)
    if b is not None:
        check.shape(f, "b", b, c=c)


def group_sizes(c, groups):
    """Channels of each group: ceil(c / groups), the last perhaps fewer; fewer groups if there are not enough.

    >>> group_sizes(7, 3), group_sizes(6, 5)
    ([3, 3, 1], [2, 2, 2])
    """
    size = max(-(-c // groups), 1)
    return numpy.diff([*range(0, c, size), c]).tolist()
