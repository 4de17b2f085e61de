"""Filters from diagonal state spaces: bound by exponentials."""

from .common import OpBenchmark


class S4DKernel(OpBenchmark):
    op = "s4d_kernel"
    shapes = ("c=256,m=32",)
