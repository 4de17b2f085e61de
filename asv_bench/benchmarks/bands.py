"""Bands of frequencies: one pass each."""

from .common import MixerBenchmark, OpBenchmark


class BandMean(OpBenchmark):
    op = "band_mean"
    shapes = ("b=16,h=56,w=56,c=64", "b=16,h=14,w=14,c=384")


class BandScale(OpBenchmark):
    op = "band_scale"
    shapes = ("b=16,h=56,w=56,c=64,k=16", "b=16,h=14,w=14,c=384,k=16")


class BandWeights(OpBenchmark):
    op = "band_weights"
    shapes = ("b=8,k=16,c=384,v=64",)


class DynamicSpectrum(MixerBenchmark):
    mixer = "dynamic_spectrum"
    shapes = ("8,14,14,384", "8,56,56,64")
