"""Filters of whole spectra: transforms there and back in one sweep."""

from .common import OpBenchmark


class SpectralFilter(OpBenchmark):
    op = "spectral_filter"
    shapes = ("b=16,h=14,w=14,k=8,c=384", "b=16,h=56,w=56,k=29,c=64")
