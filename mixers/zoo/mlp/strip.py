"""Strip-MLP: token mixing along rows and columns with their neighbours, dense and by convolution."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import graph, ops
from mixers.initializers import fan_in_uniform, truncated_normal
from mixers.mixer import Mixer, Parameter, Params
from mixers.registry import register
from mixers.zoo.blocks import batch_norm, batch_norm_parameters

_PAPER = {
    "paper": "Strip-MLP: Efficient Token Interaction for Vision MLP",
    "year": 2023,
    "arxiv": "2307.11458",
    "ranks": (2,),
    "causal": False,
}


def _check_strips(function, channels, groups, strip_width, what="dim"):
    check.divides(function, "groups", check.integer(function, "groups", groups, minimum=1), what, channels)
    check.integer(function, "strip_width", strip_width, minimum=1, odd=True)


def _strip_weights(n, shared, strip_width):
    """Weight and bias of a strip linear over n positions."""
    law = fan_in_uniform(n * strip_width)
    return Parameter((shared, strip_width, n, n), law), Parameter((shared, n), law)


@register("strip_layer", **_PAPER, grid_tied=True, cost="O(L C K n)")
@dataclass(frozen=True)
class StripLayer(Mixer):
    """The Strip-MLP layer: each row (or column) is mixed by a dense map together with its neighbours.

    Channel i J + j of position n in strip s: y[s, n] = b[j, n] + sum_{t, m} w[j, t, n, m] x[s + t - K // 2, m], zero
    beyond the grid; the weights follow j and are shared by all groups i.

    Parameters
    ----------
    dim : int
        Channels D.
    grid : (int, int)
        (h, w); the weights are tied to the size n of the mixed axis, the other one may differ.
    axis : {"w", "h"}
        "w" mixes the columns of each row, "h" the rows of each column.
    groups : int
        G, >= 1, divides D; J = D / G. The paper has 4, or 2 where D is a multiple of 80.
    strip_width : int
        K, odd, >= 1: the strips that are read at once.
    bias : bool

    Notes
    -----
    x is (b, h, w, c). Parameters w (D/G, K, n, n), b (D/G, n), U(+-1/sqrt(n K)). 2 K n flops per element forward.
    Source: Cao et al. 2023, arXiv:2307.11458, section 3.2; official projections of strip_mlp.
    """

    dim: int
    grid: tuple
    axis: str
    groups: int = 4
    strip_width: int = 3
    bias: bool = True

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
        check.choice(self.name, "axis", self.axis, ("w", "h"))
        _check_strips(self.name, self.dim, self.groups, self.strip_width)
        check.boolean(self.name, "bias", self.bias)

    def accepts_grid(self, grid):
        mixed = 0 if self.axis == "h" else 1
        return grid[mixed] == self.grid[mixed]

    def parameters(self):
        n = self.grid[0] if self.axis == "h" else self.grid[1]
        w, b = _strip_weights(n, self.dim // self.groups, self.strip_width)
        return {"w": w, "b": b} if self.bias else {"w": w}

    def mix(self, p, x):
        return ops.strip_linear(x, p.w, p.b, axis=self.axis)


def _cgsmm_parameters(d, grid, groups, strip_width):
    h, w = grid
    w_row, b_row = _strip_weights(w, d // groups, strip_width)
    w_col, b_col = _strip_weights(h, d // groups, strip_width)
    return {
        "pos_row": Parameter((2 * h + 1, d), truncated_normal(0.02)),
        "w_row": w_row,
        "b_row": b_row,
        "w_fuse_row": Parameter((2 * d, d), fan_in_uniform(2 * d)),
        **batch_norm_parameters("bn", d),
        "pos_col": Parameter((2 * w + 1, d), truncated_normal(0.02)),
        "w_col": w_col,
        "b_col": b_col,
        "w_fuse_col": Parameter((2 * d, d), fan_in_uniform(2 * d)),
    }


def _cgsmm(p, x, eps):
    """Rows, then columns; both times what was mixed and the raw input are joined by a linear map."""
    d = x.shape[-1]
    u = ops.strip_linear(ops.relative_bias(x, p.pos_row), p.w_row, p.b_row, axis="w")
    # [u, x] w = u w[:d] + x w[d:]
    f = ops.linear(u, p.w_fuse_row[:d]) + ops.linear(x, p.w_fuse_row[d:])
    v = ops.relative_bias(ops.gelu(batch_norm(p, "bn", f, eps)), p.pos_col)
    t = ops.strip_linear(v, p.w_col, p.b_col, axis="h")
    # here the raw input comes first
    return ops.linear(x, p.w_fuse_col[:d]) + ops.linear(t, p.w_fuse_col[d:])


@register("strip_cgsmm", **_PAPER, grid_tied=True, cost="O(L C (K n + C))")
@dataclass(frozen=True)
class StripCgsmm(Mixer):
    """Strip-MLP's cascade group strip mixing module: strip layers over rows, then over columns.

    u = strip_w(x + pos_row); f = [u | x] w_fuse_row; v = gelu(BN(f)) + pos_col; t = strip_h(v);
    y = [x | t] w_fuse_col. Position biases depend on column minus row.

    Parameters
    ----------
    dim : int
        Channels D.
    grid : (int, int)
        (h, w), to which the weights are tied.
    groups : int
        G, >= 1, divides D; J = D / G.
    strip_width : int
        K, odd, >= 1.
    eps : float
        Of the batch norm, >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters pos_row (2 h + 1, D), w_row (J, K, w, w), b_row (J, w), w_fuse_row (2 D, D),
    ``bn_*`` (D,), pos_col (2 w + 1, D), w_col (J, K, h, h), b_col (J, h), w_fuse_col (2 D, D). Tables normal
    with std 0.02, the rest U(+-1/sqrt(fan_in)). 2 K (h + w) + 8 D flops per element forward.
    Source: Cao et al. 2023, arXiv:2307.11458, section 3.3; official method strip_mlp.
    """

    dim: int
    grid: tuple
    groups: int = 4
    strip_width: int = 3
    eps: float = 1e-5

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
        _check_strips(self.name, self.dim, self.groups, self.strip_width)
        check.number(self.name, "eps", self.eps, minimum=0.0)

    def parameters(self):
        return _cgsmm_parameters(self.dim, self.grid, self.groups, self.strip_width)

    def mix(self, p, x):
        return _cgsmm(p, x, self.eps)


def _lsmm_parameters(d, kernel, strip_width):
    conv = fan_in_uniform(kernel * strip_width)
    hidden = d // 2
    return {
        "w_wide": Parameter((strip_width, kernel, d), conv),
        "w_tall": Parameter((kernel, strip_width, d), conv),
        "w_in": Parameter((d, hidden), fan_in_uniform(d)),
        "b_in": Parameter((hidden,), fan_in_uniform(d)),
        "w_out": Parameter((hidden, 3 * d), fan_in_uniform(hidden)),
        "b_out": Parameter((3 * d,), fan_in_uniform(hidden)),
    }


def _lsmm(p, x):
    """The order of the branches is tall, wide, identity."""
    tall, wide = ops.depthwise_conv2d(x, p.w_tall), ops.depthwise_conv2d(x, p.w_wide)
    return ops.branch_attention(tall, wide, x, p.w_in, p.w_out, p.b_in, p.b_out)


@register("strip_lsmm", **_PAPER, cost="O(L C k K)")
@dataclass(frozen=True)
class StripLsmm(Mixer):
    """Strip-MLP's local strip mixing module: a tall and a wide depthwise convolution and the input itself, weighed.

    y = sum of the three, weighed per image and channel by softmax(gelu(a w_in + b_in) w_out + b_out), a the mean over
    tokens of their sum.

    Parameters
    ----------
    dim : int
        Channels D, >= 2.
    kernel : int
        Long side of the kernels, odd.
    strip_width : int
        Short side, odd.

    Notes
    -----
    x is (b, h, w, c). Parameters w_wide (strip_width, kernel, D), w_tall (kernel, strip_width, D), w_in (D, D // 2),
    b_in (D // 2,), w_out (D // 2, 3 D), b_out (3 D,), U(+-1/sqrt(fan_in)). Output 3 d + k of w_out belongs to branch k.
    4 kernel strip_width + 9 flops per element forward.
    Source: Cao et al. 2023, arXiv:2307.11458, section 3.4; official StripMLP_Block.
    """

    dim: int
    kernel: int = 7
    strip_width: int = 3

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        if self.dim < 2:
            raise ValueError(f"{self.name}: dim must be >= 2, got {self.dim}")
        check.integer(self.name, "kernel", self.kernel, minimum=1, odd=True)
        check.integer(self.name, "strip_width", self.strip_width, minimum=1, odd=True)

    def parameters(self):
        return _lsmm_parameters(self.dim, self.kernel, self.strip_width)

    def mix(self, p, x):
        return _lsmm(p, x)


@register("strip_mlp", **_PAPER, grid_tied=True, cost="O(L C (K n + C))")
@dataclass(frozen=True)
class StripMlp(Mixer):
    """Strip-MLP's token mixing: one half of the channels mixed along strips, the other locally.

    d = conv(gelu(BN_in(x))); h = gelu(BN_mid(d w_in + b_in)); y = [cgsmm(h[:D]) | lsmm(h[D:])] w_out, D = C / 2.

    Parameters
    ----------
    dim : int
        Channels C, even, >= 4.
    grid : (int, int)
        (h, w), to which the weights are tied.
    groups : int
        Of :class:`StripCgsmm`, divides C / 2. The paper has 4, or 2 where C is a multiple of 80.
    strip_width : int
        Odd: strips read at once, and the short side of the local kernels.
    kernel : int
        Long side of the local kernels, odd.
    eps : float
        Of the batch norms, >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters ``bn_in_*``, ``bn_mid_*`` (C,), w_dw (3, 3, C), w_in (C, C), b_in (C,), those of
    :class:`StripCgsmm` with prefix ``cg_`` and of :class:`StripLsmm` with prefix ``ls_``, w_out (C, C);
    U(+-1/sqrt(fan_in)). 18 + 4 C flops per element forward, and those of the two parts on half of the elements.
    Source: Cao et al. 2023, arXiv:2307.11458, figure 2 and section 3; official TokenMixing.
    """

    dim: int
    grid: tuple
    groups: int = 4
    strip_width: int = 3
    kernel: int = 7
    eps: float = 1e-5

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        if self.dim % 2 or self.dim < 4:
            raise ValueError(f"{self.name}: dim must be even and >= 4, got {self.dim}")
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
        _check_strips(self.name, self.dim // 2, self.groups, self.strip_width, what="dim / 2")
        check.integer(self.name, "kernel", self.kernel, minimum=1, odd=True)
        check.number(self.name, "eps", self.eps, minimum=0.0)

    def parameters(self):
        c, d = self.dim, self.dim // 2
        cg = _cgsmm_parameters(d, self.grid, self.groups, self.strip_width)
        ls = _lsmm_parameters(d, self.kernel, self.strip_width)
        return {
            **batch_norm_parameters("bn_in", c),
            "w_dw": Parameter((3, 3, c), fan_in_uniform(9)),
            "w_in": Parameter((c, c), fan_in_uniform(c)),
            "b_in": Parameter((c,), fan_in_uniform(c)),
            **batch_norm_parameters("bn_mid", c),
            **{f"cg_{name}": spec for name, spec in cg.items()},
            **{f"ls_{name}": spec for name, spec in ls.items()},
            "w_out": Parameter((c, c), fan_in_uniform(c)),
        }

    def mix(self, p, x):
        d = ops.depthwise_conv2d(ops.gelu(batch_norm(p, "bn_in", x, self.eps)), p.w_dw)
        h = ops.gelu(batch_norm(p, "bn_mid", ops.linear(d, p.w_in, p.b_in), self.eps))
        strips, local = graph.split(h, [self.dim // 2] * 2)
        cg, ls = _part(p, "cg_"), _part(p, "ls_")
        y = graph.concatenate([_cgsmm(cg, strips, self.eps), _lsmm(ls, local)])
        p.updates.update({f"cg_{name}": value for name, value in cg.updates.items()})
        return ops.linear(y, p.w_out)


def _part(p, prefix):
    """The parameters of a part, without their prefix."""
    part = Params({n.removeprefix(prefix): v for n, v in p.items() if n.startswith(prefix)})
    part.training, part.updates = p.training, {}
    return part
