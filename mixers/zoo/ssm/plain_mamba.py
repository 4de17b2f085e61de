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
        self._check_scan("expand")
        check.integer(self.name, "conv_size", self.conv_size, minimum=1, odd=True)
        for option in ("conv_bias", "bias", "layer_scale", "permute_params"):
            check.boolean(self.name, option, getattr(self, option))
        check.number(self.name, "layer_scale_init", self.layer_scale_init)

    @property
    def _inner(self):
        return int(self.expand * self.dim)

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
        delta, A, B, C = self._coefficients(p, u)
        delta = delta + p.dt_bias
        snakes = [orders.snake_rows(h, w), orders.snake_columns(h, w)]
        total = None
        for order in [o for snake in snakes for o in (snake, orders.backwards(snake))]:
            scan = self._permuted if self.permute_params else self._raster
            s = scan(p, u, (delta, A, B, C), order, moves(order, w))
            total = s if total is None else total + s
        y = ops.linear(ops.gate(z, total.reshape(z.shape), activation="silu"), p.w_out, p.b_out)
        return y if p.gamma is None else y * p.gamma

    def _raster(self, p, u, coefficients, order, codes):
        """Only the inputs are visited in the order, by coefficients of the tokens as they are stored."""
        delta, A, B, C = coefficients
        s = ops.selective_scan(u[:, order], delta, A, B + self._turned(p, codes, B), C, **self._constants(p))
        return s[:, numpy.argsort(order)]

    def _permuted(self, p, u, coefficients, order, codes):
        delta, A, B, C = coefficients
        # the move to a token, by the place where the token is stored
        B = B + self._turned(p, codes[numpy.argsort(order)], B)
        return ops.selective_scan(u, delta, A, B, C, **self._constants(p), order=order)

    def _turned(self, p, codes, B):
        """direction_B of the codes of all tokens, (l, 1, n)."""
        chosen = graph.constant(codes[:, None] == numpy.arange(5), B)
        return ops.linear(chosen, p.direction_B).reshape(-1, 1, self.d_state)
