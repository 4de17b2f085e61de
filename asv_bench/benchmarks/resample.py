"""Changes of the token grid: bound by memory."""

from .common import OpBenchmark


class AvgPool2x2(OpBenchmark):
    op = "avg_pool_2x2"
    shapes = ("b=16,h=56,w=56,c=64",)


class NearestUpsample(OpBenchmark):
    op = "nearest_upsample"
    shapes = ("b=16,h=28,w=28,c=64",)


class TokenMean(OpBenchmark):
    op = "token_mean"
    shapes = ("b=16,h=56,w=56,c=64",)
