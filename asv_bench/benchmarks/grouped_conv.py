"""Convolutions that mix the channels of a group."""

from .common import OpBenchmark


class GroupedConv1d(OpBenchmark):
    op = "grouped_conv1d"
    shapes = ("b=16,l=56,c=256",)


class GroupedConv2d(OpBenchmark):
    op = "grouped_conv2d"
    shapes = ("b=8,h=28,w=28,c=64",)
