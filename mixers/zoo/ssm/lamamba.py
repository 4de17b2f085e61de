"""LaMamba-Diff's mixer: a scan for what is far, attention in windows for what is near."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops, orders
from mixers.graph import split
from mixers.mixer import Parameter
from mixers.registry import register
from mixers.zoo import blocks
from mixers.zoo.ssm.cross_scan import CrossScan, cross_orders


def continuous_orders(h, w):
    """Snakes that start in four corners of the grid: (4, h w)."""
    rows, columns = orders.snake_rows(h, w), orders.snake_columns(h, w)
    upwards = orders.flip_rows(columns, h, w), orders.flip_both(columns, h, w)
    return numpy.stack([rows, orders.flip_rows(rows, h, w), *upwards])


@register(
    "lamamba",
    paper="LaMamba-Diff: Linear-Time High-Fidelity Diffusion Models Based on Local Attention and Mamba",
    year=2024,
    arxiv="2408.02615",
    ranks=(2,),
    causal=False,
    grid_tied=True,
    cost="O(L C (C + d_state + window_size^2))",
)
@dataclass(frozen=True)
class Lamamba(CrossScan):
    """LaMamba: four selective scans over the grid, then attention within windows, both modulated by a condition.

    (shift1, scale1, gate1, shift2, scale2, gate2) = silu(cond w_cond + b_cond) w_mod + b_mod;
    t = gate1 ss2d(norm_ssm(x) (1 + scale1) + shift1);
    y = t + gate2 attention(norm_attn(x + t) (1 + scale2) + shift2)

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int, int)
        Tokens (h, w) of x. Where one of them is at most window_size, windows are that large and not shifted.
    d_state : int
        States n per inner channel.
    ssm_ratio : float
        Inner channels e = floor(ssm_ratio c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    d_conv : int
        Kernel size of the convolution, odd; 0 or 1 for none (the activation stays).
    conv_bias : bool
        Bias of the convolution.
    window_size : int
        Side m of a window; divides the grid.
    shift_size : int
        Shift of the windows, 0 <= shift_size < m; m / 2 in every second block.
    num_heads : int
        Divides c.
    qkv_bias : bool
    cond_dim : int, optional
        Width of the condition; none by default.
    cond_proj : bool
        Project the condition to c channels first; without, cond_dim must be c.
    continuous_scan : bool
        Along snakes from four corners, else along rows and columns as :class:`Ss2d`.
    dt_min, dt_max, dt_init_floor : float
        Initial steps lie between dt_min and dt_max on a logarithmic scale, and not below dt_init_floor.
    dt_init : {"random", "constant"}
        w_dt starts uniform within, or constant at, dt_scale / sqrt(r).
    dt_scale : float

    Raises
    ------
    ValueError
        If an option is out of its range, the window does not divide the grid, or the call brings a condition to
        a mixer without cond_dim, or none to one with it.

    Notes
    -----
    x is (b, h, w, c), cond (b, cond_dim): ``mixer(params, x, cond)``. The block around adds x to y.
    Parameters: norm_ssm_scale, norm_ssm_bias, norm_attn_scale, norm_attn_bias (c,); those of :class:`Ss2d` without
    outer biases; w_qkv (c, 3 c), b_qkv; rel_pos_bias ((2 m - 1)^2, heads); w_proj (c, c), b_proj;
    w_cond (cond_dim, c), b_cond; w_mod (c, 6 c), b_mod, which start at 0: then y = 0.
    Source: Fu & Chen 2024, arXiv:2408.02615, section 3.2; yunxiangfu2001/LaMamba-Diff, lamamba.py.
    """

    dim: int
    grid: tuple[int, int]
    d_state: int = 16
    ssm_ratio: float = 2.0
    dt_rank: int | str = "auto"
    d_conv: int = 3
    conv_bias: bool = True
    window_size: int = 8
    shift_size: int = 0
    num_heads: int = 8
    qkv_bias: bool = True
    cond_dim: int | None = None
    cond_proj: bool = True
    continuous_scan: bool = True

    def __post_init__(self):
        f = self.name
        self._check_cross_scan("conv_bias", "qkv_bias", "cond_proj", "continuous_scan")
        object.__setattr__(self, "grid", check.grid(f, self.grid, ranks=(2,)))
        check.integer(f, "window_size", self.window_size, minimum=1)
        check.integer(f, "shift_size", self.shift_size, minimum=0)
        if self.shift_size >= self.window_size:
            raise ValueError(
                f"{f}: shift_size must be below window_size = {self.window_size}, got {self.shift_size}"
            )
        for axis, size in zip("hw", self.grid):
            check.divides(f, "window_size", self._window[0], axis, size)
        check.integer(f, "num_heads", self.num_heads, minimum=1)
        check.divides(f, "num_heads", self.num_heads, "dim", self.dim)
        if self.cond_dim is not None:
            check.integer(f, "cond_dim", self.cond_dim, minimum=1)
            if not self.cond_proj and self.cond_dim != self.dim:
                raise ValueError(
                    f"{f}: cond_dim must be dim = {self.dim} without cond_proj, got {self.cond_dim}"
                )

    @property
    def _window(self):
        """Side and shift of the windows that fit the grid."""
        smallest = min(self.grid)
        return (smallest, 0) if smallest <= self.window_size else (self.window_size, self.shift_size)

    def parameters(self):
        c, as_torch = self.dim, initializers.fan_in_uniform
        specs = blocks.norm_parameters("norm_ssm", c) | blocks.norm_parameters("norm_attn", c)
        specs |= self._cross_scan_parameters(bias=False)
        specs["w_qkv"] = Parameter((c, 3 * c), as_torch(c))
        if self.qkv_bias:
            specs["b_qkv"] = Parameter((3 * c,), as_torch(c))
        pairs = (2 * self._window[0] - 1) ** 2
        specs |= {
            "rel_pos_bias": Parameter((pairs, self.num_heads), initializers.truncated_normal(0.02)),
            "w_proj": Parameter((c, c), as_torch(c)),
            "b_proj": Parameter((c,), as_torch(c)),
        }
        if self.cond_dim is not None:
            if self.cond_proj:
                specs["w_cond"] = Parameter((self.cond_dim, c), as_torch(self.cond_dim))
                specs["b_cond"] = Parameter((c,), as_torch(self.cond_dim))
            specs["w_mod"] = Parameter((c, 6 * c), initializers.zeros)
            specs["b_mod"] = Parameter((6 * c,), initializers.zeros)
        return specs

    def check_input(self, x, cond=None):
        super().check_input(x)
        if (cond is None) != (self.cond_dim is None):
            raise ValueError(
                f"{self.name}: cond must be given if and only if cond_dim is, got "
                f"{'no cond' if cond is None else 'a cond'} with cond_dim={self.cond_dim}"
            )
        if cond is not None:
            check.shape(self.name, "cond", cond, b=x.shape[0], cond_dim=self.cond_dim)

    def mix(self, p, x, cond=None):
        m = [None] * 6 if cond is None else self._modulation(p, cond)
        t = self._ss2d(p, _modulated(ops.layer_norm(x, p.norm_ssm_scale, p.norm_ssm_bias), *m[:2]))
        t = t if m[2] is None else t * m[2]
        near = _modulated(ops.layer_norm(x + t, p.norm_attn_scale, p.norm_attn_bias), *m[3:5])
        near = self._attention(p, near)
        return t + (near if m[5] is None else near * m[5])

    def _modulation(self, p, cond):
        hidden = ops.linear(cond, p.w_cond, p.b_cond) if self.cond_proj else cond
        m = ops.linear(ops.silu(hidden), p.w_mod, p.b_mod)
        return split(m.reshape(cond.shape[0], 1, 1, 6 * self.dim), [self.dim] * 6)

    def _ss2d(self, p, x):
        v, z = split(ops.linear(x, p.w_in), [self._inner, self._inner])
        visits = (continuous_orders if self.continuous_scan else cross_orders)(*self.grid)
        s = self._scan(p, self._convolve(p, v), visits)
        s = ops.layer_norm(s, p.out_norm_scale, p.out_norm_bias)
        return ops.linear(ops.gate(z, s, activation="silu"), p.w_out)

    def _attention(self, p, x):
        window, shift = self._window
        heads = (*x.shape[:-1], self.num_heads, self.dim // self.num_heads)
        q, k, v = split(ops.linear(x, p.w_qkv, p.b_qkv), [self.dim] * 3)
        y = ops.shifted_window_attention(
            q.reshape(heads), k.reshape(heads), v.reshape(heads), p.rel_pos_bias, window=window, shift=shift
        )
        return ops.linear(y.reshape(x.shape), p.w_proj, p.b_proj)


def _modulated(x, shift, scale):
    return x if shift is None else x * (scale + 1.0) + shift
