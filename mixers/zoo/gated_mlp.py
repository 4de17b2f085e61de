"""Gated MLPs: feature maps multiplied by gates that have seen other positions."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from mixers import _checks as check
from mixers import graph, initializers, ops
from mixers.initializers import fan_in_uniform, normal, ones, xavier_uniform, zeros
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import batch_norm, batch_norm_parameters, norm_parameters


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
    "multi_axis_gmlp",
    paper="MAXIM: Multi-Axis MLP for Image Processing",
    year=2022,
    arxiv="2201.02973",
    ranks=(2,),
    causal=False,
    cost="O(L C^2 + L C n)",
)
@dataclass(frozen=True)
class MultiAxisGmlp(Mixer):
    """MAXIM's multi-axis gated MLP: one half of the channels mixed inside windows, one across them.

    [g | k] = gelu_tanh(x w_in + b_in); each half goes through a gMLP with a skip, whose token linear acts over
    the windows of a fixed number (grid, g) or over the tokens of a window (block, k); y = [g | k] w_out + b_out.

    Parameters
    ----------
    dim : int
        Channels c.
    block_size : (int, int)
        Tokens of a window, divides the grid.
    grid_size : (int, int)
        Number of windows of the grid branch, divides the grid.
    input_proj_factor : int
        Width after w_in as a multiple of c; the product must be even.
    block_gmlp_factor, grid_gmlp_factor : int
        Hidden width of each branch as a multiple of its own; the product must be even.
    use_bias : bool
        Of all linears, those over tokens included.
    norm_eps : float
        Of all layer norms, >= 0.

    Notes
    -----
    x is (b, h, w, c). With m = c input_proj_factor / 2 per branch and k its factor: w_in (c, 2 m), w_out (2 m, c), and
    per branch (prefix grid_ or block_) norm (m,), w_in (m, m k), gate_norm (m k / 2,), w_token (n, n), b_token (n,),
    w_out (m k / 2, m). Linears N(0, 0.02), biases zero. The work is linear in the number of tokens.
    Source: Tu et al. 2022, arXiv:2201.02973, section 3.2; the official Flax layer without norm and skip.
    """

    dim: int
    block_size: tuple = (8, 8)
    grid_size: tuple = (8, 8)
    input_proj_factor: int = 2
    block_gmlp_factor: int = 2
    grid_gmlp_factor: int = 2
    use_bias: bool = True
    norm_eps: float = 1e-6

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        for name in ("block_size", "grid_size"):
            object.__setattr__(self, name, check.pair(f, name, getattr(self, name)))
        for name in ("input_proj_factor", "block_gmlp_factor", "grid_gmlp_factor"):
            check.integer(f, name, getattr(self, name), minimum=1)
        if self.dim * self.input_proj_factor % 2:
            raise ValueError(
                f"{f}: input_proj_factor must make dim * factor even, got {self.input_proj_factor}"
            )
        for name in ("block_gmlp_factor", "grid_gmlp_factor"):
            if self._width * getattr(self, name) % 2:
                raise ValueError(
                    f"{f}: {name} must make {self._width} * factor even, got {getattr(self, name)}"
                )
        check.boolean(f, "use_bias", self.use_bias)
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    @property
    def _width(self):
        """Channels of one branch."""
        return self.dim * self.input_proj_factor // 2

    def check_input(self, x):
        super().check_input(x)
        _check_windows(self.name, x.shape[1:3], self.block_size, self.grid_size)

    def parameters(self):
        c, m = self.dim, self._width
        linear = normal(0.02)
        specs = {"w_in": Parameter((c, 2 * m), linear), "b_in": Parameter((2 * m,), zeros)}
        for branch, size, factor in self._branches():
            hidden, n = m * factor, size[0] * size[1]
            specs |= {
                **norm_parameters(f"{branch}_norm", m),
                f"{branch}_w_in": Parameter((m, hidden), linear),
                f"{branch}_b_in": Parameter((hidden,), zeros),
                **norm_parameters(f"{branch}_gate_norm", hidden // 2),
                f"{branch}_w_token": Parameter((n, n), linear),
                f"{branch}_b_token": Parameter((n,), zeros),
                f"{branch}_w_out": Parameter((hidden // 2, m), linear),
                f"{branch}_b_out": Parameter((m,), zeros),
            }
        specs |= {"w_out": Parameter((2 * m, c), linear), "b_out": Parameter((c,), zeros)}
        return specs if self.use_bias else {n: s for n, s in specs.items() if not _is_bias(n)}

    def _branches(self):
        return (
            ("grid", self.grid_size, self.grid_gmlp_factor),
            ("block", self.block_size, self.block_gmlp_factor),
        )

    def mix(self, p, x):
        h = ops.gelu_tanh(ops.linear(x, p.w_in, p.b_in))
        parts = graph.split(h, [self._width] * 2)
        mixed = [self._branch(p, z, *branch) for z, branch in zip(parts, self._branches())]
        return ops.linear(graph.concatenate(mixed), p.w_out, p.b_out)

    def _branch(self, p, z, branch, size, factor):
        q = lambda name: p.get(f"{branch}_{name}")
        norm = lambda t, name: ops.layer_norm(t, q(f"{name}_scale"), q(f"{name}_bias"), eps=self.norm_eps)
        e = ops.gelu_tanh(ops.linear(norm(z, "norm"), q("w_in"), q("b_in")))
        u, v = graph.split(e, [self._width * factor // 2] * 2)
        gate = ops.window_linear(
            norm(v, "gate_norm"), q("w_token"), q("b_token"), size=size, across=branch == "grid"
        )
        return z + ops.linear(ops.mul(u, gate) + u, q("w_out"), q("b_out"))


def _check_windows(function, grid, block_size, grid_size):
    for name, size in (("block_size", block_size), ("grid_size", grid_size)):
        if grid[0] % size[0] or grid[1] % size[1]:
            raise ValueError(
                f"{function}: x must have a token grid that {name} = {size} divides, got {tuple(grid)}"
            )


class CrossGatingOutput(NamedTuple):
    """The two streams after cross gating, each (b, h, w, features)."""

    y: object
    g: object


@register(
    "cross_gating",
    paper="MAXIM: Multi-Axis MLP for Image Processing",
    year=2022,
    arxiv="2201.02973",
    ranks=(2,),
    causal=False,
    cost="O(L C^2 + L C n)",
)
@dataclass(frozen=True)
class CrossGating(Mixer):
    """MAXIM's cross-gating block: two streams, each gated by what the other has seen of its image.

    With x0, g0 the projected streams, x1, g1 = gelu_tanh(norm(.) w_in) and gates A_x, A_g (token linears across
    windows on one half of the channels, inside windows on the other): g' = (g1 A_x) w_out + g0,
    y = (x1 A_g) w_out + g' + x0.

    Parameters
    ----------
    dim : int
        Channels of x.
    gate_dim : int, optional
        Channels of g; dim by default.
    features : int, optional
        Channels of both outputs; dim by default.
    block_size, grid_size : (int, int)
        As in multi_axis_gmlp; both divide the grid.
    upsample_g : bool
        g has half the grid and is upsampled by a 2 x 2 transposed convolution.
    use_bias : bool
        Of all linears.
    input_proj_factor : int
        2, the width of the gates as a multiple of features; the official code fixes it.
    norm_eps : float
        >= 0.

    Notes
    -----
    x is (b, h, w, dim), g (b, h, w, gate_dim) or half the grid; the output is a NamedTuple (y, g). Parameters per
    stream s in {x, g}: w_s, s_norm, s_w_in, s_w_out and the gate s_gate_norm, s_gate_w_in (c, 2 c), s_gate_w_grid,
    s_gate_w_block, s_gate_w_out (2 c, c), and their biases; w_up (2, 2, gate_dim, features). Token linears
    N(0, 0.02) with bias one, others LeCun-normal.
    Source: Tu et al. 2022, arXiv:2201.02973, section 3.3; the official Flax CrossGatingBlock.
    """

    dim: int
    gate_dim: int | None = None
    features: int | None = None
    block_size: tuple = (8, 8)
    grid_size: tuple = (8, 8)
    upsample_g: bool = True
    use_bias: bool = True
    input_proj_factor: int = 2
    norm_eps: float = 1e-6

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        for name in ("gate_dim", "features"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.dim)
            check.integer(f, name, getattr(self, name), minimum=1)
        for name in ("block_size", "grid_size"):
            object.__setattr__(self, name, check.pair(f, name, getattr(self, name)))
        check.boolean(f, "upsample_g", self.upsample_g)
        check.boolean(f, "use_bias", self.use_bias)
        check.choice(f, "input_proj_factor", self.input_proj_factor, (2,))
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    def check_input(self, x, g):
        super().check_input(x)
        b, h, w, _ = x.shape
        _check_windows(self.name, (h, w), self.block_size, self.grid_size)
        if self.upsample_g and (h % 2 or w % 2):
            raise ValueError(f"{self.name}: x must have an even grid with upsample_g=True, got {(h, w)}")
        if self.upsample_g:
            h, w = h // 2, w // 2
        check.shape(self.name, "g", g, b=b, h=h, w=w, c=self.gate_dim)

    def parameters(self):
        c, c_g = self.features, self.gate_dim
        n_grid, n_block = math.prod(self.grid_size), math.prod(self.block_size)
        lecun = lambda fan_in: normal(1.0 / math.sqrt(fan_in))
        specs = {}
        if self.upsample_g:
            specs = {"w_up": Parameter((2, 2, c_g, c), lecun(4 * c_g)), "b_up": Parameter((c,), zeros)}
        for s, c_in in (("x", self.dim), ("g", c if self.upsample_g else c_g)):
            specs |= {
                f"w_{s}": Parameter((c_in, c), lecun(c_in)),
                f"b_{s}": Parameter((c,), zeros),
                **norm_parameters(f"{s}_norm", c),
                f"{s}_w_in": Parameter((c, c), lecun(c)),
                f"{s}_b_in": Parameter((c,), zeros),
                **norm_parameters(f"{s}_gate_norm", c),
                f"{s}_gate_w_in": Parameter((c, 2 * c), lecun(c)),
                f"{s}_gate_b_in": Parameter((2 * c,), zeros),
                f"{s}_gate_w_grid": Parameter((n_grid, n_grid), normal(0.02)),
                f"{s}_gate_b_grid": Parameter((n_grid,), ones),
                f"{s}_gate_w_block": Parameter((n_block, n_block), normal(0.02)),
                f"{s}_gate_b_block": Parameter((n_block,), ones),
                f"{s}_gate_w_out": Parameter((2 * c, c), lecun(2 * c)),
                f"{s}_gate_b_out": Parameter((c,), zeros),
                f"{s}_w_out": Parameter((c, c), lecun(c)),
                f"{s}_b_out": Parameter((c,), zeros),
            }
        return specs if self.use_bias else {n: s for n, s in specs.items() if not _is_bias(n)}

    def mix(self, p, x, g):
        if self.upsample_g:
            g = _conv_transpose_2x2(g, p.w_up, p.b_up)
        x0, g0 = ops.linear(x, p.w_x, p.b_x), ops.linear(g, p.w_g, p.b_g)
        x1, g1 = self._project(p, "x", x0), self._project(p, "g", g0)
        gate_x, gate_g = self._gate(p, "x", x1), self._gate(p, "g", g1)
        g_out = ops.linear(ops.mul(g1, gate_x), p.g_w_out, p.g_b_out) + g0
        y = ops.linear(ops.mul(x1, gate_g), p.x_w_out, p.x_b_out) + g_out + x0
        return CrossGatingOutput(y, g_out)

    def _norm(self, p, name, x):
        return ops.layer_norm(x, p[f"{name}_scale"], p[f"{name}_bias"], eps=self.norm_eps)

    def _project(self, p, s, x):
        return ops.gelu_tanh(ops.linear(self._norm(p, f"{s}_norm", x), p[f"{s}_w_in"], p.get(f"{s}_b_in")))

    def _gate(self, p, s, x):
        q = lambda name: p.get(f"{s}_gate_{name}")
        e = ops.gelu_tanh(ops.linear(self._norm(p, f"{s}_gate_norm", x), q("w_in"), q("b_in")))
        u, v = graph.split(e, [self.features] * 2)
        u = ops.window_linear(u, q("w_grid"), q("b_grid"), size=self.grid_size, across=True)
        v = ops.window_linear(v, q("w_block"), q("b_block"), size=self.block_size)
        return ops.linear(graph.concatenate([u, v]), q("w_out"), q("b_out"))


def _is_bias(name):
    """Biases of linears; those of norms are called <norm>_bias."""
    return name.startswith("b_") or "_b_" in name


def _conv_transpose_2x2(x, w, bias):
    """y[2 i + p, 2 j + q] = x[i, j] w[p, q] + bias: a linear to four cells, then depth to space."""
    b, h, width, _ = x.shape
    c = w.shape[-1]
    # columns ordered (p, q, c)
    cells = ops.linear(x, w.transpose(2, 0, 1, 3).reshape(w.shape[2], 4 * c))
    y = cells.reshape(b, h, width, 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * width, c)
    return y if bias is None else ops.add(y, bias)


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


@register(
    "dfc_attention",
    paper="GhostNetV2: Enhance Cheap Operation with Long-Range Attention",
    year=2022,
    arxiv="2211.12905",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class DfcAttention(Mixer):
    """GhostNetV2's decoupled fully connected attention: a gate from strips of 5 at half the resolution.

    q = BN(vertical(BN(horizontal(BN(pool(x) w_gate))))); y = z upsample(sigmoid(q)), with z = x or the ghost module
    z = [act(BN(x w_primary)) | act(BN(conv(.)))].

    Parameters
    ----------
    dim : int
        Channels c of x.
    out_dim : int, optional
        Channels of y; dim by default, and required to be with value "identity".
    value : {"ghost", "identity"}
        What the gate multiplies.
    norm_eps : float
        Of all batch norms, >= 0.
    ratio : int
        Ghost only, >= 2: I = ceil(out_dim / ratio) primary channels, I (ratio - 1) cheap ones.
    dw_size : int
        Ghost only: kernel of the cheap convolution, odd.
    relu : bool
        Ghost only: ReLU after both of its norms.

    Notes
    -----
    x is (b, h, w, c), h and w >= 2. Parameters w_gate (c, o), w_gate_h (1, 5, o), w_gate_v (5, 1, o), gate_norm1..3;
    ghost: w_primary (c, I), primary_norm, w_cheap (dw, dw, 1, M), cheap_norm. No biases; Kaiming-uniform.
    The paper describes fully connected layers along each axis; the official code, followed here, has kernels of 5.
    Source: Tang et al. 2022, arXiv:2211.12905, eq. 3-5; official GhostModuleV2, mode "attn".
    """

    dim: int
    out_dim: int | None = None
    value: str = "ghost"
    norm_eps: float = 1e-5
    ratio: int = 2
    dw_size: int = 3
    relu: bool = True

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        if self.out_dim is None:
            object.__setattr__(self, "out_dim", self.dim)
        check.integer(f, "out_dim", self.out_dim, minimum=1)
        check.choice(f, "value", self.value, ("ghost", "identity"))
        if self.value == "identity" and self.out_dim != self.dim:
            raise ValueError(
                f"{f}: out_dim must be dim = {self.dim} with value 'identity', got {self.out_dim}"
            )
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)
        check.integer(f, "ratio", self.ratio, minimum=2)
        check.integer(f, "dw_size", self.dw_size, minimum=1, odd=True)
        check.boolean(f, "relu", self.relu)

    def check_input(self, x):
        super().check_input(x)
        if min(x.shape[1:3]) < 2:
            raise ValueError(f"{self.name}: x must have h, w >= 2, got {tuple(x.shape)}")

    @property
    def _widths(self):
        """Primary and cheap channels of the ghost module."""
        primary = -(-self.out_dim // self.ratio)
        return primary, primary * (self.ratio - 1)

    def parameters(self):
        c, o = self.dim, self.out_dim
        kaiming = initializers.kaiming_uniform
        specs = {
            "w_gate": Parameter((c, o), kaiming(c)),
            **batch_norm_parameters("gate_norm1", o),
            "w_gate_h": Parameter((1, 5, o), kaiming(5)),
            **batch_norm_parameters("gate_norm2", o),
            "w_gate_v": Parameter((5, 1, o), kaiming(5)),
            **batch_norm_parameters("gate_norm3", o),
        }
        if self.value == "identity":
            return specs
        primary, cheap = self._widths
        return specs | {
            "w_primary": Parameter((c, primary), kaiming(c)),
            **batch_norm_parameters("primary_norm", primary),
            "w_cheap": Parameter((self.dw_size, self.dw_size, 1, cheap), kaiming(self.dw_size**2)),
            **batch_norm_parameters("cheap_norm", cheap),
        }

    def mix(self, p, x):
        norm = lambda name, t: batch_norm(p, name, t, self.norm_eps)
        q = norm("gate_norm1", ops.linear(ops.avg_pool_2x2(x), p.w_gate))
        q = norm("gate_norm2", ops.depthwise_conv2d(q, p.w_gate_h))
        q = norm("gate_norm3", ops.depthwise_conv2d(q, p.w_gate_v))
        gate = ops.nearest_upsample(ops.sigmoid(q), grid=tuple(x.shape[1:3]))
        return ops.mul(x if self.value == "identity" else self._ghost(p, x, norm), gate)

    def _ghost(self, p, x, norm):
        primary, _ = self._widths
        act = ops.relu if self.relu else lambda t: t
        x1 = act(norm("primary_norm", ops.linear(x, p.w_primary)))
        x2 = act(norm("cheap_norm", ops.grouped_conv2d(x1, p.w_cheap, groups=primary)))
        return graph.concatenate([x1, x2])[..., : self.out_dim]


@register(
    "coordinate_local_attention",
    paper="ELA: Efficient Local Attention for Deep Convolutional Neural Networks",
    year=2024,
    arxiv="2403.01123",
    ranks=(2,),
    causal=False,
    cost="O(L C)",
)
@dataclass(frozen=True)
class CoordinateLocalAttention(Mixer):
    """ELA: gates along each axis from strip means, a short convolution and a group norm that both axes share.

    a_h = sigmoid(group_norm(conv(mean_w x))), a_w = sigmoid(group_norm(conv(mean_h x))); y = x a_h a_w.

    Parameters
    ----------
    dim : int
        Channels c.
    kernel_size : int
        Odd, >= 1.
    conv_groups : int, optional
        Divides c; c / 8 by default where 8 divides c, else 1.
    norm_groups : int, optional
        Divides c; 16 by default where it divides c, else 1.
    norm_eps : float
        >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters w_conv (k, c / conv_groups, c), norm_scale, norm_bias (c,). The paper's variants:
    T kernel 5, conv_groups c, norm_groups 32; B 7, c, 16; S 5, c / 8, 16; L 7, c / 8, 16 (the default).
    About 4 flops per element and 2 (h + w) k c^2 / conv_groups per image.
    Source: Xu & Wan 2024, arXiv:2403.01123, eq. 3-6; the official class ELA.
    """

    dim: int
    kernel_size: int = 7
    conv_groups: int | None = None
    norm_groups: int | None = None
    norm_eps: float = 1e-5

    def __post_init__(self):
        f = self.name
        c = check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "kernel_size", self.kernel_size, minimum=1, odd=True)
        for name, default in (
            ("conv_groups", c // 8 if c % 8 == 0 else 1),
            ("norm_groups", 16 if c % 16 == 0 else 1),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            check.divides(f, name, check.integer(f, name, getattr(self, name), minimum=1), "dim", c)
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    def parameters(self):
        c, k, inputs = self.dim, self.kernel_size, self.dim // self.conv_groups
        return {
            "w_conv": Parameter((k, inputs, c), initializers.kaiming_uniform(k * inputs)),
            **norm_parameters("norm", c),
        }

    def mix(self, p, x):
        b, h, w, c = x.shape
        a_h = self._gate(p, ops.token_mean(x, axes=(2,))).reshape(b, h, 1, c)
        a_w = self._gate(p, ops.token_mean(x, axes=(1,))).reshape(b, 1, w, c)
        return ops.mul(ops.mul(x, a_h), a_w)

    def _gate(self, p, means):
        t = ops.grouped_conv1d(means, p.w_conv, groups=self.conv_groups)
        return ops.sigmoid(
            ops.group_norm(t, p.norm_scale, p.norm_bias, groups=self.norm_groups, eps=self.norm_eps)
        )
