"""Kolmogorov-Arnold attention: one chunk of everything, then several of tokens, channels, ranks, frequencies."""

import numpy
from harness import Case

from mixers import ops

from . import op_case


def _case(name, b, n, h, d, g, r, dtypes=None, **options):
    small = lambda shape: lambda rng: rng.standard_normal(shape) / numpy.sqrt(n * g)
    phi = {"phi_cos": small((h, n, g, r)), "phi_sin": small((h, n, g, r)), "w_up": small((h, n, r))}
    heads = dict.fromkeys(("q", "k", "v"), (b, n, h, d))
    op_case("kan.cu", ops.kan_attention, Case(name, {**heads, **phi}, options), dtypes)


_case("plain", 2, 9, 2, 5, 3, 12)
_case("chunks", 1, 70, 1, 68, 5, 13, base="silu", scale=0.05)
_case("identity", 1, 3, 2, 4, 1, 4, base="identity", dtypes=("float32",))
_case("gelu", 1, 3, 2, 4, 2, 8, base="gelu", dtypes=("float32",))
