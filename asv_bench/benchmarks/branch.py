"""Attention over branches: two passes over memory each way."""

from .common import OpBenchmark


class BranchAttention(OpBenchmark):
    op = "branch_attention"
    shapes = ("b=16,h=28,w=28,c=128,m=32,o=384",)
