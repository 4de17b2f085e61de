"""Kolmogorov-Arnold layers whose edge functions have shapes of their own: wavelets and rational functions."""

import math

from mixers import _checks as check
from mixers.op import op
from mixers.ops.kan_layer import check_rows

WAVELETS = ("mexican_hat", "morlet", "dog", "meyer", "shannon")
EDGES = (*WAVELETS, "rational")


def _edges_flops(x, first, **_):
    return 20 * math.prod(x.shape) * first.shape[-1]


@op(inputs="x", parameters="first second third", flops=_edges_flops)
def kan_edges(x, first, second, third=None, *, function="mexican_hat"):
    """Sum functions whose shape, not only their coefficients, is learnt per edge.

    y[..., o] = sum_i f_{i, o}(x[..., i])

    Parameters
    ----------
    x : array (..., i)
    first, second, third : array
        Wavelets: weights w, scales s and translations t, all (i, o); f(x) = w psi((x - t) / s). Nothing
        guards against s = 0. "rational": numerators a (i, m + 1, o) from the constant up and denominators b
        (i, n, o) from the linear term up; f(x) = sum_j a_j x^j / (1 + abs(sum_j b_j x^j)).
    function : {"mexican_hat", "morlet", "dog", "meyer", "shannon", "rational"}
        psi(z) = 2 / (sqrt 3 pi^(1/4)) (z^2 - 1) e, cos(5 z) e, -z e with e = exp(-z^2 / 2); sin(pi v) times
        the Meyer window with v = abs(z); sin(z) / z times a Hamming window over the input i.

    Returns
    -------
    array (..., o)
        dtype of x.

    Raises
    ------
    ValueError
        If a shape disagrees or the function is unknown.

    Notes
    -----
    i o evaluations per row, forward and again backward, of 20 to 40 flops. Saved: the arguments.
    Source: Bozorgasl & Chen 2024, arXiv:2405.12832 (wavelets, signs as in its code); Yang & Wang 2024,
    arXiv:2409.10594 (rational functions).

    Examples
    --------
    >>> import numpy
    >>> one = numpy.ones((2, 3))
    >>> kan_edges(numpy.ones((4, 2)), one, one, one, function="dog").shape
    (4, 3)
    """
    f = "kan_edges"
    check.choice(f, "function", function, EDGES)
    if function == "rational":
        i, _, o = check.shape(f, "first", first, i=None, m=None, o=None)
        check.shape(f, "second", second, i=i, n=None, o=o)
        if third is not None:
            raise ValueError(f"{f}: third must not be given with function='rational'")
    else:
        i, o = check.shape(f, "first", first, i=None, o=None)
        check.shape(f, "second", second, i=i, o=o)
        if third is None:
            raise ValueError(f"{f}: third must be given with function={function!r}")
        check.shape(f, "third", third, i=i, o=o)
    check_rows(f, x, i)
