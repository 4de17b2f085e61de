"""Fourier transforms over tokens."""

from .common import OpBenchmark


class FourierReal(OpBenchmark):
    op = "fourier_real"
    shapes = ("b=8,l=512,c=768",)


class Rfft(OpBenchmark):
    op = "rfft"
    shapes = ("b=16,h=14,w=14,c=384",)


class Irfft(OpBenchmark):
    op = "irfft"
    shapes = ("b=16,h=14,k=8,c=384",)
