"""Activations and arithmetic: bound by memory, except for the transcendental ones in float64."""

from .common import OpBenchmark

SHAPES = ("b=16,l=1024,c=256",)


class Gelu(OpBenchmark):
    op = "gelu"
    shapes = SHAPES


class Silu(OpBenchmark):
    op = "silu"
    # dispatch of a tiny call, and a size that does not fit the caches
    shapes = ("b=1,l=1,c=16", *SHAPES)


class Softplus(OpBenchmark):
    op = "softplus"
    shapes = SHAPES


class Sin(OpBenchmark):
    op = "sin"
    shapes = SHAPES


class Mul(OpBenchmark):
    op = "mul"
    shapes = SHAPES


class GeluTanh(OpBenchmark):
    op = "gelu_tanh"
    shapes = SHAPES


class Relu(OpBenchmark):
    op = "relu"
    shapes = SHAPES


class Sigmoid(OpBenchmark):
    op = "sigmoid"
    shapes = SHAPES


class Tanh(OpBenchmark):
    op = "tanh"
    shapes = SHAPES


class Exp(OpBenchmark):
    op = "exp"
    shapes = SHAPES


class Absolute(OpBenchmark):
    op = "absolute"
    shapes = SHAPES


class Add(OpBenchmark):
    op = "add"
    shapes = SHAPES


class Sub(OpBenchmark):
    op = "sub"
    shapes = SHAPES


class Div(OpBenchmark):
    op = "div"
    shapes = SHAPES
