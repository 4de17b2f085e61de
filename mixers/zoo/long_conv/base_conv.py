"""The gated convolution of the Zoology study."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import constant
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
from mixers.registry import register
from mixers.zoo.long_conv.filters import positions

# width of the network that generates a long filter
_WIDTH = 16


@register(
    "base_conv",
    paper="Zoology: Measuring and Improving Recall in Efficient Language Models",
    year=2023,
    arxiv="2312.04927",
    ranks=(1,),
    causal=True,
    grid_tied=True,
    cost="O(L C (C + log L))",
)
@dataclass(frozen=True)
class BaseConv(Mixer):
    """A causal convolution times a linear map: y = conv(x) (x w + b) + x.

    A short convolution has a bias, conv(x)[n] = sum_j w_conv[j] x[n - k + 1 + j] + b_conv; a long one a skip,
    h * x + x.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int,)
        Longest sequence.
    kernel_size : int
        Taps k of a short convolution, >= 1, or -1 for a filter as long as the sequence.
    implicit : bool
        Generate the long filter by a network, relu(e w_filter_0 + b_filter_0) w_filter_1 + b_filter_1 with e three
        features of the position; else it is a free parameter.
    use_act : bool
        SiLU on both factors.

    Raises
    ------
    ValueError
        If an option is out of its range, or x has more tokens than grid says.

    Notes
    -----
    x is (b, l, c); causal. Parameters: w (c, c), b (c,); short: w_conv (k, c), b_conv (c,); long: w_filter_0 (3, 16),
    b_filter_0 (16,), w_filter_1 (16, c), b_filter_1 (c,), or filter (grid, c), N(0, 1). The filter is computed at least
    in float32. A shorter sequence uses the beginning of the filter.
    The skip and the residual x are those of the authors' code; the paper's equation has neither.
    About 2 l c^2 flops per batch item, and 10 l log2(2 l) c for a long filter.
    Source: Arora et al. 2023, arXiv:2312.04927; BaseConv of the authors' zoology repository.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("base_conv", dim=8, grid=(32,), kernel_size=-1)
    >>> mixer(mixer.init(0), numpy.ones((1, 20, 8), "float32")).shape
    (1, 20, 8)
    """

    dim: int
    grid: tuple
    kernel_size: int = 3
    implicit: bool = True
    use_act: bool = False

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(f, self.grid, ranks=(1,)))
        check.integer(f, "kernel_size", self.kernel_size)
        if self.kernel_size < 1 and self.kernel_size != -1:
            raise ValueError(
                f"{f}: kernel_size must be >= 1, or -1 for a long filter, got {self.kernel_size}"
            )
        check.boolean(f, "implicit", self.implicit)
        check.boolean(f, "use_act", self.use_act)

    def accepts_grid(self, grid):
        return grid[0] <= self.grid[0]

    def parameters(self):
        c, k, as_torch = self.dim, self.kernel_size, initializers.fan_in_uniform
        specs = {"w": Parameter((c, c), as_torch(c)), "b": Parameter((c,), as_torch(c))}
        if k > 0:
            return specs | {
                "w_conv": Parameter((k, c), as_torch(k)),
                "b_conv": Parameter((c,), as_torch(k)),
            }
        if not self.implicit:
            return specs | {"filter": Parameter((*self.grid, c), initializers.normal())}
        return specs | {
            "w_filter_0": Parameter((3, _WIDTH), as_torch(3)),
            "b_filter_0": Parameter((_WIDTH,), as_torch(3)),
            "w_filter_1": Parameter((_WIDTH, c), as_torch(_WIDTH)),
            "b_filter_1": Parameter((c,), as_torch(_WIDTH)),
        }

    def mix(self, p, x):
        s, projected = self._convolve(p, x), ops.linear(x, p.w, p.b)
        if self.use_act:
            s, projected = ops.silu(s), ops.silu(projected)
        return s * projected + x

    def _convolve(self, p, x):
        if self.kernel_size > 0:
            return ops.causal_conv1d(x, p.w_conv, p.b_conv, activation="none")
        h = self.filter(p, x.shape[1])
        return ops.long_conv1d(x, h, constant(numpy.ones(self.dim), h))

    def filter(self, p, length):
        """The long filter (length, c)."""
        if not self.implicit:
            return p.filter[:length]
        w = p.w_filter_0.astype(compute_dtype(p.w_filter_0.dtype), copy=False)
        e = constant(positions(*self.grid, 3)[:length], w)
        return ops.linear(ops.relu(ops.linear(e, w, p.b_filter_0)), p.w_filter_1, p.b_filter_1)
