"""The Hyena operator."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import constant, split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.long_conv.filters import decays, positions, sine_network, sine_network_parameters

_ACTIVATIONS = {"id": lambda v: v, "gelu": ops.gelu, "silu": ops.silu}


@register(
    "hyena",
    paper="Hyena Hierarchy: Towards Larger Convolutional Language Models",
    year=2023,
    arxiv="2302.10866",
    ranks=(1,),
    causal=True,
    grid_tied=True,
    cost="O(order L C (C + log L))",
)
@dataclass(frozen=True)
class Hyena(Mixer):
    """Hyena operator: long convolutions with generated filters, between elementwise gates.

    x_0, ..., x_{order-1}, v = short_conv(x w_in + b_in);  v <- h_s * (v x_{order-1-s}) + D_s (v x_{order-1-s})
    for s = 0 .. order - 2;  y = act(v x_0) w_out + b_out. The filters h come from a small network with sine
    activations on a table of positions, times an exponential window.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int,)
        Longest sequence, the rows of the table of positions. Shorter inputs use its beginning.
    order : int
        Gates, >= 2; there are order - 1 long convolutions.
    filter_order : int
        Width f of the filter network.
    emb_dim : int
        Features e of a position, odd, >= 3; language models use 33.
    num_inner_mlps : int
        Hidden layers of width f, >= 0.
    short_filter_order : int
        Taps k of the short convolution, >= 1.
    w : float
        Initial frequency of the sine layers; 10 to 14 in language models.
    modulate : bool
        Multiply the filters by exp(-t |delta|) + shift, t in [0, 1] the position.
    fast_decay_pct, slow_decay_pct, target : float
        The windows fall to target, in (0, 1), after these fractions (> 0) of the longest sequence: the last
        channel after the fast, the first after the slow one.
    shift : float
        Floor of the windows.
    normalized : bool
        Divide the filters of a position by the sum of their absolute values.
    filter_bias : bool
        Use D; without it its gradient is zero.
    activation : {"id", "gelu", "silu"}
        After the last gate.

    Raises
    ------
    ValueError
        If an option is out of its range, or x has more tokens than grid says.

    Notes
    -----
    x is (b, l, c); causal. Parameters: w_in (c, (order + 1) c), b_in; w_short (k, (order + 1) c), b_short;
    pos_emb (grid, e); w_filter_i, b_filter_i for i = 0 .. num_inner_mlps, w_filter_out (f, order - 1, c);
    freq (f,), shared by all sine layers; D (order - 1, c); w_out (c, c), b_out. The filters are computed at
    least in float32. pos_emb is trained (the authors: learning rate 1e-5).
    Not here: several heads or blocks, an inner factor, outer mixing, a feed-forward after the orders.
    About 2 l c^2 (order + 2) flops for the linears and 10 l log2(2 l) c (order - 1) for the convolutions
    per batch item.
    Source: Poli et al. 2023, arXiv:2302.10866, section 3; HyenaOperator of the authors' safari repository,
    whose order of the filter's output channels differs from that of their standalone file.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("hyena", dim=8, grid=(32,), filter_order=16)
    >>> mixer(mixer.init(0), numpy.ones((1, 20, 8), "float32")).shape
    (1, 20, 8)
    """

    dim: int
    grid: tuple = (1024,)
    order: int = 2
    filter_order: int = 64
    emb_dim: int = 3
    num_inner_mlps: int = 2
    short_filter_order: int = 3
    w: float = 1.0
    modulate: bool = True
    fast_decay_pct: float = 0.3
    slow_decay_pct: float = 1.5
    target: float = 1e-2
    shift: float = 0.0
    normalized: bool = False
    filter_bias: bool = True
    activation: str = "id"

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(f, self.grid, ranks=(1,)))
        check.integer(f, "order", self.order, minimum=2)
        check.integer(f, "filter_order", self.filter_order, minimum=1)
        check.integer(f, "emb_dim", self.emb_dim, minimum=3, odd=True)
        check.integer(f, "num_inner_mlps", self.num_inner_mlps, minimum=0)
        check.integer(f, "short_filter_order", self.short_filter_order, minimum=1)
        check.number(f, "w", self.w)
        check.number(f, "fast_decay_pct", self.fast_decay_pct, above=0)
        check.number(f, "slow_decay_pct", self.slow_decay_pct, above=0)
        check.number(f, "target", self.target, above=0, below=1)
        check.number(f, "shift", self.shift)
        check.boolean(f, "modulate", self.modulate)
        check.boolean(f, "normalized", self.normalized)
        check.boolean(f, "filter_bias", self.filter_bias)
        check.choice(f, "activation", self.activation, tuple(_ACTIVATIONS))

    def accepts_grid(self, grid):
        return grid[0] <= self.grid[0]

    def parameters(self):
        c, f, k, wide = self.dim, self.filter_order, self.short_filter_order, (self.order + 1) * self.dim
        as_torch = initializers.fan_in_uniform
        return {
            "w_in": Parameter((c, wide), as_torch(c)),
            "b_in": Parameter((wide,), as_torch(c)),
            "w_short": Parameter((k, wide), as_torch(k)),
            "b_short": Parameter((wide,), as_torch(k)),
            "pos_emb": Parameter(
                (*self.grid, self.emb_dim), initializers.table(positions(*self.grid, self.emb_dim))
            ),
            **sine_network_parameters(self, self.emb_dim),
            "freq": Parameter((f,), initializers.constant(self.w)),
            "D": Parameter((self.order - 1, c), initializers.normal()),
            "w_out": Parameter((c, c), as_torch(c)),
            "b_out": Parameter((c,), as_torch(c)),
        }

    def mix(self, p, x):
        projected = ops.linear(x, p.w_in, p.b_in)
        short = ops.causal_conv1d(projected, p.w_short, p.b_short, activation="none")
        *gates, v = split(short, [self.dim] * (self.order + 1))
        for s, h in enumerate(self.filters(p, x.shape[1])):
            D = p.D[s] if self.filter_bias else None
            v = ops.long_conv1d(v * gates[self.order - 1 - s], h, D)
        y = _ACTIVATIONS[self.activation](v * gates[0])
        return ops.linear(y, p.w_out, p.b_out)

    def filters(self, p, length):
        """The filters h_s of the long convolutions in order, (length, c) each."""
        h = sine_network(self, p, p.pos_emb[:length])
        if self.modulate:
            h = h * self._window(length, like=h)
        if self.normalized:
            h = h / ops.absolute(h).sum(axis=1, keepdims=True)
        return split(h, [self.dim] * (self.order - 1))

    def _window(self, length, like):
        """exp(-t |delta|) + shift, (length, (order - 1) c); the decays rise with the channel, then with s."""
        count = self.order - 1
        deltas = decays(count * self.dim, self.slow_decay_pct, self.fast_decay_pct, self.target)
        deltas = deltas.reshape(self.dim, count).T.reshape(-1)
        t = numpy.arange(length)[:, None] / max(self.grid[0] - 1, 1)
        exponents = constant(t, like) * constant(-numpy.abs(deltas), like)
        return ops.exp(exponents) + self.shift
