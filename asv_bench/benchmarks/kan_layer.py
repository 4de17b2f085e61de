"""Kolmogorov-Arnold layers: bound by arithmetic, 2 g i o flops per row; the expansion is never in memory."""

from .common import MixerBenchmark, OpBenchmark


class KanContract(OpBenchmark):
    op = "kan_contract"
    # a layer of a vision model, one of few features, and many functions
    shapes = ("m=3136,i=384,g=8,o=384", "m=65536,i=16,g=8,o=16", "m=3136,i=64,g=32,o=64")


class KanBspline(MixerBenchmark):
    mixer = "kan_bspline"
    shapes = ("16,196,384",)


class KanFourier(MixerBenchmark):
    mixer = "kan_fourier"
    shapes = ("16,196,384",)


class KanRbf(MixerBenchmark):
    mixer = "kan_rbf"
    shapes = ("16,196,384",)


class SKan(MixerBenchmark):
    mixer = "s_kan"
    shapes = ("16,196,384",)


class SConvKan(MixerBenchmark):
    mixer = "s_conv_kan"
    shapes = ("4,28,28,64",)


class MultiPatchRbfKan(MixerBenchmark):
    mixer = "multi_patch_rbf_kan"
    shapes = ("8,14,14,384",)
