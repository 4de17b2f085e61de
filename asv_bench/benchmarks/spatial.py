"""Matrix products over the two axes of images."""

from .common import MixerBenchmark, OpBenchmark


class SpatialMatmul(OpBenchmark):
    op = "spatial_matmul"
    shapes = ("b=16,h=32,m=32,w=32,c=64", "b=16,h=14,m=14,w=14,c=384")


class HyperZzw(MixerBenchmark):
    mixer = "hyper_zzw"
    shapes = ("8,14,14,384",)
