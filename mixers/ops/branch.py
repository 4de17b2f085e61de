"""Attention over the branches of a mixer."""

from mixers import _checks as check
from mixers.op import op


@op(
    inputs="z0 z1 z2",
    parameters="w_in w_out b_in b_out",
    saves="pooled hidden weights",
    flops=lambda z0, **_: 9 * z0.size,
)
def branch_attention(z0, z1, z2, w_in, w_out, b_in=None, b_out=None, *, pool="mean", order="fastest"):
    """Sum of three branches, weighed per image and channel by a small MLP of what they hold on the whole.

    a = sum of z0 + z1 + z2 over tokens, divided by their number with pool "mean"; o = gelu(a w_in + b_in) w_out +
    b_out; weights = softmax over the branches k of o, read as o[3 c + k] (order "fastest") or o[k C + c] ("slowest",
    C channels); y = sum_k weights[k] z_k.

    Parameters
    ----------
    z0, z1, z2 : arrays (b, ..., c)
        Of one shape.
    w_in : array (c, m)
    w_out : array (m, 3 c)
    b_in : array (m,), optional
    b_out : array (3 c,), optional
    pool : {"mean", "sum"}
        Over tokens; branches are summed in both cases.
    order : {"fastest", "slowest"}
        Place of the branch in the index of o.

    Returns
    -------
    array (b, ..., c)
        dtype of z0; sums, MLP and softmax of half types in float32.

    Raises
    ------
    ValueError
        If a shape disagrees or there is no such pool or order.

    Notes
    -----
    Saved, in the dtype that is computed in: `pooled` a (b, c), `hidden` a w_in + b_in (b, m), `weights` (b, 3, c).
    With e_k = sum over tokens of dy z_k: do_k = weights_k (e_k - sum_j weights_j e_j), through the MLP to da, and
    dz_k = weights_k dy + da (divided by the tokens with "mean"). Two passes over the branches each way.
    Source: Hou et al. 2021, arXiv:2106.12368, section 3.2; Yu et al. 2021, arXiv:2108.01072, eq. 5-8 (split attention).

    Examples
    --------
    >>> import numpy
    >>> z = [numpy.full((1, 2, 1), v) for v in (1.0, 2.0, 6.0)]
    >>> branch_attention(*z, numpy.zeros((1, 1)), numpy.zeros((1, 3)))[0, :, 0]
    array([3., 3.])
    """
    f = "branch_attention"
    if z0.ndim < 3:
        raise ValueError(f"{f}: z0 must have at least 3 axes (b, ..., c), got shape {tuple(z0.shape)}")
    for name, z in (("z1", z1), ("z2", z2)):
        if tuple(z.shape) != tuple(z0.shape):
            raise ValueError(f"{f}: {name} must have the shape of z0 {tuple(z0.shape)}, got {tuple(z.shape)}")
    c = z0.shape[-1]
    _, m = check.shape(f, "w_in", w_in, c=c, m=None)
    check.shape(f, "w_out", w_out, **{"m": m, "3 c": 3 * c})
    if b_in is not None:
        check.shape(f, "b_in", b_in, m=m)
    if b_out is not None:
        check.shape(f, "b_out", b_out, **{"3 c": 3 * c})
    check.choice(f, "pool", pool, ("mean", "sum"))
    check.choice(f, "order", order, ("fastest", "slowest"))
