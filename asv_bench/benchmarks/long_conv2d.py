"""Long convolution of images, by transforms of padded grids."""

from .common import MixerBenchmark, OpBenchmark


class LongConv2d(OpBenchmark):
    op = "long_conv2d"
    shapes = ("b=4,h=32,w=32,c=128", "b=8,h=14,w=14,c=384")


class HyenaNd(MixerBenchmark):
    mixer = "hyena_nd"
    shapes = ("8,14,14,192",)
