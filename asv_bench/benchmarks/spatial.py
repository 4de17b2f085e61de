"""Products of grids, one per channel."""

from .common import OpBenchmark


class SpatialMatmul(OpBenchmark):
    op = "spatial_matmul"
    shapes = ("b=16,h=32,m=32,w=32,c=64",)
