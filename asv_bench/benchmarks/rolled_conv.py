"""Convolutions of rolled images: one read, one write, and few flops per byte."""

from .common import OpBenchmark


class RolledConv2d(OpBenchmark):
    op = "rolled_conv2d"
    shapes = ("b=8,h=28,w=28,c=160,n=1840",)
