"""MAXIM: gates made by linear maps inside windows and across them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from mixers import _checks as check
from mixers import graph, ops
from mixers.initializers import normal, ones, zeros
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import norm_parameters


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
    per branch (prefix ``grid_`` or ``block_``) norm (m,), w_in (m, m k), gate_norm (m k / 2,), w_token (n, n),
    b_token (n,), w_out (m k / 2, m). Linears N(0, 0.02), biases zero. The work is linear in the number of tokens.
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
