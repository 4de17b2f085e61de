"""Filters of the spectrum of a grid: by transforms in cache."""

from .common import MixerBenchmark, OpBenchmark


class SpectralFilter(OpBenchmark):
    op = "spectral_filter"
    # the last grid has a large prime factor: scipy.fft
    shapes = ("b=16,h=14,w=14,k=8,c=384", "b=16,h=56,w=56,k=29,c=64", "b=4,h=131,w=64,k=33,c=32")


class GlobalFilter(MixerBenchmark):
    mixer = "global_filter"
    shapes = ("8,14,14,384", "8,56,56,64")
