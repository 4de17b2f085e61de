"""Convolutions of a grid with a filter as large as it."""

from .common import MixerBenchmark, OpBenchmark


class LongConv2D(OpBenchmark):
    op = "long_conv2d"
    shapes = ("b=4,h=32,w=32,c=128", "b=16,h=14,w=14,c=384")


class HyperZzw(MixerBenchmark):
    mixer = "hyper_zzw"
    shapes = ("8,14,14,384",)
