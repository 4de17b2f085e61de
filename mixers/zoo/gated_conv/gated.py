"""Convolutions whose result is multiplied with other features of the same token."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import concatenate, constant, split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import batch_norm_parameters, batch_normed, norm_parameters


@register(
    "gated_cnn",
    paper="MambaOut: Do We Really Need Mamba for Vision?",
    year=2024,
    arxiv="2405.07992",
    ranks=(2,),
    causal=False,
    cost="O(L C (r C + k^2))",
)
@dataclass(frozen=True)
class GatedCnn(Mixer):
    """MambaOut's gated CNN: a gate times a stream of which some channels are convolved.

    (g, i, v) = x w_in + b_in;  y = (gelu(g) (i, conv(v))) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    expansion_ratio : float
        Width of the gate, e = floor(expansion_ratio c).
    kernel_size : int
        k, odd.
    conv_ratio : float
        Convolved channels, floor(conv_ratio c): a fraction of c, not of e; the other channels of the
        stream pass through.

    Raises
    ------
    ValueError
        If the kernel size is even, or the convolved channels are fewer than 1 or more than e.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in (c, 2 e) with columns gate, passed and convolved, b_in (2 e,);
    w_dw (k, k, conv_ratio c), b_dw; w_out (e, c), b_out (c,). Weights normal of std 0.02, biases 0.
    The block has no other channel mixing: the expansion stands for it.
    6 c e + 2 k^2 conv_ratio c flops per token forward, twice that backward.
    Source: Yu & Wang 2024, arXiv:2405.07992, algorithm 1 without the norm and the skip;
    yuweihao/MambaOut, GatedCNNBlock.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("gated_cnn", dim=12)
    >>> mixer(mixer.init(0), numpy.ones((1, 8, 6, 12), "float32")).shape
    (1, 8, 6, 12)
    """

    dim: int
    expansion_ratio: float = 8 / 3
    kernel_size: int = 7
    conv_ratio: float = 1.0

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.number(self.name, "expansion_ratio", self.expansion_ratio, above=0)
        check.integer(self.name, "kernel_size", self.kernel_size, minimum=1, odd=True)
        check.number(self.name, "conv_ratio", self.conv_ratio, above=0)
        if not 1 <= self._convolved <= self._hidden:
            raise ValueError(
                f"{self.name}: conv_ratio must give 1 to {self._hidden} convolved channels, "
                f"got {self.conv_ratio} for {self._convolved}"
            )

    @property
    def _hidden(self):
        return int(self.expansion_ratio * self.dim)

    @property
    def _convolved(self):
        return int(self.conv_ratio * self.dim)

    def parameters(self):
        c, e, v, k = self.dim, self._hidden, self._convolved, self.kernel_size
        weight, offset = initializers.truncated_normal(0.02), initializers.zeros
        return {
            "w_in": Parameter((c, 2 * e), weight),
            "b_in": Parameter((2 * e,), offset),
            "w_dw": Parameter((k, k, v), weight),
            "b_dw": Parameter((v,), offset),
            "w_out": Parameter((e, c), weight),
            "b_out": Parameter((c,), offset),
        }

    def mix(self, p, x):
        e, v = self._hidden, self._convolved
        g, i, v = split(ops.linear(x, p.w_in, p.b_in), [e, e - v, v])
        m = ops.depthwise_conv2d(v, p.w_dw, p.b_dw)
        if i.shape[-1]:
            m = concatenate([i, m])
        return ops.linear(ops.gate(g, m), p.w_out, p.b_out)


@register(
    "lka",
    paper="Visual Attention Network",
    year=2022,
    arxiv="2202.09741",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + k^2))",
)
@dataclass(frozen=True)
class Lka(Mixer):
    """Large kernel attention: features times the response of a large kernel, made of two small ones.

    u = gelu(x w_in + b_in);  a = dilated(local(u)) w_attn + b_attn;  y = (u a) w_out + b_out + x

    Parameters
    ----------
    dim : int
        Channels c.
    projections : bool
        The whole module as above; without, u = x and y = u a.
    local_kernel : int
        Size of the first convolution, odd.
    dilated_kernel : int
        Size of the second one, odd.
    dilation : int
        Of the second one, >= 1. The defaults reach 11 tokens far in each direction.

    Raises
    ------
    ValueError
        If a kernel size is even or dilation < 1.

    Notes
    -----
    x is (b, h, w, c). Parameters w_local (k, k, c), b_local; w_dilated, b_dilated; w_attn (c, c), b_attn; with
    projections w_in, w_out (c, c), b_in, b_out. Convolutions normal of variance 2 / k^2, linears of 2 / c,
    biases 0. The result of the first convolution ends at the border of the grid, so the two are not one
    large convolution there. Nothing bounds the products: y is cubic in u.
    2 c (k1^2 + k2^2) + 6 c^2 flops per token forward, twice that backward.
    Source: Guo et al. 2022, arXiv:2202.09741, eq. 1 and 2; Visual-Attention-Network/VAN-Classification, Attention
    (LKA without projections).

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("lka", dim=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 12, 9, 8), "float32")).shape
    (1, 12, 9, 8)
    """

    dim: int
    projections: bool = True
    local_kernel: int = 5
    dilated_kernel: int = 7
    dilation: int = 3

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.boolean(f, "projections", self.projections)
        check.integer(f, "local_kernel", self.local_kernel, minimum=1, odd=True)
        check.integer(f, "dilated_kernel", self.dilated_kernel, minimum=1, odd=True)
        check.integer(f, "dilation", self.dilation, minimum=1)

    def parameters(self):
        c = self.dim
        specs = {}
        for name in ("w_in", "w_out") if self.projections else ():
            specs |= _square(name, c)
        for name, k in (("local", self.local_kernel), ("dilated", self.dilated_kernel)):
            specs[f"w_{name}"] = Parameter((k, k, c), initializers.normal(math.sqrt(2.0) / k))
            specs[f"b_{name}"] = Parameter((c,), initializers.zeros)
        return specs | _square("w_attn", c)

    def mix(self, p, x):
        u = ops.gelu(ops.linear(x, p.w_in, p.b_in)) if self.projections else x
        t = ops.depthwise_conv2d(u, p.w_local, p.b_local)
        t = ops.depthwise_conv2d(t, p.w_dilated, p.b_dilated, dilation=self.dilation)
        s = ops.mul(u, ops.linear(t, p.w_attn, p.b_attn))
        return ops.linear(s, p.w_out, p.b_out) + x if self.projections else s


def _square(name, c):
    """A linear map from c to c channels, as VAN starts it."""
    return {
        name: Parameter((c, c), initializers.normal(math.sqrt(2.0 / c))),
        name.replace("w_", "b_"): Parameter((c,), initializers.zeros),
    }


@register(
    "catm",
    paper="CAS-ViT: Convolutional Additive Self-attention Vision Transformers",
    year=2024,
    arxiv="2408.03703",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class Catm(Mixer):
    """Convolutional additive token mixer of CAS-ViT: q and k gated by place and by channel, added, and a gate for v.

    (q, k, v) = x w_qkv;  y = proj(mix(gated(q) + gated(k)) v), where gated multiplies by
    s = sigmoid(relu(norm(conv(z))) w_spatial), one number per token, and by
    sigmoid(mean over tokens of (s z) w_channel), one per channel.

    Parameters
    ----------
    dim : int
        Channels c.
    qkv_bias : bool
        Bias b_qkv of the first linear map.

    Raises
    ------
    ValueError
        If the grid has no tokens.

    Notes
    -----
    x is (b, h, w, c). All convolutions are depthwise 3 x 3. Parameters w_qkv (c, 3 c), b_qkv; for n = q and k:
    w_n_dw (3, 3, c), b_n_dw, a batch norm n_norm_scale, _bias, _mean, _var, w_n_spatial (c, 1), w_n_channel (c, c);
    w_mix, w_proj (3, 3, c), b_mix, b_proj. Weights and biases uniform within 1 / sqrt(fan in).
    6 c^2 + 76 c flops per token forward and 4 c^2 per image; the channel gates see the whole grid.
    Source: Zhang et al. 2024, arXiv:2408.03703, section 3.2; Tianfang-Zhang/CAS-ViT, AdditiveTokenMixer, whose
    maps after the sum and at the end are convolutions where the paper says linear.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("catm", dim=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 8, 6, 8), "float32")).shape
    (1, 8, 6, 8)
    """

    dim: int
    qkv_bias: bool = False

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.boolean(self.name, "qkv_bias", self.qkv_bias)

    def parameters(self):
        c = self.dim
        by_channels, by_window = initializers.fan_in_uniform(c), initializers.fan_in_uniform(9)
        conv = lambda name: {
            f"w_{name}": Parameter((3, 3, c), by_window),
            f"b_{name}": Parameter((c,), by_window),
        }
        specs = {"w_qkv": Parameter((c, 3 * c), by_channels)}
        if self.qkv_bias:
            specs["b_qkv"] = Parameter((3 * c,), by_channels)
        for n in "qk":
            specs |= conv(f"{n}_dw") | batch_norm_parameters(f"{n}_norm", c)
            specs[f"w_{n}_spatial"] = Parameter((c, 1), by_channels)
            specs[f"w_{n}_channel"] = Parameter((c, c), by_channels)
        return specs | conv("mix") | conv("proj")

    def mix(self, p, x):
        q, k, v = split(ops.linear(x, p.w_qkv, p.b_qkv), [self.dim] * 3)
        m = ops.depthwise_conv2d(self._gated(p, "q", q) + self._gated(p, "k", k), p.w_mix, p.b_mix)
        return ops.depthwise_conv2d(ops.gate(m, v, activation="none"), p.w_proj, p.b_proj)

    def _gated(self, p, n, z):
        """z times a gate per token, then times a gate per channel that is made from the first product."""
        e = batch_normed(p, f"{n}_norm", ops.depthwise_conv2d, z, p[f"w_{n}_dw"], p[f"b_{n}_dw"])
        z = ops.mul(z, ops.sigmoid(ops.linear(ops.relu(e), p[f"w_{n}_spatial"])))
        gate = ops.sigmoid(ops.linear(ops.token_mean(z), p[f"w_{n}_channel"]))
        return ops.mul(z, gate.reshape(gate.shape[0], 1, 1, self.dim))


@register(
    "gnconv",
    paper="HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
    year=2022,
    arxiv="2207.14284",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + k^2))",
)
@dataclass(frozen=True)
class Gnconv(Mixer):
    """Recursive gated convolution of HorNet: products of order n + 1, over groups of channels that double in width.

    (p, a) = x w_in + b_in;  (m_0, ..., m_{n-1}) = scale filter(a);  r_0 = p m_0;
    r_k = (r_{k-1} w_pw + b_pw) m_k;  y = r_{n-1} w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c, a multiple of 2^(order - 1).
    order : int
        n >= 1.
    scale : float
        Of the convolved stream, its bias included; the released models have 1/3.
    filter : {"dwconv", "gf"}
        A depthwise convolution; or for half of the channels one of 3 x 3 and for the others a product in the
        spectrum of the whole grid, between two layer norms (eps 1e-6).
    kernel_size : int
        k of "dwconv", odd.
    filter_h, filter_w : int
        Size of the spectral filter of "gf"; that of an (h, w) grid is (h, w // 2 + 1). For other grids it is
        interpolated between aligned corners.

    Raises
    ------
    ValueError
        If an option is out of its range, or with "gf" the width of the first group, c / 2^(order - 1), is odd.

    Notes
    -----
    x is (b, h, w, c). Group i has c_i = c / 2^(n-1-i) channels, s = 2 c - c_0 is their sum. Parameters
    w_in (c, 2 c) with columns p, then a; w_pw_i (c_i, c_{i+1}), b_pw_i; w_out (c, c), b_out; "dwconv": w_dw (k, k, s),
    b_dw; "gf": pre_norm and post_norm (s,), w_dw (3, 3, s / 2), w_filter_re, w_filter_im (filter_h, filter_w, s / 2).
    Weights normal of std 0.02, biases 0. Halves of "gf" alternate in its result, channel by channel.
    y is a polynomial of degree n + 1 in x: half types overflow early.
    6 c^2 + 4/3 c^2 + 2 k^2 s flops per token forward, twice that backward.
    Source: Rao et al. 2022, arXiv:2207.14284, eq. 3-5; raoyongming/HorNet, gnconv, which multiplies by scale where
    the paper divides.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("gnconv", dim=16, order=3, scale=1 / 3)
    >>> mixer(mixer.init(0), numpy.ones((1, 7, 5, 16), "float32")).shape
    (1, 7, 5, 16)
    """

    dim: int
    order: int = 5
    scale: float = 1.0
    filter: str = "dwconv"
    kernel_size: int = 7
    filter_h: int = 14
    filter_w: int = 8

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "order", self.order, minimum=1)
        check.number(f, "scale", self.scale)
        check.choice(f, "filter", self.filter, ("dwconv", "gf"))
        check.integer(f, "kernel_size", self.kernel_size, minimum=1, odd=True)
        check.integer(f, "filter_h", self.filter_h, minimum=1)
        check.integer(f, "filter_w", self.filter_w, minimum=1)
        if self.dim % 2 ** (self.order - 1):
            raise ValueError(
                f"{f}: dim must be a multiple of 2^(order - 1) = {2 ** (self.order - 1)}, got {self.dim}"
            )
        if self.filter == "gf" and self._widths[0] % 2:
            raise ValueError(
                f"{f}: dim must be a multiple of 2^order = {2**self.order} with filter='gf', got {self.dim}"
            )

    @property
    def _widths(self):
        return [self.dim >> (self.order - 1 - i) for i in range(self.order)]

    def parameters(self):
        c, widths = self.dim, self._widths
        stream, k = sum(widths), self.kernel_size
        weight, offset = initializers.truncated_normal(0.02), initializers.zeros
        specs = {"w_in": Parameter((c, 2 * c), weight), "b_in": Parameter((2 * c,), offset)}
        if self.filter == "dwconv":
            specs |= {"w_dw": Parameter((k, k, stream), weight), "b_dw": Parameter((stream,), offset)}
        else:
            half = stream // 2
            spectrum = Parameter((self.filter_h, self.filter_w, half), weight)
            specs |= norm_parameters("pre_norm", stream) | {"w_dw": Parameter((3, 3, half), weight)}
            specs |= {"w_filter_re": spectrum, "w_filter_im": spectrum}
            specs |= norm_parameters("post_norm", stream)
        for i, (narrow, wide) in enumerate(zip(widths, widths[1:])):
            specs[f"w_pw_{i}"] = Parameter((narrow, wide), weight)
            specs[f"b_pw_{i}"] = Parameter((wide,), offset)
        return specs | {"w_out": Parameter((c, c), weight), "b_out": Parameter((c,), offset)}

    def mix(self, p, x):
        widths = self._widths
        r, a = split(ops.linear(x, p.w_in, p.b_in), [widths[0], sum(widths)])
        filtered = self._convolved(p, a) if self.filter == "dwconv" else self._globally_filtered(p, a)
        for i, m in enumerate(split(filtered, widths)):
            if i > 0:
                r = ops.linear(r, p[f"w_pw_{i - 1}"], p[f"b_pw_{i - 1}"])
            # a gate reads the slice m where it is
            r = ops.gate(r, m, activation="none")
        return ops.linear(r, p.w_out, p.b_out)

    def _convolved(self, p, a):
        # scaling the kernel spares a pass over the stream
        return ops.depthwise_conv2d(a, p.w_dw * self.scale, p.b_dw * self.scale)

    def _globally_filtered(self, p, a):
        half = a.shape[-1] // 2
        near, far = split(ops.layer_norm(a, p.pre_norm_scale, p.pre_norm_bias, eps=1e-6), [half, half])
        grid = a.shape[1], a.shape[2] // 2 + 1
        parts = [
            ops.depthwise_conv2d(near, p.w_dw),
            ops.spectral_filter(far, resized(p.w_filter_re, grid), resized(p.w_filter_im, grid)),
        ]
        mixed = concatenate([v.reshape(*v.shape, 1) for v in parts]).reshape(a.shape)
        scale, bias = p.post_norm_scale * self.scale, p.post_norm_bias * self.scale
        return ops.layer_norm(mixed, scale, bias, eps=1e-6)


def resized(table, grid):
    """A table (h, w, c) on another grid: linear in between, the corners stay corners."""
    for axis, size in enumerate(grid):
        if table.shape[axis] != size:
            weights = constant(_interpolation(table.shape[axis], size), table)
            table = ops.axis_linear(table.reshape(1, *table.shape), weights, axis=axis + 1)
            table = table.reshape(table.shape[1:])
    return table


def _interpolation(old, new):
    """The matrix (new, old) of linear interpolation between aligned corners."""
    positions = numpy.linspace(0.0, old - 1.0, new)
    return numpy.maximum(0.0, 1.0 - numpy.abs(positions[:, None] - numpy.arange(old)))
