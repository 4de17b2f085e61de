"""Mixers over all tokens at once, and pooling."""

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


@register(
    "res_mlp",
    paper="ResMLP: Feedforward networks for image classification with data-efficient training",
    year=2021,
    arxiv="2105.03404",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L^2 C)",
)
@dataclass(frozen=True)
class ResMlp(Mixer):
    """ResMLP's cross-patch layer: one linear map along the tokens, the same for every channel.

    y = post_scale (w (pre_scale x + pre_bias) + b), without the scales and pre_bias unless `affine`.

    Parameters
    ----------
    dim : int
        Channels.
    grid : tuple of int
        (l,) or (h, w); the parameters are tied to the number of tokens, images are read row by row.
    affine : bool
        Whether to include the block's affine map before and scale after.
    bias : bool
        Of the map along the tokens.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameters w (l, l), truncated normal with std 0.02, b (l,), zero, and with `affine`
    pre_scale (c,), ones, pre_bias (c,), zeros, post_scale (c,), 0.1 as for 12 layers (for 24 the paper starts at 1e-5,
    for 36 at 1e-6: multiply it). 2 l flops per element forward, twice that backward.
    Source: Touvron et al. 2021, arXiv:2105.03404, eq. 1-2; official layers_scale_mlp_blocks.
    """

    dim: int
    grid: tuple
    affine: bool = False
    bias: bool = True

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid))
        check.boolean(self.name, "affine", self.affine)
        check.boolean(self.name, "bias", self.bias)

    def accepts_grid(self, grid):
        return math.prod(grid) == math.prod(self.grid)

    def parameters(self):
        l, c = math.prod(self.grid), self.dim
        specs = {"w": Parameter((l, l), initializers.truncated_normal(0.02))}
        if self.bias:
            specs["b"] = Parameter((l,), initializers.zeros)
        if self.affine:
            specs["pre_scale"] = Parameter((c,), initializers.ones)
            specs["pre_bias"] = Parameter((c,), initializers.zeros)
            specs["post_scale"] = Parameter((c,), initializers.constant(0.1))
        return specs

    def mix(self, p, x):
        u = ops.add(ops.mul(x, p.pre_scale), p.pre_bias) if self.affine else x
        v = ops.axis_linear(u.reshape(x.shape[0], math.prod(self.grid), self.dim), p.w, p.b).reshape(x.shape)
        return ops.mul(v, p.post_scale) if self.affine else v
