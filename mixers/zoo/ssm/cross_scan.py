"""Scans over images along several orders of the tokens: those of VMamba and of EfficientVMamba."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import graph, initializers, ops, orders
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo import blocks
from mixers.zoo.ssm.selective import SelectiveLaw, convolution, outer_projections, rates

_ACTIVATIONS = {"silu": ops.silu, "gelu": ops.gelu}

# of A_log, and of w_dt and dt_bias
_LAWS = {
    "v1": (initializers.normal(), initializers.normal(0.1)),
    "v2": (initializers.zeros, initializers.uniform(0.0, 0.1)),
    "mamba_yolo": (initializers.zeros, initializers.normal()),
}


def cross_orders(h, w):
    """Rows, columns, and both backwards: (4, h w)."""
    forward = [orders.raster(h, w), orders.column(h, w)]
    return numpy.stack(forward + [orders.backwards(o) for o in forward])


class CrossScan(SelectiveLaw, Mixer):
    """What the mixers of this page share: projection, convolution, scans in four directions, norm and gate.

    A mixer sets the orders of the scans and overrides what it does in another way.
    """

    def _check_cross_scan(self, *switches):
        self._check_scan("ssm_ratio", *switches)
        f = self.name
        check.integer(f, "d_conv", self.d_conv, minimum=0)
        if self.d_conv > 1:
            check.integer(f, "d_conv", self.d_conv, odd=True)

    @property
    def _inner(self):
        return int(self.ssm_ratio * self.dim)

    def _cross_scan_parameters(self, bias, gate=True, norm=True):
        e = self._inner
        first, last = outer_projections(self.dim, 2 * e if gate else e, e, bias)
        specs = first
        if self.d_conv > 1:
            specs |= convolution((self.d_conv, self.d_conv, e), self.conv_bias)
        specs |= self._scan_parameters(e, directions=(4,))
        if norm:
            specs |= blocks.norm_parameters("out_norm", e)
        return specs | last

    def _convolve(self, p, v, activation=ops.silu):
        return activation(v if p.conv_w is None else ops.depthwise_conv2d(v, p.conv_w, p.conv_b))

    def _scan(self, p, u, visits):
        """The sum of four scans over the grid of u (b, h, w, e); all coefficients come from one product."""
        (b, h, w, e), n, rank = u.shape, self.d_state, self._rank
        l = h * w
        tokens = u.reshape(b, l, e)
        w_x = p.w_x.transpose(1, 0, 2).reshape(e, 4 * (rank + 2 * n))
        r, B, C = split(ops.linear(tokens, w_x).reshape(b, l, 4, rank + 2 * n), [rank, n, n])
        # one tap and a group per direction: a product for each, with its own weights
        w_dt = p.w_dt.transpose(1, 0, 2).reshape(1, rank, 4 * e)
        delta = ops.grouped_conv1d(r.reshape(b, l, 4 * rank), w_dt, groups=4).reshape(b, l, 4, e)
        s = ops.cross_selective_scan(
            tokens, delta, rates(p.A_log), B, C, p.D, p.dt_bias, orders=visits, delta_softplus=True
        )
        return s.reshape(u.shape)


@register(
    "ss2d",
    paper="VMamba: Visual State Space Model",
    year=2024,
    arxiv="2401.10166",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class Ss2d(CrossScan):
    """SS2D of VMamba: four selective scans over the grid, along rows and columns, forwards and backwards.

    (v, z) = x w_in + b_in;  u = act(conv(v));  s_k = selective_scan of u in order k, with coefficients
    (r, B, C) = u w_x[k];  y = (norm(s_0 + ... + s_3) act(z)) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    ssm_ratio : float
        Inner channels e = floor(ssm_ratio c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    d_conv : int
        Kernel size of the convolution, odd; 0 or 1 for none (the activation stays).
    act : {"silu", "gelu"}
        After the convolution and on the gate. Mamba-YOLO's SS2D is this mixer with "gelu".
    conv_bias, bias : bool
        Biases of the convolution, and of both outer projections.
    gate : bool
        Multiply by z.
    gate_act : bool
        Activation on z.
    out_act : bool
        GELU after the norm, before the gate.
    out_norm : {"layernorm", "none"}
    scan_mode : {"cross2d", "bidi", "unidi"}
        Rows and columns both ways; rows twice each way; rows four times.
    initialisation : {"v0", "v1", "v2", "mamba_yolo"}
        "v0" is that of all released models of VMamba. The others: A_log normal (v1) or 0, D = 1, and w_dt and
        dt_bias 0.1 times normal (v1), 0.1 times uniform in [0, 1) (v2), normal (mamba_yolo).
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
    x is (b, h, w, c), any grid. Tokens stay in storage order: a scan visits them in its own.
    Parameters: w_in (c, 2 e) or, without a gate, (c, e), b_in; conv_w (k, k, e), conv_b; per direction
    w_x (4, e, r + 2 n), w_dt (4, r, e), dt_bias (4, e), A_log (4, e, n), D (4, e); out_norm_scale, out_norm_bias
    (e,); w_out (e, c), b_out.
    6 c e + 8 e (2 r + 2 n) + 2 e k^2 + 4 e (9 n + 12) flops per token forward.
    Source: Liu et al. 2024, arXiv:2401.10166, section 4; MzeroMiko/VMamba, vmamba.py, SS2D. Wang et al. 2024,
    arXiv:2406.05835 (Mamba-YOLO).
    """

    dim: int
    d_state: int = 16
    ssm_ratio: float = 2.0
    dt_rank: int | str = "auto"
    d_conv: int = 3
    act: str = "silu"
    conv_bias: bool = True
    bias: bool = False
    gate: bool = True
    gate_act: bool = True
    out_act: bool = False
    out_norm: str = "layernorm"
    scan_mode: str = "cross2d"
    initialisation: str = "v0"

    def __post_init__(self):
        self._check_cross_scan("conv_bias", "bias", "gate", "gate_act", "out_act")
        check.choice(self.name, "act", self.act, tuple(_ACTIVATIONS))
        check.choice(self.name, "out_norm", self.out_norm, ("layernorm", "none"))
        check.choice(self.name, "scan_mode", self.scan_mode, ("cross2d", "bidi", "unidi"))
        check.choice(self.name, "initialisation", self.initialisation, ("v0", *_LAWS))

    def parameters(self):
        specs = self._cross_scan_parameters(self.bias, self.gate, self.out_norm == "layernorm")
        if self.initialisation != "v0":
            A_log, steps = _LAWS[self.initialisation]
            for name, law in (("A_log", A_log), ("w_dt", steps), ("dt_bias", steps)):
                specs[name] = Parameter(specs[name].shape, law)
        return specs

    def mix(self, p, x):
        e = self._inner
        v, z = split(ops.linear(x, p.w_in, p.b_in), [e, e if self.gate else 0])
        act = _ACTIVATIONS[self.act]
        s = self._scan(p, self._convolve(p, v, act), self._visits(*x.shape[1:3]))
        if self.out_norm == "layernorm":
            s = ops.layer_norm(s, p.out_norm_scale, p.out_norm_bias)
        if self.out_act:
            s = ops.gelu(s)
        if self.gate:
            s = ops.gate(z, s, activation=self.act if self.gate_act else "none")
        return ops.linear(s, p.w_out, p.b_out)

    def _visits(self, h, w):
        if self.scan_mode == "cross2d":
            return cross_orders(h, w)
        rows = orders.raster(h, w)
        back = orders.backwards(rows) if self.scan_mode == "bidi" else rows
        return numpy.stack([rows, rows, back, back])


class AtrousScan(CrossScan):
    """The scan over every second token, for the two mixers of EfficientVMamba."""

    def _check_atrous(self):
        self._check_cross_scan("conv_bias", "bias", "gate_act")
        check.choice(self.name, "out_norm", self.out_norm, ("layernorm", "sigmoid"))
        check.choice(self.name, "step_size", self.step_size, (2,))

    def _es2d(self, p, x):
        e = self._inner
        v, z = split(ops.linear(x, p.w_in, p.b_in), [e, e])
        s = self._atrous(p, self._convolve(p, v))
        if self.out_norm == "layernorm":
            s = ops.layer_norm(s, p.out_norm_scale, p.out_norm_bias)
        else:
            s = ops.sigmoid(s)
        s = ops.gate(z, s, activation="silu" if self.gate_act else "none")
        return ops.linear(s, p.w_out, p.b_out)

    def _atrous(self, p, u):
        """Four scans, each over a quarter of the tokens of the grid made even by zeros."""
        b, h, w, e = u.shape
        n, rank = self.d_state, self._rank
        u = _padded(u)
        A = rates(p.A_log)
        columns = orders.column(*(size // 2 for size in u.shape[1:3]))
        quarters = {}
        for k, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            part = u[:, row::2, column::2]
            tokens = part.reshape(b, -1, e)
            r, B, C = split(ops.linear(tokens, p.w_x[k]), [rank, n, n])
            group = (b, tokens.shape[1], 1, n)
            s = ops.selective_scan(
                tokens,
                ops.linear(r, p.w_dt[k]),
                A[k],
                B.reshape(group),
                C.reshape(group),
                p.D[k],
                delta_bias=p.dt_bias[k],
                delta_softplus=True,
                order=columns if row else None,
            )
            quarters[row, column] = s.reshape(b, part.shape[1], 1, part.shape[2], 1, e)
        rows = [graph.concatenate([quarters[row, 0], quarters[row, 1]], axis=4) for row in (0, 1)]
        return graph.concatenate(rows, axis=2).reshape(u.shape)[:, :h, :w]


def _padded(u):
    """u (b, h, w, e) with a row and a column of zeros after the last one where their number is odd."""
    for axis in (1, 2):
        if u.shape[axis] % 2:
            shape = [1 if i == axis else size for i, size in enumerate(u.shape)]
            u = graph.concatenate([u, graph.constant(numpy.zeros(shape), u)], axis=axis)
    return u


@register(
    "es2d",
    paper="EfficientVMamba: Atrous Selective Scan for Light Weight Visual Mamba",
    year=2024,
    arxiv="2403.09977",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class Es2d(AtrousScan):
    """ES2D of EfficientVMamba: four scans, each over every second token of every second row.

    (v, z) = x w_in + b_in;  u = silu(conv(v));  s = selective_scan of the tokens (2 i, 2 j) along rows,
    (2 i + 1, 2 j) along columns, (2 i, 2 j + 1) along rows, (2 i + 1, 2 j + 1) along columns;
    y = (norm(s) silu(z)) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    ssm_ratio : float
        Inner channels e = floor(ssm_ratio c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    d_conv : int
        Kernel size of the convolution, odd; 0 or 1 for none (the activation stays).
    conv_bias, bias : bool
        Biases of the convolution, and of both outer projections.
    gate_act : bool
        SiLU on z.
    out_norm : {"layernorm", "sigmoid"}
    step_size : int
        Distance of neighbours in a scan: 2, the only one that the paper's code covers the grid with.
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
    x is (b, h, w, c), any grid; odd sizes are padded with zeros at the end. The padded tokens are part of their
    scans: they have no input, but their steps softplus(dt_bias) let the state decay.
    Parameters as those of :class:`Ss2d`. A quarter of its scan.
    Source: Pei et al. 2024, arXiv:2403.09977, section 3.2; TerryPei/EfficientVMamba, vmamba_efficient.py.
    """

    dim: int
    d_state: int = 16
    ssm_ratio: float = 2.0
    dt_rank: int | str = "auto"
    d_conv: int = 3
    conv_bias: bool = True
    bias: bool = False
    gate_act: bool = True
    out_norm: str = "layernorm"
    step_size: int = 2

    def __post_init__(self):
        self._check_atrous()

    def parameters(self):
        return self._cross_scan_parameters(self.bias, norm=self.out_norm == "layernorm")

    def mix(self, p, x):
        return self._es2d(p, x)


@register(
    "evss",
    paper="EfficientVMamba: Atrous Selective Scan for Light Weight Visual Mamba",
    year=2024,
    arxiv="2403.09977",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class Evss(AtrousScan):
    """EVSS of EfficientVMamba: the sparse scan and a convolution side by side, both squeezed and excited.

    local(x) = gelu(bn(conv3x3(x))) w_local + b_local;
    SE(t) = t sigmoid(gelu(mean(norm(t)) w_se_reduce + b_se_reduce) w_se_expand + b_se_expand);
    y = SE(es2d(x)) + SE(local(x))

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    ssm_ratio : float
        Inner channels e = floor(ssm_ratio c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    d_conv : int
        Kernel size of the convolution in es2d, odd; 0 or 1 for none (the activation stays).
    conv_bias, bias : bool
        Biases of that convolution, and of both outer projections of es2d.
    gate_act : bool
        SiLU on z.
    out_norm : {"layernorm", "sigmoid"}
    step_size : int
        2.
    se_ratio : float
        Width floor(se_ratio c) >= 1 of the squeeze.
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
    x is (b, h, w, c), normalised by the block around. The parameters of SE are shared by both branches.
    Parameters: those of :class:`Es2d`; local_conv_w (3, 3, c), local_conv_b; bn_scale, bn_bias, bn_mean, bn_var (c,);
    w_local (c, c), b_local; se_norm_scale, se_norm_bias (c,); w_se_reduce (c, q), b_se_reduce, w_se_expand (q, c),
    b_se_expand.
    Source: Pei et al. 2024, arXiv:2403.09977, section 3.3, eq. 8; TerryPei/EfficientVMamba, vmamba_efficient.py.
    """

    dim: int
    d_state: int = 16
    ssm_ratio: float = 2.0
    dt_rank: int | str = "auto"
    d_conv: int = 3
    conv_bias: bool = True
    bias: bool = False
    gate_act: bool = True
    out_norm: str = "layernorm"
    step_size: int = 2
    se_ratio: float = 0.125

    def __post_init__(self):
        self._check_atrous()
        check.number(self.name, "se_ratio", self.se_ratio, above=0)
        if self._squeezed < 1:
            raise ValueError(
                f"{self.name}: se_ratio must leave at least one of {self.dim} channels, got {self.se_ratio}"
            )

    @property
    def _squeezed(self):
        return int(self.dim * self.se_ratio)

    def parameters(self):
        c, q, as_torch = self.dim, self._squeezed, initializers.fan_in_uniform
        specs = self._cross_scan_parameters(self.bias, norm=self.out_norm == "layernorm")
        specs |= {
            "local_conv_w": Parameter((3, 3, c), as_torch(9)),
            "local_conv_b": Parameter((c,), as_torch(9)),
        }
        specs |= blocks.batch_norm_parameters("bn", c)
        specs |= {"w_local": Parameter((c, c), as_torch(c)), "b_local": Parameter((c,), as_torch(c))}
        specs |= blocks.norm_parameters("se_norm", c)
        return specs | {
            "w_se_reduce": Parameter((c, q), as_torch(c)),
            "b_se_reduce": Parameter((q,), as_torch(c)),
            "w_se_expand": Parameter((q, c), as_torch(q)),
            "b_se_expand": Parameter((c,), as_torch(q)),
        }

    def mix(self, p, x):
        local = blocks.batch_normed(p, "bn", ops.depthwise_conv2d, x, p.local_conv_w, p.local_conv_b)
        local = ops.linear(ops.gelu(local), p.w_local, p.b_local)
        return self._excite(p, self._es2d(p, x)) + self._excite(p, local)

    def _excite(self, p, t):
        means = ops.token_mean(ops.layer_norm(t, p.se_norm_scale, p.se_norm_bias))
        hidden = ops.gelu(ops.linear(means, p.w_se_reduce, p.b_se_reduce))
        weights = ops.sigmoid(ops.linear(hidden, p.w_se_expand, p.b_se_expand))
        return t * weights.reshape(t.shape[0], 1, 1, -1)
