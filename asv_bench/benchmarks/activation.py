"""StarReLU and gates: bound by memory."""

from .common import OpBenchmark


class StarRelu(OpBenchmark):
    op = "star_relu"
    shapes = ("b=16,l=1024,c=256",)


class Gate(OpBenchmark):
    op = "gate"
    shapes = ("b=1,l=1,c=16", "b=16,l=1024,c=256")
