"""Kolmogorov-Arnold mixers."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.ops.kan import BASES
from mixers.registry import register


@register(
    "fourier_karat",
    paper="Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?",
    year=2025,
    arxiv="2503.10632",
    ranks=(1,),
    causal=False,
    cost="O(L^2 (C + h g r))",
    grid_tied=True,
)
@dataclass(frozen=True)
class FourierKarat(Mixer):
    """Kolmogorov-Arnold attention with Fourier functions in low-rank form.

    In place of softmax a learnable map acts on each row of logits: functions
    f[j, p](a) = sum_m phi_cos[j, m, p] cos(m a) + phi_sin[j, m, p] sin(m a) of every logit take the row
    of n to r values, and a linear map w_up takes these back to n weights of the values.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int,)
        Number of tokens n, to which the map is tied; flatten images, class token included.
    num_heads : int
        h, divides dim.
    rank : int
        r >= 1.
    grid_size : int
        g >= 1, the frequencies are 1..g; the paper has 3 for small models and 1 for Base.
    base : {"zero", "silu", "identity", "gelu"}
        Function added for every key.
    qkv_bias : bool
    mode : {"blockwise", "universal"}
        Whether several blocks own their maps (phi_cos, phi_sin, w_up) or share one.
    blocks : int
        1: y = mix(x). More: x <- x + mix_i(x) for each block i, without norms and MLPs; the names of
        a block's own parameters end in _i.
    coef_init : {"scaled_normal", "unit_normal"}
        Standard deviation of phi at the start: 1 / sqrt(n g), which keeps the size of the outputs, or 1,
        as the paper's table 6 says.
    basis, operator, projection : str
        "fourier", "w_phi" and "none" for this mixer.

    Raises
    ------
    ValueError
        If an option is out of its range.
    NotImplementedError
        If basis, operator or projection is one of the paper's others.

    Notes
    -----
    x is (b, n, c). Not causal; no masks. Rows of the map are neither positive nor normalised.
    Parameters: w_qkv (c, 3 c) with columns q, k, v and heads slow inside each, b_qkv (3 c,);
    phi_cos, phi_sin (h, n, g, r); w_up (h, n, r); w_out (c, c), b_out (c,).
    The n x n map is never formed: see :func:`mixers.ops.kan_attention`.
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 1, 2 and 5, algorithms 1 and 2; no code of the
    authors is public. The equations are followed: no scale per edge, no bias in the map.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("fourier_karat", dim=8, grid=(16,), num_heads=2, rank=4)
    >>> mixer(mixer.init(0), numpy.ones((1, 16, 8), "float32")).shape
    (1, 16, 8)
    """

    dim: int
    grid: tuple
    num_heads: int
    rank: int = 12
    grid_size: int = 3
    base: str = "zero"
    qkv_bias: bool = True
    mode: str = "blockwise"
    blocks: int = 1
    coef_init: str = "scaled_normal"
    basis: str = "fourier"
    operator: str = "w_phi"
    projection: str = "none"

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(1,)))
        for option in ("num_heads", "rank", "grid_size", "blocks"):
            check.integer(self.name, option, getattr(self, option), minimum=1)
        check.divides(self.name, "num_heads", self.num_heads, "dim", self.dim)
        check.choice(self.name, "base", self.base, BASES)
        check.boolean(self.name, "qkv_bias", self.qkv_bias)
        check.choice(self.name, "mode", self.mode, ("blockwise", "universal"))
        check.choice(self.name, "coef_init", self.coef_init, ("scaled_normal", "unit_normal"))
        _check_form(self.name, "basis", self.basis, _BASES_OF_PAPER)
        _check_form(self.name, "operator", self.operator, ("w_phi", "full", "phi_w", "phi_phi"))
        _check_form(self.name, "projection", self.projection, ("none", "output", "hidden"))

    def parameters(self):
        specs = {}
        for block in range(self.blocks):
            own, shared = self._suffixes(block)
            specs |= {f"{name}{own}": spec for name, spec in self._linear_parameters().items()}
            specs |= {f"{name}{shared}": spec for name, spec in self._map_parameters().items()}
        return specs

    def mix(self, p, x):
        if self.blocks == 1:
            return self._attend(p, x)
        for block in range(self.blocks):
            x = x + self._attend(p, x, block)
        return x

    def _attend(self, p, x, block=0):
        """Attention with the learnable map in place of softmax."""
        b, n, c = x.shape
        own, shared = self._suffixes(block)
        qkv = ops.linear(x, p[f"w_qkv{own}"], p.get(f"b_qkv{own}"))
        heads = qkv.reshape(b, n, 3 * self.num_heads, c // self.num_heads)
        q, k, v = split(heads, [self.num_heads] * 3, axis=2)
        phi_cos, phi_sin, w_up = (p[f"{name}{shared}"] for name in self._map_parameters())
        y = ops.kan_attention(q, k, v, phi_cos, phi_sin, w_up, base=self.base)
        return ops.linear(y.reshape(b, n, c), p[f"w_out{own}"], p[f"b_out{own}"])

    def _suffixes(self, block):
        """Endings of the names of a block's linears and of its map."""
        own = f"_{block}" if self.blocks > 1 else ""
        return own, own if self.mode == "blockwise" else ""

    def _linear_parameters(self):
        c = self.dim
        weight = initializers.truncated_normal(0.02)
        specs = {"w_qkv": Parameter((c, 3 * c), weight)}
        if self.qkv_bias:
            specs["b_qkv"] = Parameter((3 * c,), initializers.zeros)
        specs["w_out"] = Parameter((c, c), weight)
        specs["b_out"] = Parameter((c,), initializers.zeros)
        return specs

    def _map_parameters(self):
        h, n, g, r = self.num_heads, self.grid[0], self.grid_size, self.rank
        std = 1.0 if self.coef_init == "unit_normal" else (n * g) ** -0.5
        return {
            "phi_cos": Parameter((h, n, g, r), initializers.normal(std)),
            "phi_sin": Parameter((h, n, g, r), initializers.normal(std)),
            "w_up": Parameter((h, n, r), initializers.truncated_normal(0.02)),
        }


_BASES_OF_PAPER = (
    "fourier",
    "rational",
    "bspline",
    "mexican_hat",
    "morlet",
    "dog",
    "meyer",
    "shannon",
)


def _check_form(function, name, value, forms):
    """Check an option whose first form is the one that is implemented."""
    if check.choice(function, name, value, forms) != forms[0]:
        raise NotImplementedError(f"{function}: {name} must be {forms[0]!r}, got {value!r}")
