"""Wavelet edges: i o evaluations per row."""

from .common import OpBenchmark


class KanEdges(OpBenchmark):
    op = "kan_edges"
    shapes = ("m=3136,i=64,o=64", "m=784,i=196,o=12")
