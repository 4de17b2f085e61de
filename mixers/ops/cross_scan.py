"""The selective scan along several orders of the tokens at once."""

import numpy

from mixers import _checks as check
from mixers.op import op


@op(
    inputs="u delta B C",
    parameters="A D delta_bias",
    saves="states",
    flops=lambda u, A, orders, **_: len(orders) * u.size * (9 * A.shape[2] + 12),
)
def cross_selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    delta_bias=None,
    *,
    orders,
    delta_softplus=False,
    ordered_coefficients=True,
):
    """The sum of selective scans of u along k orders of its tokens, each with coefficients of its own.

    y = s[0] + ... + s[k-1];  s[i] is :data:`selective_scan` of u in the order orders[i], with the steps
    delta[:, :, i] and A[i], B[:, :, i], C[:, :, i], D[i], delta_bias[i]. All arrays stay in storage order.

    Parameters
    ----------
    u : array (b, l, c)
    delta : array (b, l, k, c)
        Steps. Of this and of all further arrays the axis k may be 1: then the directions share it.
    A : array (k, c, n)
        Decay rates, real, normally < 0.
    B, C : array (b, l, k, n)
    D, delta_bias : array (k, c), optional
    orders : integer array (k, l)
        Rows are permutations: direction i visits tokens orders[i, 0], orders[i, 1], ... A NumPy array on every
        backend; see :mod:`mixers.orders`.
    delta_softplus : bool
    ordered_coefficients : bool
        True: a token is visited with its own delta, B and C. False: the t-th visited token takes those of token t
        in storage order; u and y still follow the order.

    Returns
    -------
    array (b, l, c)
        dtype of u; the sum over the directions is rounded once.

    Raises
    ------
    ValueError
        If a shape disagrees, or a row of orders is no permutation.
    TypeError
        If an array is not of a float type, or orders holds no integers.

    Notes
    -----
    Saved: `states` (k, b, ceil(l / 16), n, c), the state before every 16th visited token of each direction; the rest
    is recomputed in the backward. Nothing is permuted: a worker carries all directions of its channels and adds to
    y, or to du, where the tokens lie. A GPU that a small batch does not fill runs several directions at once, each with
    sums of its own. The gradient of an array that the directions share is the sum of theirs. k l c (9 n + 12) flops
    and k l c (n + 1) exponentials per batch item forward; on the CPU l c (n + 1) with delta, A and delta_bias shared
    and coefficients that do not follow the orders.
    Source: Liu et al. 2024, arXiv:2401.10166, section 4.2 (cross-scan and cross-merge); Yang et al. 2024,
    arXiv:2403.17695, whose code leaves the coefficients in storage order.

    Examples
    --------
    >>> import numpy
    >>> u, one = numpy.ones((1, 3, 1)), numpy.ones((1, 3, 1, 1))
    >>> orders = numpy.array([[0, 1, 2], [2, 1, 0]])
    >>> cross_selective_scan(u, one, numpy.zeros((1, 1, 1)), one, one, orders=orders)[0, :, 0]
    array([4., 4., 4.])
    """
    f = "cross_selective_scan"
    batch, l, c = check.shape(f, "u", u, b=None, l=None, c=None)
    k = _directions(f, orders, l)
    _, _, n = _shared(f, "A", A, k=k, c=c, n=None)
    _shared(f, "delta", delta, b=batch, l=l, k=k, c=c)
    for name, array in (("B", B), ("C", C)):
        _shared(f, name, array, b=batch, l=l, k=k, n=n)
    for name, array in (("D", D), ("delta_bias", delta_bias)):
        if array is not None:
            _shared(f, name, array, k=k, c=c)
    check.boolean(f, "delta_softplus", delta_softplus)
    check.boolean(f, "ordered_coefficients", ordered_coefficients)


def _directions(function, orders, l):
    """Check the orders and return their number."""
    if not isinstance(orders, numpy.ndarray) or orders.dtype.kind not in "iu":
        raise TypeError(
            f"{function}: orders must be a NumPy array of integers, got {getattr(orders, 'dtype', orders)!r}"
        )
    if orders.ndim != 2 or orders.shape[1] != l or not len(orders):
        raise ValueError(
            f"{function}: orders must have shape (k, l) with k >= 1, l = {l}, got {orders.shape}"
        )
    if (numpy.sort(orders, axis=1) != numpy.arange(l)).any():
        raise ValueError(f"{function}: each row of orders must be a permutation of 0..{l - 1}")
    return len(orders)


def _shared(function, name, array, **sizes):
    """Check a shape whose axis k may also be 1."""
    axis = list(sizes).index("k")
    if array.ndim == len(sizes) and array.shape[axis] == 1:
        sizes["k"] = 1
    return check.shape(function, name, array, **sizes)
