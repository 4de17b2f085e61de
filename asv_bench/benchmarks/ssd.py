"""The scan of Mamba-2: products of small matrices, and its single step, bound by memory."""

from .common import MixerBenchmark, OpBenchmark


class SsdScan(OpBenchmark):
    op = "ssd_scan"
    shapes = ("b=2,l=1024,h=8,p=64,n=128", "b=1,l=65536,h=4,p=64,n=16")


class SsdStateUpdate(OpBenchmark):
    op = "ssd_state_update"
    shapes = ("b=16,h=24,p=64,n=128",)


class Mamba2(MixerBenchmark):
    mixer = "mamba2"
    shapes = ("8,1024,256",)
