"""Bands of frequencies: bound by memory."""

from .common import OpBenchmark


class BandMean(OpBenchmark):
    op = "band_mean"
    shapes = ("b=16,h=14,w=14,c=384", "b=16,h=56,w=56,c=64")


class BandScale(OpBenchmark):
    op = "band_scale"
    shapes = ("b=16,h=14,w=14,c=384", "b=16,h=56,w=56,c=64")
