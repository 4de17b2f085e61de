"""Token linears inside and across windows: products of the size of a window."""

from .common import OpBenchmark


class WindowLinear(OpBenchmark):
    op = "window_linear"
    shapes = ("b=8,h=64,w=64,c=64",)
