"""Average pooling: bound by memory."""

from .common import MixerBenchmark, OpBenchmark


class AvgPool(OpBenchmark):
    op = "avg_pool"
    shapes = ("b=16,h=56,w=56,c=64", "b=16,h=14,w=14,c=384")


class Pool(MixerBenchmark):
    mixer = "pool"
    shapes = ("16,56,56,64", "4,4096,256")
