"""Norms with statistics over tokens: two passes over memory, bound by it."""

from .common import OpBenchmark


class BatchNorm(OpBenchmark):
    op = "batch_norm"
    shapes = ("b=16,l=3136,c=64",)


class GroupNorm(OpBenchmark):
    op = "group_norm"
    shapes = ("b=16,l=3136,c=64", "b=16,l=196,c=384")
