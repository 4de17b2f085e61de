"""Attention by any Kolmogorov-Arnold map, and the simplex projection of its rows."""

from .common import MixerBenchmark, OpBenchmark


class KanMapAttention(OpBenchmark):
    op = "kan_map_attention"
    shapes = ("b=4,h=3,n=197,d=64", "b=1,h=4,n=1024,d=64")


class SimplexProjection(OpBenchmark):
    op = "simplex_projection"
    shapes = ("b=16384,n=256",)


class Karat(MixerBenchmark):
    mixer = "karat"
    shapes = ("8,196,384",)
