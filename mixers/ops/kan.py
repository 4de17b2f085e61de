"""Kolmogorov-Arnold attention: a learnable map of each logit row in place of softmax."""

from mixers import _checks as check
from mixers.op import op

BASES = ("zero", "silu", "identity", "gelu")


def _kan_attention_flops(q, phi_cos, **_):
    b, n, h, d = q.shape
    g, r = phi_cos.shape[2:]
    return b * h * (n * n * (2 * d + 6 * g + 4 * g * r) + 4 * n * r * d)


@op(inputs="q k v", parameters="phi_cos phi_sin w_up", saves="z", flops=_kan_attention_flops)
def kan_attention(q, k, v, phi_cos, phi_sin, w_up, *, base="zero", scale=None):
    """Fourier Kolmogorov-Arnold attention in low-rank form, streaming over the keys.

    Per batch item and head, with logits a[i, j] = scale q[i] . k[j]:
    z[i, p] = sum_j base(a[i, j]) + sum_{j, m} cos(m a[i, j]) phi_cos[j, m - 1, p] + sin(m a[i, j]) phi_sin[j, m - 1, p]
    y[i] = sum_p z[i, p] (w_up^T v)[p].

    Parameters
    ----------
    q, k, v : array (b, n, h, d)
        h heads of width d.
    phi_cos, phi_sin : array (h, n, g, r)
        Coefficients of frequencies 1..g, rank r; tied to the number of keys n.
    w_up : array (h, n, r)
    base : {"zero", "silu", "identity", "gelu"}
        Base function added for every key and every p.
    scale : float, optional
        1 / sqrt(d) by default.

    Returns
    -------
    array (b, n, h, d)
        dtype of q.

    Raises
    ------
    ValueError
        If a shape disagrees or base is unknown.

    Notes
    -----
    Saved: `z` (b, h, n, r). No array of size n x n (x g) is formed: memory is linear in n. Logits stay in
    float32 for half types. Per head 2 n^2 d + n^2 (2 sincos + 6 g) + 4 g n^2 r + 4 n r d flops forward.
    Backward: dz = dy u^T and du = z^T dy with u = w_up^T v, then the logits again, tile by tile; that of phi and
    w_up is summed over the batch in a fixed order. An error of a logit is multiplied by the frequency; frequencies
    above 16 start from angles of their own, and logits far beyond 2 pi keep their phase.
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 2 and algorithm 1.

    Examples
    --------
    >>> import numpy
    >>> q, phi = numpy.ones((1, 5, 2, 4)), numpy.full((2, 5, 3, 1), 0.2)
    >>> kan_attention(q, q, q, phi, phi, numpy.ones((2, 5, 1))).shape
    (1, 5, 2, 4)
    """
    f = "kan_attention"
    b, n, heads, d = check.shape(f, "q", q, b=None, n=None, h=None, d=None)
    for name, array in (("k", k), ("v", v)):
        check.shape(f, name, array, b=b, n=n, h=heads, d=d)
    r = _check_functions(f, phi_cos, phi_sin, heads, n, base, scale)
    check.shape(f, "w_up", w_up, h=heads, n=n, r=r)


def _check_functions(f, phi_cos, phi_sin, heads, n, base, scale):
    """Check what the map of the logits is given by, and return its rank."""
    _, _, g, r = check.shape(f, "phi_cos", phi_cos, h=heads, n=n, g=None, r=None)
    check.shape(f, "phi_sin", phi_sin, h=heads, n=n, g=g, r=r)
    check.choice(f, "base", base, BASES)
    if scale is not None:
        check.number(f, "scale", scale)
    return r


def _kan_sums_flops(qk, phi_cos, **_):
    b, n, _, h, d = qk.shape
    g, r = phi_cos.shape[2:]
    return b * h * n * n * (2 * d + 6 * g + 4 * g * r)


@op(inputs="qk", parameters="phi_cos phi_sin", flops=_kan_sums_flops)
def kan_sums(qk, phi_cos, phi_sin, *, base="zero", scale=None):
    """The sums z of :func:`kan_attention`, by themselves: what its map of the logits is before w_up.

    Per batch item and head, with queries q and keys k side by side and logits a[i, j] = scale q[i] . k[j]:
    z[i, p] = sum_j base(a[i, j]) + sum_{j, m} cos(m a[i, j]) phi_cos[j, m - 1, p] + sin(m a[i, j]) phi_sin[j, m - 1, p]

    Parameters
    ----------
    qk : array (b, n, 2, h, d)
        Queries and keys of h heads of width d, as one linear map gives them.
    phi_cos, phi_sin : array (h, n, g, r)
        Coefficients of frequencies 1..g, rank r; tied to the number of keys n.
    base : {"zero", "silu", "identity", "gelu"}
        Base function added for every key and every p.
    scale : float, optional
        1 / sqrt(d) by default.

    Returns
    -------
    array (b, n, h, r)
        dtype of qk.

    Raises
    ------
    ValueError
        If a shape disagrees or base is unknown.

    Notes
    -----
    With :func:`low_rank_values` it gives the mixer in another order of its products. Memory, rounding and the
    backward are as in :func:`kan_attention`.
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 2 and algorithm 1.

    Examples
    --------
    >>> import numpy
    >>> phi = numpy.full((2, 5, 3, 1), 0.2)
    >>> kan_sums(numpy.ones((1, 5, 2, 2, 4)), phi, phi).shape
    (1, 5, 2, 1)
    """
    f = "kan_sums"
    _, n, _, heads, _ = check.shape(f, "qk", qk, b=None, n=None, **{"2": 2}, h=None, d=None)
    _check_functions(f, phi_cos, phi_sin, heads, n, base, scale)
