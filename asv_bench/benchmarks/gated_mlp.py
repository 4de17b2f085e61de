"""Whole gated MLPs."""

from .common import MixerBenchmark


class Gmlp(MixerBenchmark):
    mixer = "gmlp"
    shapes = ("8,196,128",)


class MultiAxisGmlp(MixerBenchmark):
    mixer = "multi_axis_gmlp"
    shapes = ("4,56,56,32",)


class CrossGating(MixerBenchmark):
    mixer = "cross_gating"
    shapes = ("4,56,56,32",)


class NinGate(MixerBenchmark):
    mixer = "nin_gate"
    shapes = ("8,196,256",)


class DfcAttention(MixerBenchmark):
    mixer = "dfc_attention"
    shapes = ("8,28,28,80",)


class CoordinateLocalAttention(MixerBenchmark):
    mixer = "coordinate_local_attention"
    shapes = ("8,14,14,384", "8,56,56,64")
