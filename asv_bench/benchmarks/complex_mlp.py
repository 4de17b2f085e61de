"""Complex networks on every frequency: bound by arithmetic."""

from .common import OpBenchmark


class BlockComplexMlp(OpBenchmark):
    op = "block_complex_mlp"
    shapes = ("b=16,l=112,c=384,n=8,d=48,e=48",)
