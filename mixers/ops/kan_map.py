"""Attention whose rows of logits go through any Kolmogorov-Arnold map, and the simplex projection."""

from mixers import _checks as check
from mixers.op import op
from mixers.ops.kan import BASES as BASE_FUNCTIONS
from mixers.ops.kan_edges import WAVELETS

MAP_BASES = ("fourier", "rational", "bspline", *WAVELETS)
OPERATORS = ("full", "w_phi", "phi_w", "phi_phi")
PROJECTIONS = ("none", "output", "hidden")

# arrays that the functions of a basis have, by their axes: fourier cos and sin, rational numerator and
# denominator, B-spline coefficients, wavelet weight, scale and translation
_ARRAYS = {"fourier": "iko iko", "rational": "iko iko", "bspline": "iko"}


@op(inputs="x", saves="y")
def simplex_projection(x):
    """The nearest point of the probability simplex, for each row: y >= 0 with sum 1.

    Parameters
    ----------
    x : array (..., n)

    Returns
    -------
    array (..., n)
        max(x - t, 0) with the t that makes the sum 1; dtype of x.

    Notes
    -----
    Backward: on the support S of y, dx = dy - mean over S of dy; 0 elsewhere. The output is saved. Cost:
    O(n) per round, and as many rounds as the support shrinks, usually below 10.
    Source: Held et al. 1974; Duchi et al. 2008, algorithm 1.

    Examples
    --------
    >>> import numpy
    >>> simplex_projection(numpy.array([[0.5, 0.9, -1.0]]))
    array([[0.3, 0.7, 0. ]])
    """
    if x.ndim < 1:
        raise ValueError("simplex_projection: x must have shape (..., n), got ()")


def _map_flops(q, phi, **_):
    b, n, h, d = q.shape
    return b * h * n * n * 4 * d + 2 * b * n * phi.size


