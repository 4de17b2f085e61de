"""Gates made by linear maps over all tokens."""

import math
from dataclasses import dataclass

from mixers import _checks as check
from mixers import graph, ops
from mixers.initializers import fan_in_uniform, normal, ones, xavier_uniform
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import norm_parameters


def _without(specs, *names):
    """The parameters but those that a flag turned off."""
    return {n: s for n, s in specs.items() if n not in names}


@register(
    "gmlp",
    paper="Pay Attention to MLPs",
    year=2021,
    arxiv="2105.08050",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L C F + L^2 F)",
)
@dataclass(frozen=True)
class Gmlp(Mixer):
    """gMLP: an MLP over channels whose hidden half is gated by a linear map over the tokens of the other half.

    [u | v] = gelu(x w_in + b_in); t = w_token layer_norm(v) + b_token along the tokens; y = (u t) w_out + b_out.

    Parameters
    ----------
    dim : int
        Channels.
    grid : tuple of int
        (l,) or (h, w); w_token is tied to the number of tokens, images are read row by row.
    hidden_dim : int, optional
        F, even, >= 2; 6 dim by default.
    in_bias, out_bias : bool
        Biases of the two linears over channels.
    norm_eps : float
        Of the inner layer norm, >= 0.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameters w_in (c, F), b_in (F,), norm_scale, norm_bias (F/2,), w_token (l, l),
    b_token (l,), w_out (F/2, c), b_out (c,). The gate starts as the identity: w_token N(0, 1e-6), b_token ones.
    2 l (c F + c F / 2) + l^2 F flops per batch item forward.
    Source: Liu et al. 2021, arXiv:2105.08050, eq. 1-3; timm's SpatialGatingBlock without norm and skip.
    """

    dim: int
    grid: tuple
    hidden_dim: int | None = None
    in_bias: bool = True
    out_bias: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(f, self.grid))
        if self.hidden_dim is None:
            object.__setattr__(self, "hidden_dim", 6 * self.dim)
        if check.integer(f, "hidden_dim", self.hidden_dim, minimum=2) % 2:
            raise ValueError(f"{f}: hidden_dim must be even, got {self.hidden_dim}")
        check.boolean(f, "in_bias", self.in_bias)
        check.boolean(f, "out_bias", self.out_bias)
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    def accepts_grid(self, grid):
        return math.prod(grid) == math.prod(self.grid)

    def parameters(self):
        c, hidden, l = self.dim, self.hidden_dim, math.prod(self.grid)
        specs = {
            "w_in": Parameter((c, hidden), xavier_uniform(c, hidden)),
            "b_in": Parameter((hidden,), normal(1e-6)),
            **norm_parameters("norm", hidden // 2),
            "w_token": Parameter((l, l), normal(1e-6)),
            "b_token": Parameter((l,), ones),
            "w_out": Parameter((hidden // 2, c), xavier_uniform(hidden // 2, c)),
            "b_out": Parameter((c,), normal(1e-6)),
        }
        return _without(specs, *["b_in"] * (not self.in_bias), *["b_out"] * (not self.out_bias))

    def mix(self, p, x):
        tokens = x.reshape(x.shape[0], math.prod(self.grid), self.dim)
        h = ops.gelu(ops.linear(tokens, p.w_in, p.b_in))
        u, v = graph.split(h, [self.hidden_dim // 2] * 2)
        t = ops.axis_linear(
            ops.layer_norm(v, p.norm_scale, p.norm_bias, eps=self.norm_eps), p.w_token, p.b_token
        )
        return ops.linear(ops.mul(u, t), p.w_out, p.b_out).reshape(x.shape)


@register(
    "nin_gate",
    paper="NiNformer: A Network in Network Transformer with Token Mixing Generated Gating Function",
    year=2024,
    arxiv="2403.02411",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L C (C + T + D))",
)
@dataclass(frozen=True)
class NinGate(Mixer):
    """NiNformer's gating unit: a linear map of x multiplied by the output of a one-layer MLP-Mixer.

    v1 = x + token_mlp(norm(x)); v = v1 + channel_mlp(norm(v1)); y = (x w_proj + b_proj) v.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : tuple of int
        (l,) or (h, w); the token MLP is tied to the number of tokens, images are read row by row.
    token_dim : int
        T, hidden width of the token MLP, >= 1.
    channel_dim : int
        D, hidden width of the channel MLP, >= 1.
    norm_eps : float
        >= 0.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameters w_proj (c, c), token_norm (c,), w_token_in (T, l), w_token_out (l, T),
    channel_norm (c,), w_channel_in (c, D), w_channel_out (D, c) and their biases; linears U(+-1/sqrt(fan_in)).
    2 l c^2 + 4 l c (T + D) flops per batch item forward.
    Source: Abdullah et al. 2024, arXiv:2403.02411, section 3; the official MixerGatingUnit.
    """

    dim: int
    grid: tuple
    token_dim: int
    channel_dim: int
    norm_eps: float = 1e-5

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(f, self.grid))
        check.integer(f, "token_dim", self.token_dim, minimum=1)
        check.integer(f, "channel_dim", self.channel_dim, minimum=1)
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    def accepts_grid(self, grid):
        return math.prod(grid) == math.prod(self.grid)

    def parameters(self):
        c, l = self.dim, math.prod(self.grid)
        t, d = self.token_dim, self.channel_dim
        uniform = fan_in_uniform
        return {
            "w_proj": Parameter((c, c), uniform(c)),
            "b_proj": Parameter((c,), uniform(c)),
            **norm_parameters("token_norm", c),
            "w_token_in": Parameter((t, l), uniform(l)),
            "b_token_in": Parameter((t,), uniform(l)),
            "w_token_out": Parameter((l, t), uniform(t)),
            "b_token_out": Parameter((l,), uniform(t)),
            **norm_parameters("channel_norm", c),
            "w_channel_in": Parameter((c, d), uniform(c)),
            "b_channel_in": Parameter((d,), uniform(c)),
            "w_channel_out": Parameter((d, c), uniform(d)),
            "b_channel_out": Parameter((c,), uniform(d)),
        }

    def mix(self, p, x):
        tokens = x.reshape(x.shape[0], math.prod(self.grid), self.dim)
        t = ops.layer_norm(tokens, p.token_norm_scale, p.token_norm_bias, eps=self.norm_eps)
        t = ops.gelu(ops.axis_linear(t, p.w_token_in, p.b_token_in))
        v1 = tokens + ops.axis_linear(t, p.w_token_out, p.b_token_out)
        d = ops.layer_norm(v1, p.channel_norm_scale, p.channel_norm_bias, eps=self.norm_eps)
        d = ops.gelu(ops.linear(d, p.w_channel_in, p.b_channel_in))
        v = v1 + ops.linear(d, p.w_channel_out, p.b_channel_out)
        return ops.mul(ops.linear(tokens, p.w_proj, p.b_proj), v).reshape(x.shape)
