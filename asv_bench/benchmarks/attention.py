"""Attention in windows."""

from .common import OpBenchmark


class ShiftedWindowAttention(OpBenchmark):
    op = "shifted_window_attention"
    shapes = ("b=8,h=56,w=56,n=8,d=32",)
