"""Matrix products over the two axes of images."""

from mixers import _checks as check
from mixers.op import op


@op(inputs="x z", flops=lambda x, z, **_: 2 * x.size * z.shape[2])
def spatial_matmul(x, z):
    """Multiply images like matrices, channel by channel: y[h, w] = sum_m x[h, m] z[m, w].

    Parameters
    ----------
    x : array (b, h, m, c)
    z : array (b, m, w, c)

    Returns
    -------
    array (b, h, w, c)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees.

    Notes
    -----
    dx[h, m] = sum_w dy[h, w] z[m, w], dz[m, w] = sum_h dy[h, w] x[h, m]. 2 b h m w c flops.
    Source: Zhang 2024, arXiv:2401.17948.

    Examples
    --------
    >>> import numpy
    >>> x = numpy.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    >>> spatial_matmul(x, x)[0, :, :, 0]
    array([[ 7., 10.],
           [15., 22.]])
    """
    f = "spatial_matmul"
    b, _, m, c = check.shape(f, "x", x, b=None, h=None, m=None, c=None)
    check.shape(f, "z", z, b=b, m=m, w=None, c=c)
