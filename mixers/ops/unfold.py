"""Windows of an image as rows of channels."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x")
def unfold2d(x, *, size, stride=1, padding=0):
    """All square windows of an image, each laid out along the channels.

    y[b, p, q, (i size + j) c + ch] = x[b, p stride + i - padding, q stride + j - padding, ch], zero outside.

    Parameters
    ----------
    x : array (b, h, w, c)
    size : int
        Side of the window, >= 1.
    stride : int
        >= 1.
    padding : int
        Rows and columns of zeros on each side, >= 0.

    Returns
    -------
    array (b, ho, wo, size^2 c)
        ho = (h + 2 padding - size) // stride + 1, wo likewise; dtype of x.

    Raises
    ------
    ValueError
        If the window is larger than the padded image.

    Notes
    -----
    Writes size^2 / stride^2 times the input. Backward: each pixel sums the gradients of the windows it is in.
    Source: Chellapilla et al. 2006, section 2.

    Examples
    --------
    >>> import numpy
    >>> unfold2d(numpy.arange(9.0).reshape(1, 3, 3, 1), size=2)[0, 0, 0]
    array([0., 1., 3., 4.])
    """
    f = "unfold2d"
    _, h, w, _ = check.shape(f, "x", x, b=None, h=None, w=None, c=None)
    check.integer(f, "size", size, minimum=1)
    check.integer(f, "stride", stride, minimum=1)
    check.integer(f, "padding", padding, minimum=0)
    if min(h, w) + 2 * padding < size:
        raise ValueError(
            f"{f}: size must be at most the padded image {(h + 2 * padding, w + 2 * padding)}, got {size}"
        )
