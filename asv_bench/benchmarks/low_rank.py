"""Values weighted by matrices of low rank: products of matrices, in the cheap order."""

from .common import OpBenchmark


class LowRankValues(OpBenchmark):
    op = "low_rank_values"
    shapes = ("b=8,n=196,h=4,r=12,c=384,e=384,o=384",)