@op(inputs="q k v", parameters="phi phi_2 phi_3 psi psi_2 psi_3 w", flops=_map_flops)
def kan_map_attention(
    q,
    k,
    v,
    phi,
    phi_2=None,
    phi_3=None,
    psi=None,
    psi_2=None,
    psi_3=None,
    w=None,
    *,
    basis="fourier",
    operator="w_phi",
    base="zero",
    projection="none",
    order=3,
    low=-1.0,
    high=1.0,
    scale=None,
):
    """Kolmogorov-Arnold attention of every form: S = map of the rows of scale q k^T, y = S v.

    A layer Phi takes a row a of i numbers to o: Phi(a)[p] = sum_j base(a[j]) + f_{jp}(a[j]). The map of a row is
    Phi(a), w Phi(a), Phi(w a) or Psi(Phi(a)).

    Parameters
    ----------
    q, k, v : array (b, n, h, d)
        h heads of width d.
    phi, phi_2, phi_3 : array
        Functions of Phi. "fourier": cosines and sines, both (h, i, g, o). "rational": numerators
        (h, i, m + 1, o) and denominators (h, i, m', o). "bspline": coefficients (h, i, g, o). Wavelets:
        weights, scales and translations, all (h, i, o).
    psi, psi_2, psi_3 : array, optional
        Those of Psi, with operator "phi_phi" only.
    w : array, optional
        (h, n, r) with operator "w_phi", (h, r, n) with "phi_w".
    basis : {"fourier", "rational", "bspline", "mexican_hat", "morlet", "dog", "meyer", "shannon"}
        As in :func:`kan_contract` and :func:`kan_edges`.
    operator : {"full", "w_phi", "phi_w", "phi_phi"}
        i and o of Phi are n and n; n and r; r and n; n and r, and those of Psi r and n.
    base : {"zero", "silu", "identity", "gelu"}
        Function added for every j, the same for every p.
    projection : {"none", "output", "hidden"}
        Simplex projection of nothing, of the rows of S, or, with "w_phi" only, of those of Phi.
    order : int
        Degree of the B-splines.
    low, high : float
        Ends of their even knots.
    scale : float, optional
        1 / sqrt(d) by default.

    Returns
    -------
    array (b, n, h, d)
        dtype of q.

    Raises
    ------
    ValueError
        If a shape disagrees, an array of the form is missing or superfluous, or an option is unknown.

    Notes
    -----
    Queries are handled in blocks, so that memory grows with n and not with n^2; the backward repeats the
    forward block by block and saves nothing. Logits stay in float32 for half types. :func:`kan_attention` is
    faster where it applies: "fourier", "w_phi", "none".
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 1, 2 and 5, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy
    >>> q, phi = numpy.ones((1, 5, 2, 4)), numpy.full((2, 5, 6, 5), 0.2)
    >>> kan_map_attention(q, q, q, phi, basis="bspline", operator="full").shape
    (1, 5, 2, 4)
    """
    f = "kan_map_attention"
    b, n, heads, d = check.shape(f, "q", q, b=None, n=None, h=None, d=None)
    for name, array in (("k", k), ("v", v)):
        check.shape(f, name, array, b=b, n=n, h=heads, d=d)
    check.choice(f, "basis", basis, MAP_BASES)
    check.choice(f, "operator", operator, OPERATORS)
    check.choice(f, "base", base, BASE_FUNCTIONS)
    check.choice(f, "projection", projection, PROJECTIONS)
    check.integer(f, "order", order, minimum=0)
    if check.number(f, "low", low) >= check.number(f, "high", high):
        raise ValueError(f"{f}: low must be < high, got {low} and {high}")
    if projection == "hidden" and operator != "w_phi":
        raise ValueError(f"{f}: projection 'hidden' needs operator 'w_phi', got {operator!r}")
    if scale is not None:
        check.number(f, "scale", scale)
    sizes = {"full": (n, n), "w_phi": (n, None), "phi_w": (None, n), "phi_phi": (n, None)}[operator]
    i, o = _check_layer(f, "phi", (phi, phi_2, phi_3), basis, heads, *sizes)
    rank = i if operator == "phi_w" else o
    second = ("psi", (psi, psi_2, psi_3))
    if operator == "phi_phi":
        _check_layer(f, *second, basis, heads, rank, n)
    elif any(a is not None for a in second[1]):
        raise ValueError(f"{f}: psi must not be given with operator={operator!r}")
    if operator in ("w_phi", "phi_w"):
        if w is None:
            raise ValueError(f"{f}: w must be given with operator={operator!r}")
        shape = {"n": n, "r": rank} if operator == "w_phi" else {"r": rank, "n": n}
        check.shape(f, "w", w, h=heads, **shape)
    elif w is not None:
        raise ValueError(f"{f}: w must not be given with operator={operator!r}")
    if basis == "bspline":
        for name, array in (("phi", phi), ("psi", psi)):
            if array is not None and array.shape[2] <= order:
                raise ValueError(f"{f}: {name} must have g > order = {order} functions, got {array.shape[2]}")


def _check_layer(function, name, arrays, basis, heads, i, o):
    """Check the arrays of one layer; returns its numbers of inputs and outputs."""
    wanted = _ARRAYS.get(basis, "io io io").split()
    for number, array in enumerate(arrays):
        label = name if number == 0 else f"{name}_{number + 1}"
        if (array is not None) != (number < len(wanted)):
            needs = "must be" if array is None else "must not be"
            raise ValueError(f"{function}: {label} {needs} given with basis={basis!r}")
        if array is None:
            continue
        sizes = (
            {"h": heads, "i": i, "g": None, "o": o} if "k" in wanted[number] else {"h": heads, "i": i, "o": o}
        )
        _, i, *_, o = check.shape(function, label, array, **sizes)
    if basis == "fourier":
        check.shape(function, f"{name}_2", arrays[1], h=heads, i=i, g=arrays[0].shape[2], o=o)
    return i, o
