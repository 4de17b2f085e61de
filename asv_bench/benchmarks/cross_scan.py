"""Scans over images along several orders at once: exponentials at 16 states, memory at one."""

from .common import OpBenchmark


class CrossSelectiveScan(OpBenchmark):
    op = "cross_selective_scan"
    shapes = ("b=8,l=196,c=384,n=16,k=4", "b=8,l=3136,c=96,n=1,k=4")
