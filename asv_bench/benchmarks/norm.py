"""Norms over channels: bound by memory."""

from .common import OpBenchmark

SHAPES = ("b=16,l=3136,c=96", "b=16,l=196,c=384")


class LayerNorm(OpBenchmark):
    op = "layer_norm"
    shapes = SHAPES


class RmsNorm(OpBenchmark):
    op = "rms_norm"
    shapes = SHAPES
