"""PlainMamba's mixer."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import graph, initializers, ops, orders
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.ssm.selective import SelectiveLaw, convolution, outer_projections

# rows of direction_B
_START, _RIGHT, _LEFT, _UP, _DOWN = range(5)


def moves(order, w):
    """How an order gets to each token of a grid of width w: 0 start, 1 right, 2 left, 3 up, 4 down.

    >>> moves(numpy.array([0, 1, 3, 2]), 2)
    array([0, 1, 4, 2])
    """
    down, right = numpy.diff(order // w), numpy.diff(order % w)
    codes = numpy.select([right > 0, right < 0, down < 0], [_RIGHT, _LEFT, _UP], _DOWN)
    return numpy.concatenate([[_START], codes]).astype(numpy.int64)


def snakes(h, w):
    """Rows to and fro, columns down and up, and both backwards: (4, h w)."""
    there = orders.snake_rows(h, w), orders.snake_columns(h, w)
    return numpy.stack([order for snake in there for order in (snake, orders.backwards(snake))])


@register(
    "plain_mamba",
    paper="PlainMamba: Improving Non-Hierarchical Mamba in Visual Recognition",
    year=2024,
    arxiv="2403.17695",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class PlainMamba(SelectiveLaw, Mixer):
    """PlainMamba: four scans along snakes over the grid, which know the direction of each move.

    (v, z) = x w_in + b_in;  u = silu(conv(v));  (r, B, C) = u w_x;
    s_o = selective_scan(u in the order o, r w_dt + dt_bias, -exp(A_log), B + direction_B[moves of o], C, D,
    softplus with dt_bias);  y = gamma ((s_1 + ... + s_4) silu(z) w_out + b_out)

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    expand : float
        Inner channels e = floor(expand c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    conv_size : int
        Kernel size k of the convolution, odd.
    conv_bias, bias : bool
        Biases of the convolution, and of both outer projections.
    layer_scale : bool
        Multiply the output by gamma.
    permute_params : bool
        False, as the released weights want it: the t-th visited token uses steps, B and C of token t in raster
        order. True, as the paper writes it: it uses its own.
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
    x is (b, h, w, c), any grid. The orders are rows to and fro, columns down and up, and both backwards.
    Parameters, one set for all scans: w_in (c, 2 e), b_in; conv_w (k, k, e), conv_b; w_x (e, r + 2 n);
    w_dt (r, e), dt_bias (e,), which enters twice; A_log (e, n), D (e,); direction_B (5, n), rows start, right,
    left, up, down; w_out (e, c), b_out; gamma (c,).
    6 c e + 2 e (2 r + 2 n + k^2) + 4 e (9 n + 12) flops per token forward.
    Source: Yang et al. 2024, arXiv:2403.17695, section 3.3, eq. 5; ChenhongyiYang/PlainMamba.
    """

    dim: int
    d_state: int = 16
    expand: float = 2.0
    dt_rank: int | str = "auto"
    conv_size: int = 7
    conv_bias: bool = True
    bias: bool = False
    layer_scale: bool = False
    permute_params: bool = False
    layer_scale_init: float = 1.0

    def __post_init__(self):
        self._check_scan("expand", "conv_bias", "bias", "layer_scale", "permute_params")
        check.integer(self.name, "conv_size", self.conv_size, minimum=1, odd=True)
        check.number(self.name, "layer_scale_init", self.layer_scale_init)

    def parameters(self):
        e, k = self._inner, self.conv_size
        first, last = outer_projections(self.dim, 2 * e, e, self.bias)
        specs = first | convolution((k, k, e), self.conv_bias) | self._scan_parameters(e)
        specs["direction_B"] = Parameter((5, self.d_state), initializers.truncated_normal(0.02))
        if self.layer_scale:
            last["gamma"] = Parameter((self.dim,), initializers.constant(self.layer_scale_init))
        return specs | last

    def mix(self, p, x):
        b, h, w, _ = x.shape
        v, z = split(ops.linear(x, p.w_in, p.b_in), [self._inner, self._inner])
        u = ops.silu(ops.depthwise_conv2d(v, p.conv_w, p.conv_b)).reshape(b, h * w, self._inner)
        s = self._scan(p, u, h, w).reshape(z.shape)
        y = ops.linear(ops.gate(z, s, activation="silu"), p.w_out, p.b_out)
        return y if p.gamma is None else y * p.gamma

    def _scan(self, p, u, h, w):
        """The sum of the scans along the snakes: they differ in their order and in what turns add to B alone."""
        delta, A, B, C = self._coefficients(p, u)
        visits = snakes(h, w)
        codes = numpy.stack([moves(order, w) for order in visits])
        if self.permute_params:
            # the move to a token, by the place where the token is stored
            codes = numpy.take_along_axis(codes, numpy.argsort(visits, axis=1), axis=1)
        chosen = graph.constant(codes.T[..., None] == numpy.arange(5), B)
        return ops.cross_selective_scan(
            u,
            delta.reshape(*u.shape[:2], 1, self._inner),
            A.reshape(1, *A.shape),
            B + ops.linear(chosen, p.direction_B),
            C,
            p.D.reshape(1, -1),
            # once in the projection of the steps, once in the scan
            (p.dt_bias * 2.0).reshape(1, -1),
            orders=visits,
            delta_softplus=True,
            ordered_coefficients=self.permute_params,
        )
