"""Pooling and MLP token mixers."""

import math
from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.registry import register


@register(
    "pool",
    paper="MetaFormer Is Actually What You Need for Vision",
    year=2022,
    arxiv="2111.11418",
    ranks=(1, 2),
    causal=False,
    cost="O(L C k)",
)
@dataclass(frozen=True)
class Pool(Mixer):
    """PoolFormer's token mixer: the mean over a window minus the token itself.

    Parameters
    ----------
    dim : int
        Channels.
    pool_size : int
        Window, odd, >= 1; 1 gives zeros.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). No parameters.
    Source: Yu et al. 2022, arXiv:2111.11418, eq. 4.
    """

    dim: int
    pool_size: int = 3

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.integer(self.name, "pool_size", self.pool_size, minimum=1, odd=True)

    def mix(self, p, x):
        return ops.avg_pool(x, size=self.pool_size, minus_identity=True)


@register(
    "mlp_mixer",
    paper="MLP-Mixer: An all-MLP Architecture for Vision",
    year=2021,
    arxiv="2105.01601",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L C hidden)",
)
@dataclass(frozen=True)
class MlpMixer(Mixer):
    """MLP-Mixer's token mixing: a two-layer MLP along the tokens, the same for every channel.

    y = w_out act(w_in x + b_in) + b_out, the products taken along the tokens.

    Parameters
    ----------
    dim : int
        Channels.
    grid : tuple of int
        (l,) or (h, w); the parameters are tied to the number of tokens, images are read row by row.
    hidden : int
        Width of the hidden layer; 256, 384 and 512 for 512, 768 and 1024 channels in the paper.
    activation : {"gelu", "gelu_tanh"}
        "gelu_tanh" is that of the official JAX code.
    bias : bool
        Whether both layers have a bias.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameters w_in (hidden, l), b_in (hidden,), w_out (l, hidden), b_out (l,);
    initialised as in timm, weights Xavier-uniform and biases N(0, 1e-6).
    4 l hidden flops per batch item and channel forward, twice that backward.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, eq. 1 without the norm and the skip.
    """

    dim: int
    grid: tuple
    hidden: int
    activation: str = "gelu"
    bias: bool = True

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid))
        check.integer(self.name, "hidden", self.hidden, minimum=1)
        check.choice(self.name, "activation", self.activation, ("gelu", "gelu_tanh"))
        check.boolean(self.name, "bias", self.bias)

    def accepts_grid(self, grid):
        return math.prod(grid) == math.prod(self.grid)

    def parameters(self):
        l, hidden = math.prod(self.grid), self.hidden
        weight, offset = initializers.xavier_uniform(l, hidden), initializers.normal(1e-6)
        specs = {
            "w_in": Parameter((hidden, l), weight),
            "b_in": Parameter((hidden,), offset),
            "w_out": Parameter((l, hidden), weight),
            "b_out": Parameter((l,), offset),
        }
        return {name: spec for name, spec in specs.items() if self.bias or name.startswith("w")}

    def mix(self, p, x):
        tokens = x.reshape(x.shape[0], math.prod(self.grid), self.dim)
        y = ops.token_mlp(tokens, p.w_in, p.w_out, p.b_in, p.b_out, activation=self.activation)
        return y.reshape(x.shape)
