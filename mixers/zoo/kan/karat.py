"""Kolmogorov-Arnold attention: a learnable map of each row of logits in place of softmax."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.ops.kan import BASES
from mixers.ops.kan_map import MAP_BASES, OPERATORS, PROJECTIONS
from mixers.registry import register
from mixers.zoo.kan.layers import check_range

_PAPER = {
    "paper": "Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?",
    "year": 2025,
    "arxiv": "2503.10632",
    "ranks": (1,),
    "causal": False,
    "grid_tied": True,
}


@register("karat", cost="O(L^2 (C + h g o)), o = r or L", **_PAPER)
@dataclass(frozen=True)
class Karat(Mixer):
    """Kolmogorov-Arnold attention with any of the paper's bases, operators and projections.

    In place of softmax a learnable map acts on each row a of n logits. A layer Phi from i to o numbers is
    Phi(a)[p] = sum_j base(a[j]) + f_{jp}(a[j]) with a function f of every edge.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int,)
        Number of tokens n, to which the map is tied; flatten images, class token included.
    num_heads : int
        h, divides dim.
    rank : int
        r >= 1, without use in operator "full".
    grid_size : int
        g >= 1: the frequencies 1..g, or the intervals of B-splines; the paper has 3 for small models and 1 for
        Base.
    base : {"zero", "silu", "identity", "gelu"}
        Function added for every j, the same for every p.
    qkv_bias : bool
    mode : {"blockwise", "universal"}
        Whether several blocks own their maps (all of phi, phi2, w_up and w_down) or share one.
    blocks : int
        1: y = mix(x). More: x <- x + mix_i(x) for each block i, without norms and MLPs; the names of
        a block's own parameters end in _i.
    coef_init : {"scaled_normal", "unit_normal"}
        Standard deviation of the coefficients at the start: 1 / sqrt(i g), which keeps the size of the
        outputs, or 1, as the paper's table 6 says. Weights of wavelets have 1.
    basis : {"fourier", "rational", "bspline", "mexican_hat", "morlet", "dog", "meyer", "shannon"}
        Kind of the functions f.
    operator : {"w_phi", "full", "phi_w", "phi_phi"}
        Map of a row: w_up Phi(a) with Phi from n to r; Phi(a); Phi(w_down a) with Phi from r to n; or
        Phi2(Phi(a)), from n to r to n.
    projection : {"none", "output", "hidden"}
        Simplex projection of nothing, of each row of the map, or of Phi(a) before w_up.
    spline_order : int
        Degree k >= 0 of B-splines.
    grid_range : (float, float)
        Ends of their intervals. Logits outside the knots contribute the base function alone.
    rational_order : (int, int)
        Degrees (m, n) of numerator and denominator.

    Raises
    ------
    ValueError
        If an option is out of its range, or projection is "hidden" without operator "w_phi".

    Notes
    -----
    x is (b, n, c). Not causal; no masks. Rows of the map are neither positive nor normalised.
    Parameters: w_qkv (c, 3 c) with columns q, k, v and heads slow inside each, b_qkv (3 c,);
    w_out (c, c), b_out (c,); phi_cos, phi_sin (h, i, g, o), or phi_num (h, i, m + 1, o) and phi_den (h, i, n, o),
    or phi_coef (h, i, g + k, o), or phi_weight, phi_scale, phi_translation (h, i, o); the same for
    Phi2 as phi2_cos and so on; w_up (h, n, r), w_down (h, r, n).
    Nothing of size n x n is formed: see :func:`mixers.ops.kan_attention` and
    :func:`mixers.ops.kan_map_attention`. A Fourier map of rank r, with r (h n + c) < n (c + r), is applied without
    forming the values: see :func:`mixers.ops.low_rank_values`. Logits stay in float32 for half types.
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 1, 2 and 5, algorithms 1 and 2; no code of the
    authors is public. The equations are followed: no scale per edge, no bias in the map.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("karat", dim=8, grid=(16,), num_heads=2, operator="full", basis="bspline")
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
    spline_order: int = 3
    grid_range: tuple = (-1.0, 1.0)
    rational_order: tuple = (5, 4)

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
        check.choice(self.name, "basis", self.basis, MAP_BASES)
        check.choice(self.name, "operator", self.operator, OPERATORS)
        check.choice(self.name, "projection", self.projection, PROJECTIONS)
        if self.projection == "hidden" and self.operator != "w_phi":
            raise ValueError(
                f"{self.name}: projection 'hidden' needs operator 'w_phi', got {self.operator!r}"
            )
        check.integer(self.name, "spline_order", self.spline_order, minimum=0)
        object.__setattr__(self, "grid_range", check_range(self.name, "grid_range", self.grid_range))
        orders = check.pair(self.name, "rational_order", self.rational_order, minimum=0)
        object.__setattr__(self, "rational_order", orders)

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
        maps = {name: p[f"{name}{shared}"] for name in self._map_parameters()}
        linears = p[f"w_qkv{own}"], p.get(f"b_qkv{own}"), p[f"w_out{own}"], p[f"b_out{own}"]
        if self._streams() and self._is_narrow(n, c):
            return self._attend_narrow(x, *linears, **maps)
        w_qkv, b_qkv, w_out, b_out = linears
        heads = ops.linear(x, w_qkv, b_qkv).reshape(b, n, 3 * self.num_heads, c // self.num_heads)
        y = self._attend_heads(maps, *split(heads, [self.num_heads] * 3, axis=2))
        return ops.linear(y.reshape(b, n, c), w_out, b_out)

    def _streams(self):
        """Whether the map has an op of its own."""
        return (self.basis, self.operator, self.projection) == ("fourier", "w_phi", "none")

    def _is_narrow(self, n, c):
        """Whether sums over tokens first, then the linear maps of what is left, take fewer products."""
        return self.rank * (self.num_heads * n + c) < n * (c + self.rank)

    def _attend_narrow(self, x, w_qkv, b_qkv, w_out, b_out, phi_cos, phi_sin, w_up):
        """Without values and outputs of the heads: linear maps of tokens only where rows of logits come from."""
        (b, n, c), h = x.shape, self.num_heads
        w_qk, w_v = split(w_qkv, [2 * c, c], axis=1)
        b_qk, b_v = (None, None) if b_qkv is None else split(b_qkv, [2 * c, c], axis=0)
        qk = ops.linear(x, w_qk, b_qk).reshape(b, n, 2, h, c // h)
        z = ops.kan_sums(qk, phi_cos, phi_sin, base=self.base)
        return ops.low_rank_values(z, x, w_up, w_v, w_out, b_v, b_out)

    def _attend_heads(self, maps, q, k, v):
        if self._streams():
            return ops.kan_attention(q, k, v, *maps.values(), base=self.base)
        names = {kind: [f"{kind}{number}" for number in ("", "_2", "_3")] for kind in ("phi", "psi")}
        arrays = dict(zip(names["phi"], (a for n, a in maps.items() if n.startswith("phi_"))))
        arrays |= dict(zip(names["psi"], (a for n, a in maps.items() if n.startswith("phi2_"))))
        w = maps.get("w_up" if self.operator == "w_phi" else "w_down")
        low, high = self.grid_range
        forms = {"basis": self.basis, "operator": self.operator, "projection": self.projection}
        return ops.kan_map_attention(
            q, k, v, **arrays, w=w, **forms, base=self.base, order=self.spline_order, low=low, high=high
        )

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
        h, n, r = self.num_heads, self.grid[0], self.rank
        weight = initializers.truncated_normal(0.02)
        if self.operator == "full":
            return self._layer_parameters("phi", n, n)
        if self.operator == "phi_w":
            return self._layer_parameters("phi", r, n) | {"w_down": Parameter((h, r, n), weight)}
        specs = self._layer_parameters("phi", n, r)
        if self.operator == "phi_phi":
            return specs | self._layer_parameters("phi2", r, n)
        return specs | {"w_up": Parameter((h, n, r), weight)}

    def _layer_parameters(self, name, i, o):
        """Functions of a layer from i to o numbers, for every head."""
        h, g = self.num_heads, self.grid_size
        sizes = {"cos": g, "sin": g}
        if self.basis == "rational":
            sizes = {"num": self.rational_order[0] + 1, "den": self.rational_order[1]}
        elif self.basis == "bspline":
            sizes = {"coef": g + self.spline_order}
        elif self.basis != "fourier":
            laws = {"weight": initializers.normal(1.0), "scale": initializers.ones}
            laws["translation"] = initializers.zeros
            return {f"{name}_{part}": Parameter((h, i, o), law) for part, law in laws.items()}
        return {
            f"{name}_{part}": Parameter((h, i, size, o), self._coefficients(i * size))
            for part, size in sizes.items()
        }

    def _coefficients(self, terms):
        std = 1.0 if self.coef_init == "unit_normal" else max(terms, 1) ** -0.5
        return initializers.normal(std)


@register("fourier_karat", cost="O(L^2 (C + h g r))", **_PAPER)
@dataclass(frozen=True)
class FourierKarat(Karat):
    """Kolmogorov-Arnold attention with Fourier functions in low-rank form: the modular Fourier-KArAt.

    :class:`Karat` with basis "fourier" and operator "w_phi": functions
    f[j, p](a) = sum_m phi_cos[j, m, p] cos(m a) + phi_sin[j, m, p] sin(m a) of every logit take the row
    of n to r values, and a linear map w_up takes these back to n weights of the values.

    Parameters
    ----------
    dim, grid, num_heads, rank, grid_size, base, qkv_bias, mode, blocks, coef_init, projection
        As in :class:`Karat`.
    basis, operator : str
        "fourier" and "w_phi".
    spline_order, grid_range, rational_order
        Without use here.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    Parameters: w_qkv (c, 3 c) with columns q, k, v and heads slow inside each, b_qkv (3 c,);
    phi_cos, phi_sin (h, n, g, r); w_up (h, n, r); w_out (c, c), b_out (c,).
    Source: Maity et al. 2025, arXiv:2503.10632, eq. 1, 2 and 5, algorithms 1 and 2.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("fourier_karat", dim=8, grid=(16,), num_heads=2, rank=4)
    >>> mixer(mixer.init(0), numpy.ones((1, 16, 8), "float32")).shape
    (1, 16, 8)
    """

    def __post_init__(self):
        super().__post_init__()
        check.choice(self.name, "basis", self.basis, ("fourier",))
        check.choice(self.name, "operator", self.operator, ("w_phi",))
