"""Short convolutions: bound by memory, large depthwise kernels by arithmetic."""

from .common import MixerBenchmark, OpBenchmark


class DepthwiseConv2d(OpBenchmark):
    op = "depthwise_conv2d"
    shapes = ("b=16,h=56,w=56,c=96,k=7", "b=16,h=14,w=14,c=384,k=7", "b=16,h=56,w=56,c=96,k=3")


class CausalConv1d(OpBenchmark):
    op = "causal_conv1d"
    shapes = ("b=4,l=2048,c=512,k=4",)


class CausalConv1dUpdate(OpBenchmark):
    op = "causal_conv1d_update"
    # a step of generation: one token of each sequence
    shapes = ("b=1,c=2048", "b=64,c=2048")


class GatedCnn(MixerBenchmark):
    mixer = "gated_cnn"
    shapes = ("8,14,14,384",)
