"""Gated and plain convolutional token mixers."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import concatenate, split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register


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
        return ops.linear(ops.gelu(g) * m, p.w_out, p.b_out)
