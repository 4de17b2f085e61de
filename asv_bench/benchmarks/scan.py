"""Scans: the selective ones are bound by their exponentials at 16 states and by memory at one."""

from .common import MixerBenchmark, OpBenchmark


class LinearScan(OpBenchmark):
    op = "linear_scan"
    shapes = ("b=4,l=4096,c=512",)


class SelectiveScan(OpBenchmark):
    op = "selective_scan"
    shapes = ("b=2,l=1024,c=256,n=16", "b=1,l=65536,c=256,n=16", "b=16,l=196,c=384,n=1")


class SelectiveStateUpdate(OpBenchmark):
    op = "selective_state_update"
    shapes = ("b=8,c=1536,n=16",)


class Mamba(MixerBenchmark):
    mixer = "mamba"
    shapes = ("8,1024,256",)
