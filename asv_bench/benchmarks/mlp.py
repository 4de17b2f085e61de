"""Whole MLP mixers."""

from .common import MixerBenchmark


class ResMlp(MixerBenchmark):
    mixer = "res_mlp"
    shapes = ("16,196,384",)


class RaftLayer(MixerBenchmark):
    mixer = "raft_layer"
    shapes = ("8,14,14,384",)


class RaftMlp(MixerBenchmark):
    mixer = "raft_mlp"
    shapes = ("8,14,14,384",)


class StripLayer(MixerBenchmark):
    mixer = "strip_layer"
    shapes = ("8,14,14,384",)


class StripCgsmm(MixerBenchmark):
    mixer = "strip_cgsmm"
    shapes = ("8,14,14,384",)


class StripLsmm(MixerBenchmark):
    mixer = "strip_lsmm"
    shapes = ("8,14,14,384", "8,56,56,64")


class StripMlp(MixerBenchmark):
    mixer = "strip_mlp"
    shapes = ("8,14,14,384",)


class MixShift(MixerBenchmark):
    mixer = "mix_shift"
    shapes = ("8,14,14,384", "8,56,56,64")


class AxialShift(MixerBenchmark):
    mixer = "axial_shift"
    shapes = ("8,14,14,384", "8,56,56,64")


class SpatialShift(MixerBenchmark):
    mixer = "spatial_shift"
    shapes = ("8,14,14,384",)


class SpatialShiftV2(MixerBenchmark):
    mixer = "spatial_shift_v2"
    shapes = ("8,14,14,384",)


class CycleFc(MixerBenchmark):
    mixer = "cycle_fc"
    shapes = ("8,14,14,384",)


class CycleMlp(MixerBenchmark):
    mixer = "cycle_mlp"
    shapes = ("8,14,14,384",)
