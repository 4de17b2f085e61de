"""Windows of an image: bound by the writes."""

from .common import OpBenchmark


class Unfold2d(OpBenchmark):
    op = "unfold2d"
    shapes = ("b=16,h=28,w=28,c=64",)
