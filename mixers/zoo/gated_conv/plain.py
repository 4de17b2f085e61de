"""Convolutional mixers without a gate, and the controls of the MetaFormer papers."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import graph, initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
from mixers.registry import register
from mixers.zoo.blocks import (
    batch_norm,
    batch_norm_parameters,
    batch_normed,
    fold_batch_norm,
    norm_parameters,
)


@register(
    "ffnified_attention",
    paper="MetaMixer Is All You Need",
    year=2024,
    arxiv="2406.02021",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + k^2))",
)
@dataclass(frozen=True)
class FfnifiedAttention(Mixer):
    """FFNified attention: one depthwise convolution for query times key, an activation, another for the values.

    q = norm(x w_in);  y = value(act(key(q))), key and value depthwise convolutions

    Parameters
    ----------
    dim : int
        Channels c.
    key_kernel, value_kernel : int
        Sizes k of the convolutions, odd.
    key_reparam, value_reparam : bool, optional
        Whether a convolution is the sum of one of size k and one of size floor(k / 2), which must be odd, each
        with a batch norm and no bias; by default for k = 7 only.
    activation : {"gelu", "relu"}
    norm : {"batch", "layer", "none"}
        Batch norm after w_in, layer norm (eps 1e-6) before it, or none.
    in_bias : bool
        Bias b_in of the linear map. The image models have none, the super-resolution models one.

    Raises
    ------
    ValueError
        If a kernel size is even, an option is unknown, or a sum of two is asked for where floor(k / 2) is not odd.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in (c, c), b_in; norm_scale, norm_bias, with batch norm also norm_mean and
    norm_var; for n = key and value either w_n (k, k, c), b_n or w_n, w_n_small, and the batch norms n_norm_scale,
    ..., n_small_norm_scale, .... Weights normal of std 0.02, biases 0. With fixed statistics the two convolutions
    and their norms are computed as one convolution, in training apart.
    2 c^2 + 2 c (k1^2 + k2^2) flops per token forward, twice that backward.
    Source: Yun et al. 2024, arXiv:2406.02021, eq. 3; ysj9909/FFNet, Token_Mixer (images) and FFNifiedAttention
    (super-resolution).

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("ffnified_attention", dim=8, key_kernel=3, value_kernel=3)
    >>> mixer(mixer.init(0), numpy.ones((1, 8, 6, 8), "float32")).shape
    (1, 8, 6, 8)
    """

    dim: int
    key_kernel: int = 7
    value_kernel: int = 7
    key_reparam: bool | None = None
    value_reparam: bool | None = None
    activation: str = "gelu"
    norm: str = "batch"
    in_bias: bool = False

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        for role in ("key", "value"):
            k = check.integer(f, f"{role}_kernel", getattr(self, f"{role}_kernel"), minimum=1, odd=True)
            if getattr(self, f"{role}_reparam") is None:
                object.__setattr__(self, f"{role}_reparam", k == 7)
            if check.boolean(f, f"{role}_reparam", getattr(self, f"{role}_reparam")) and k // 2 % 2 == 0:
                raise ValueError(
                    f"{f}: {role}_reparam must be False unless floor({role}_kernel / 2) is odd, "
                    f"got {role}_kernel = {k}"
                )
        check.choice(f, "activation", self.activation, ("gelu", "relu"))
        check.choice(f, "norm", self.norm, ("batch", "layer", "none"))
        check.boolean(f, "in_bias", self.in_bias)

    def parameters(self):
        c = self.dim
        weight, offset = initializers.truncated_normal(0.02), initializers.zeros
        specs = {"w_in": Parameter((c, c), weight)}
        if self.in_bias:
            specs["b_in"] = Parameter((c,), offset)
        if self.norm != "none":
            specs |= (batch_norm_parameters if self.norm == "batch" else norm_parameters)("norm", c)
        for role, k, reparam in self._convolutions():
            specs[f"w_{role}"] = Parameter((k, k, c), weight)
            if reparam:
                specs[f"w_{role}_small"] = Parameter((k // 2, k // 2, c), weight)
                specs |= batch_norm_parameters(f"{role}_norm", c)
                specs |= batch_norm_parameters(f"{role}_small_norm", c)
            else:
                specs[f"b_{role}"] = Parameter((c,), offset)
        return specs

    def _convolutions(self):
        yield "key", self.key_kernel, self.key_reparam
        yield "value", self.value_kernel, self.value_reparam

    def mix(self, p, x):
        if self.norm == "batch":
            q = batch_normed(p, "norm", ops.linear, x, p.w_in, p.b_in)
        else:
            if self.norm == "layer":
                x = ops.layer_norm(x, p.norm_scale, p.norm_bias, eps=1e-6)
            q = ops.linear(x, p.w_in, p.b_in)
        activate = ops.gelu if self.activation == "gelu" else ops.relu
        key, value = (self._convolve(p, *convolution) for convolution in self._convolutions())
        return value(activate(key(q)))

    def _convolve(self, p, role, k, reparam):
        """The convolution with this role, as a function of its input."""
        w, small = p[f"w_{role}"], p.get(f"w_{role}_small")
        names = f"{role}_norm", f"{role}_small_norm"
        if not reparam:
            return lambda z: ops.depthwise_conv2d(z, w, p[f"b_{role}"])

        def apart(z):
            large, little = (
                batch_norm(p, name, ops.depthwise_conv2d(z, v)) for name, v in zip(names, (w, small))
            )
            return large + little

        def together(z):
            dtype = compute_dtype(z.dtype)
            (w_large, b_large), (w_small, b_small) = (
                fold_batch_norm(p, name, v, None, dtype) for name, v in zip(names, (w, small))
            )
            return ops.depthwise_conv2d(z, w_large + _embed(w_small, k), b_large + b_small)

        return apart if p.training else together


def _embed(kernel, k):
    """A kernel in the middle of zeros, (k, k, c)."""
    for axis in (0, 1):
        missing = k - kernel.shape[axis]
        shape = list(kernel.shape)
        shape[axis] = missing // 2
        zeros = graph.zeros_like(graph.stop_gradient(kernel), tuple(shape))
        kernel = graph.concatenate([zeros, kernel, zeros], axis=axis)
    return kernel


_ACTIVATIONS = ("star_relu", "squared_relu", "relu", "gelu", "identity")


@register(
    "separable_conv",
    paper="MetaFormer Baselines for Vision",
    year=2022,
    arxiv="2210.13452",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + k^2))",
)
@dataclass(frozen=True)
class SeparableConv(Mixer):
    """The inverted separable convolution of ConvFormer: widen, activate, convolve each channel, narrow.

    y = act2(conv(act1(x w_in + b_in))) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    expansion_ratio : float
        Width in between, e = floor(expansion_ratio c), >= 1.
    kernel_size : int
        k, odd.
    bias : bool
        Biases of all three maps.
    act1, act2 : {"star_relu", "squared_relu", "relu", "gelu", "identity"}
        Before and after the convolution. star_relu is s relu(z)^2 + t with s, t learned.

    Raises
    ------
    ValueError
        If the kernel size is even, the width is below 1 or an activation is unknown.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in (c, e), w_dw (k, k, e), w_out (e, c); with bias b_in (e,), b_dw (e,), b_out (c,);
    for each star_relu act1_scale and act1_bias, or act2_scale and act2_bias, (1,). Weights normal of std 0.02, scales
    1, biases 0. The zeros around the grid are those of the convolution: t is not added there.
    4 c e + 2 k^2 e flops per token forward, twice that backward.
    Source: Yu et al. 2022, arXiv:2210.13452, section 2; sail-sg/metaformer, SepConv and StarReLU.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("separable_conv", dim=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 8, 6, 8), "float32")).shape
    (1, 8, 6, 8)
    """

    dim: int
    expansion_ratio: float = 2.0
    kernel_size: int = 7
    bias: bool = False
    act1: str = "star_relu"
    act2: str = "identity"

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.number(f, "expansion_ratio", self.expansion_ratio, above=0)
        if self._hidden < 1:
            raise ValueError(
                f"{f}: expansion_ratio must give at least one channel, got {self.expansion_ratio}"
            )
        check.integer(f, "kernel_size", self.kernel_size, minimum=1, odd=True)
        check.boolean(f, "bias", self.bias)
        check.choice(f, "act1", self.act1, _ACTIVATIONS)
        check.choice(f, "act2", self.act2, _ACTIVATIONS)

    @property
    def _hidden(self):
        return int(self.expansion_ratio * self.dim)

    def parameters(self):
        c, e, k = self.dim, self._hidden, self.kernel_size
        weight, offset = initializers.truncated_normal(0.02), initializers.zeros
        specs = {
            "w_in": Parameter((c, e), weight),
            "b_in": Parameter((e,), offset),
            "w_dw": Parameter((k, k, e), weight),
            "b_dw": Parameter((e,), offset),
            "w_out": Parameter((e, c), weight),
            "b_out": Parameter((c,), offset),
        }
        if not self.bias:
            specs = {name: spec for name, spec in specs.items() if name.startswith("w_")}
        for which in ("act1", "act2"):
            if getattr(self, which) == "star_relu":
                specs[f"{which}_scale"] = Parameter((1,), initializers.ones)
                specs[f"{which}_bias"] = Parameter((1,), offset)
        return specs

    def mix(self, p, x):
        h = self._activate(p, "act1", ops.linear(x, p.w_in, p.b_in))
        v = self._activate(p, "act2", ops.depthwise_conv2d(h, p.w_dw, p.b_dw))
        return ops.linear(v, p.w_out, p.b_out)

    def _activate(self, p, which, z):
        kind = getattr(self, which)
        if kind == "identity":
            return z
        if kind in ("relu", "gelu"):
            return getattr(ops, kind)(z)
        # without a scale and a bias it is the squared relu
        return ops.star_relu(z, p.get(f"{which}_scale"), p.get(f"{which}_bias"))


@register(
    "conv_mixer",
    paper="Patches Are All You Need?",
    year=2022,
    arxiv="2201.09792",
    ranks=(2,),
    causal=False,
    cost="O(L C k^2)",
)
@dataclass(frozen=True)
class ConvMixer(Mixer):
    """ConvMixer's mixing of tokens: a depthwise convolution, GELU, and then a batch norm.

    y = norm(gelu(conv(x)))

    Parameters
    ----------
    dim : int
        Channels c.
    kernel_size : int
        k >= 1; an even kernel reaches one token further down and right than up and left.

    Notes
    -----
    x is (b, h, w, c). Parameters w_dw (k, k, c), b_dw (c,), uniform within 1 / k; norm_scale, norm_bias, norm_mean,
    norm_var (c,), eps 1e-5. The norm comes after the activation, so it is no part of the convolution.
    2 k^2 c flops per token forward, twice that backward.
    Source: Trockman & Kolter 2022, arXiv:2201.09792, eq. 2 without the skip; locuslab/convmixer.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("conv_mixer", dim=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 8, 6, 8), "float32")).shape
    (1, 8, 6, 8)
    """

    dim: int
    kernel_size: int = 9

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.integer(self.name, "kernel_size", self.kernel_size, minimum=1)

    def parameters(self):
        c, k = self.dim, self.kernel_size
        kernel = initializers.fan_in_uniform(k * k)
        specs = {"w_dw": Parameter((k, k, c), kernel), "b_dw": Parameter((c,), kernel)}
        return specs | batch_norm_parameters("norm", c)

    def mix(self, p, x):
        return batch_norm(p, "norm", ops.gelu(ops.depthwise_conv2d(x, p.w_dw, p.b_dw)))


@register(
    "random_mixing",
    paper="MetaFormer Baselines for Vision",
    year=2022,
    arxiv="2210.13452",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L^2 C)",
)
@dataclass(frozen=True)
class RandomMixing(Mixer):
    """Random mixing of RandFormer: a fixed random matrix over the tokens, the same for every channel.

    y[n] = sum_m w[n, m] x[m]

    Parameters
    ----------
    dim : int
        Channels.
    grid : tuple of int
        (l,) or (h, w), n tokens; images are read row by row.
    trainable : bool
        Whether training changes w. The backward returns its gradient in either case.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameter w (n, n): softmax over each row of uniform numbers in [0, 1), so rows
    add up to 1 at first.
    2 n^2 c flops per batch item forward, twice that backward.
    Source: Yu et al. 2022, arXiv:2210.13452, section 2; sail-sg/metaformer, RandomMixing.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("random_mixing", dim=2, grid=(3, 3))
    >>> mixer(mixer.init(0), numpy.ones((1, 3, 3, 2), "float32"))[0, 0, 0].round(3)
    array([1., 1.], dtype=float32)
    """

    dim: int
    grid: tuple
    trainable: bool = False

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid))
        check.boolean(self.name, "trainable", self.trainable)

    def accepts_grid(self, grid):
        return math.prod(grid) == math.prod(self.grid)

    def parameters(self):
        n = math.prod(self.grid)
        return {"w": Parameter((n, n), _random_rows, frozen=not self.trainable)}

    def mix(self, p, x):
        tokens = x.reshape(x.shape[0], p.w.shape[0], self.dim)
        return ops.axis_linear(tokens, p.w).reshape(x.shape)


def _random_rows(rng, shape):
    """Softmax over each row of uniform numbers."""
    values = numpy.exp(rng.random(shape))
    return values / values.sum(axis=1, keepdims=True)


@register(
    "identity_mixing",
    paper="MetaFormer Baselines for Vision",
    year=2022,
    arxiv="2210.13452",
    ranks=(1, 2),
    causal=False,
    cost="O(L C)",
)
@dataclass(frozen=True)
class IdentityMixing(Mixer):
    """No mixing (IdentityFormer): y = x, the control that shows what the rest of a network does by itself.

    Parameters
    ----------
    dim : int
        Channels.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c), and there are no parameters. y and dx are new arrays, as everywhere.
    Source: Yu et al. 2022, arXiv:2210.13452, section 2.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixers.create("identity_mixing", dim=2)({}, numpy.ones((1, 1, 2)))
    array([[[1., 1.]]])
    """

    dim: int

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)

    def mix(self, p, x):
        # a product is a new array; half types would come out wider
        return (x * 1.0).astype(x.dtype, copy=False)
