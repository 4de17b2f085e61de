"""Shifts of channel groups: one read and one write."""

from .common import OpBenchmark


class ChannelShift(OpBenchmark):
    op = "channel_shift"
    shapes = ("b=16,h=56,w=56,c=64",)


class ShiftLinear(OpBenchmark):
    op = "shift_linear"
    shapes = ("b=16,h=56,w=56,c=64,d=64",)
