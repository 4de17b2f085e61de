"""Strips of an image: dense maps along lines, bound by arithmetic, and biases, bound by memory."""

from .common import OpBenchmark


class StripLinear(OpBenchmark):
    op = "strip_linear"
    shapes = ("b=16,h=14,w=14,c=192,j=48,k=3", "b=8,h=28,w=28,c=80,j=20,k=3")


class RelativeBias(OpBenchmark):
    op = "relative_bias"
    shapes = ("b=16,h=56,w=56,c=64,t=113",)
