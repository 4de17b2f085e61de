"""Gated and plain convolutional mixers."""

from .common import MixerBenchmark

SHAPES = ("8,14,14,384",)


class Gnconv(MixerBenchmark):
    mixer = "gnconv"
    # small images of a first stage, where the convolution is bound by memory
    shapes = (*SHAPES, "8,56,56,64")


class Lka(MixerBenchmark):
    mixer = "lka"
    shapes = (*SHAPES, "8,56,56,64")


class FfnifiedAttention(MixerBenchmark):
    mixer = "ffnified_attention"
    shapes = SHAPES


class Catm(MixerBenchmark):
    mixer = "catm"
    shapes = SHAPES


class SeparableConv(MixerBenchmark):
    mixer = "separable_conv"
    shapes = SHAPES


class ConvMixer(MixerBenchmark):
    mixer = "conv_mixer"
    shapes = (*SHAPES, "8,56,56,64")


class RandomMixing(MixerBenchmark):
    mixer = "random_mixing"
    shapes = SHAPES


class IdentityMixing(MixerBenchmark):
    mixer = "identity_mixing"
    shapes = SHAPES
