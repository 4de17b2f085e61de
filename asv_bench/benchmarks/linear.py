"""Linear maps: bound by arithmetic."""

from .common import MixerBenchmark, OpBenchmark


class Linear(OpBenchmark):
    op = "linear"
    shapes = ("b=16,l=196,c=384,d=1536", "b=16,l=3136,c=64,d=256")


class AxisLinear(OpBenchmark):
    op = "axis_linear"
    shapes = ("b=16,l=196,c=512,k=256",)


class TokenMlp(OpBenchmark):
    op = "token_mlp"
    shapes = ("b=16,l=196,c=512,h=256",)


class MlpMixer(MixerBenchmark):
    mixer = "mlp_mixer"
    shapes = ("16,196,512",)
