"""Vision Mamba's bidirectional mixer."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.ssm.selective import SelectiveLaw, convolution, log_rates, outer_projections, rates


@register(
    "vim",
    paper="Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
    year=2024,
    arxiv="2401.09417",
    ranks=(1,),
    causal=False,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class Vim(SelectiveLaw, Mixer):
    """Vision Mamba: a selective scan from the first token to the last and one from the last to the first.

    (v, z) = x w_in + b_in;  u = silu(conv(v));  (r, B, C) = u w_x;
    s = selective_scan(u, r w_dt, -exp(A_log), B, C, D, softplus with dt_bias), and s_rev from the tokens
    visited backwards;  y = gamma ((s + s_rev) silu(z) w_out + b_out)

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    d_conv : int
        Taps k of the convolutions.
    expand : float
        Inner channels e = floor(expand c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    conv_bias, bias : bool
        Biases of the convolutions, and of both outer projections.
    bimamba_type : {"v2", "v1"}
        v2: the backward pass has parameters of its own, its convolution included, which looks at later tokens.
        v1: it has rates of its own only, and shares u, steps, B and C.
    divide_out : bool
        Halve the sum of the two passes (v2 only; the released models do).
    layer_scale : bool
        Multiply the output by gamma.
    layer_scale_init : float
        What gamma starts at.
    dt_min, dt_max, dt_init_floor : float
        Initial steps lie between dt_min and dt_max on a logarithmic scale, and not below dt_init_floor.
    dt_init : {"random", "constant"}
        w_dt starts uniform within, or constant at, dt_scale / sqrt(r).
    dt_scale : float

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    x is (b, l, c); any l. Where a class token stands is the model's business.
    Parameters: w_in (c, 2 e), b_in; conv_w (k, e), conv_b; w_x (e, r + 2 n); w_dt (r, e), dt_bias (e,);
    A_log (e, n), D (e,); with v2 the same once more with the ending _rev, with v1 A_log_rev (e, n);
    w_out (e, c), b_out; gamma (c,). The gate is linear in the two passes: it is applied once, to their sum.
    6 c e + 4 e (2 r + 2 n + k) + 2 e (9 n + 12) flops per token forward.
    Source: Zhu et al. 2024, arXiv:2401.09417, section 3.3, algorithm 1; hustvl/Vim, mamba_simple.py.
    """

    dim: int
    d_state: int = 16
    d_conv: int = 4
    expand: float = 2.0
    dt_rank: int | str = "auto"
    conv_bias: bool = True
    bias: bool = False
    bimamba_type: str = "v2"
    divide_out: bool = False
    layer_scale: bool = False
    layer_scale_init: float = 1.0

    def __post_init__(self):
        self._check_scan("expand", "conv_bias", "bias", "divide_out", "layer_scale")
        check.integer(self.name, "d_conv", self.d_conv, minimum=1)
        check.choice(self.name, "bimamba_type", self.bimamba_type, ("v2", "v1"))
        check.number(self.name, "layer_scale_init", self.layer_scale_init)

    def parameters(self):
        e, taps = self._inner, (self.d_conv, self._inner)
        first, last = outer_projections(self.dim, 2 * e, e, self.bias)
        specs = first | convolution(taps, self.conv_bias) | self._scan_parameters(e)
        if self.bimamba_type == "v2":
            specs |= convolution(taps, self.conv_bias, "_rev") | self._scan_parameters(e, "_rev")
        else:
            specs["A_log_rev"] = Parameter((e, self.d_state), log_rates)
        if self.layer_scale:
            last["gamma"] = Parameter((self.dim,), initializers.constant(self.layer_scale_init))
        return specs | last

    def mix(self, p, x):
        v, z = split(ops.linear(x, p.w_in, p.b_in), [self._inner, self._inner])
        u = ops.causal_conv1d(v, p.conv_w, p.conv_b)
        delta, A, B, C = self._coefficients(p, u)
        s = ops.selective_scan(u, delta, A, B, C, **self._constants(p))
        if self.bimamba_type == "v2":
            u = self._anticausal(v, p.conv_w_rev, p.conv_b_rev)
            there = *self._coefficients(p, u, "_rev"), self._constants(p, "_rev")
        else:
            there = delta, rates(p.A_log_rev), B, C, self._constants(p)
        *coefficients, constants = there
        s = s + ops.selective_scan(u, *coefficients, **constants, reverse=True)
        if self.divide_out and self.bimamba_type == "v2":
            s = s * 0.5
        y = ops.linear(ops.gate(z, s, activation="silu"), p.w_out, p.b_out)
        return y if p.gamma is None else y * p.gamma

    def _anticausal(self, v, w, b):
        """The convolution of the tokens read backward, without turning them round: taps on the tokens after."""
        taps = ((0, 0), (0, self.d_conv - 1))
        return ops.silu(ops.depthwise_conv2d(v[:, None], w[::-1][None], b, padding=taps))[:, 0]
