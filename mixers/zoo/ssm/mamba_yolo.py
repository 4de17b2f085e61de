"""The convolutional mixers around the scan of Mamba-YOLO."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo import blocks
from mixers.zoo.ssm.selective import convolution

_PAPER = {
    "paper": "Mamba YOLO: A Simple Baseline for Object Detection with State Space Model",
    "year": 2024,
    "arxiv": "2406.05835",
    "ranks": (2,),
    "causal": False,
}


@register("mamba_yolo_ls", **_PAPER, cost="O(L C^2)")
@dataclass(frozen=True)
class MambaYoloLs(Mixer):
    """Local spatial block of Mamba-YOLO, in front of the scan: y = x + gelu(bn(conv3x3(x)) w1 + b1) w2 + b2.

    Parameters
    ----------
    dim : int
        Channels c.

    Raises
    ------
    ValueError
        If dim < 1.

    Notes
    -----
    x is (b, h, w, c), any grid. The residual is part of the block.
    Parameters: conv_w (3, 3, c), conv_b; bn_scale, bn_bias, bn_mean, bn_var (c,); w1, w2 (c, c), b1, b2 (c,).
    4 c^2 + 18 c flops per token forward.
    Source: Wang et al. 2024, arXiv:2406.05835, section 3.4, LS block; HZAI-ZJNU/Mamba-YOLO, mamba_yolo.py.
    """

    dim: int

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)

    def parameters(self):
        c, as_torch = self.dim, initializers.fan_in_uniform
        return (
            convolution((3, 3, c), bias=True)
            | blocks.batch_norm_parameters("bn", c)
            | {f"w{i}": Parameter((c, c), as_torch(c)) for i in (1, 2)}
            | {f"b{i}": Parameter((c,), as_torch(c)) for i in (1, 2)}
        )

    def mix(self, p, x):
        hidden = blocks.batch_normed(p, "bn", ops.depthwise_conv2d, x, p.conv_w, p.conv_b)
        return x + ops.linear(ops.gelu(ops.linear(hidden, p.w1, p.b1)), p.w2, p.b2)


@register("mamba_yolo_rg", **_PAPER, cost="O(L C hidden)")
@dataclass(frozen=True)
class MambaYoloRg(Mixer):
    """Residual gated block of Mamba-YOLO, in place of the MLP: gated channels with a local residual.

    (a, v) = x w1 + b1;  y = (gelu(conv3x3(a) + a) v) w2 + b2

    Parameters
    ----------
    dim : int
        Channels c.
    hidden : int, optional
        m = floor(2 hidden / 3) gated channels; c by default.

    Raises
    ------
    ValueError
        If an option is out of its range, or m < 1.

    Notes
    -----
    x is (b, h, w, c), any grid.
    Parameters: w1 (c, 2 m), b1; conv_w (3, 3, m), conv_b; w2 (m, c), b2.
    6 c m + 18 m flops per token forward.
    Source: Wang et al. 2024, arXiv:2406.05835, section 3.5, RG block; HZAI-ZJNU/Mamba-YOLO, mamba_yolo.py.
    """

    dim: int
    hidden: int | None = None

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        if self.hidden is not None:
            check.integer(self.name, "hidden", self.hidden, minimum=1)
        if self._gated < 1:
            raise ValueError(f"{self.name}: hidden must be at least 2, got {self.hidden or self.dim}")

    @property
    def _gated(self):
        return 2 * (self.dim if self.hidden is None else self.hidden) // 3

    def parameters(self):
        c, m, as_torch = self.dim, self._gated, initializers.fan_in_uniform
        return {
            "w1": Parameter((c, 2 * m), as_torch(c)),
            "b1": Parameter((2 * m,), as_torch(c)),
            **convolution((3, 3, m), bias=True),
            "w2": Parameter((m, c), as_torch(m)),
            "b2": Parameter((c,), as_torch(m)),
        }

    def mix(self, p, x):
        a, v = split(ops.linear(x, p.w1, p.b1), [self._gated, self._gated])
        local = ops.depthwise_conv2d(a, p.conv_w, p.conv_b) + a
        return ops.linear(ops.gate(local, v, activation="gelu"), p.w2, p.b2)
