"""Long convolution: direct for short filters, by Fourier transforms for long ones."""

from .common import MixerBenchmark, OpBenchmark


class LongConv1d(OpBenchmark):
    op = "long_conv1d"
    # the last two: an odd batch, and a length that is no power of two
    shapes = ("b=8,l=128,c=256", "b=2,l=8192,c=256", "b=1,l=65536,c=64", "b=3,l=5000,c=96")


class Hyena(MixerBenchmark):
    mixer = "hyena"
    shapes = ("8,1024,256", "1,16384,128")


class BaseConv(MixerBenchmark):
    mixer = "base_conv"
    shapes = ("8,1024,256",)


class S4D(MixerBenchmark):
    mixer = "s4d"
    shapes = ("8,1024,256",)


class HyenaNd(MixerBenchmark):
    mixer = "hyena_nd"
    shapes = ("8,14,14,384",)
