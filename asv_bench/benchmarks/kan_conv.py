"""Kolmogorov-Arnold layers on windows: bound by arithmetic, 2 k^2 c g o flops per pixel; functions once per pixel."""

from .common import OpBenchmark


class KanConv2d(OpBenchmark):
    op = "kan_conv2d"
    # few channels as in the paper's networks, and more
    shapes = ("b=8,h=28,w=28,c=16,k=3,g=8,o=16", "b=4,h=28,w=28,c=64,k=3,g=8,o=64")
