"""Kolmogorov-Arnold attention: bound by arithmetic, n^2 (d + 2 g r) products per head."""

from .common import MixerBenchmark, OpBenchmark


class KanAttention(OpBenchmark):
    op = "kan_attention"
    # a small vision transformer on the CPU, a batch for a GPU, and a longer sequence
    shapes = ("b=4,h=3,n=197,d=64", "b=64,h=3,n=197,d=64", "b=1,h=4,n=1024,d=64")


class KanSums(OpBenchmark):
    op = "kan_sums"
    shapes = ("b=8,n=196,s=2,h=4,d=96",)


class FourierKarat(MixerBenchmark):
    mixer = "fourier_karat"
    shapes = ("8,196,384",)
