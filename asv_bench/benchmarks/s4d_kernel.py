"""Kernels of diagonal state-space models, and the mixers that convolve with them or with short filters."""

from .common import MixerBenchmark, OpBenchmark


class S4dKernel(OpBenchmark):
    op = "s4d_kernel"
    shapes = ("c=256,m=32", "c=32,m=32")


class S4d(MixerBenchmark):
    mixer = "s4d"
    shapes = ("8,1024,256", "1,16384,64")


class BaseConv(MixerBenchmark):
    mixer = "base_conv"
    shapes = ("8,1024,256",)
