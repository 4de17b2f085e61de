"""Fourier transforms of real arrays, and what is done to their spectra."""

from .common import MixerBenchmark, OpBenchmark


class FourierReal(OpBenchmark):
    op = "fourier_real"
    shapes = ("b=8,l=512,c=768", "b=16,l=196,c=384")


class Rfft(OpBenchmark):
    op = "rfft"
    shapes = ("b=16,h=14,w=14,c=384", "b=2,h=1,w=4096,c=256")


class Irfft(OpBenchmark):
    op = "irfft"
    shapes = ("b=16,c=384",)


class BlockComplexMlp(OpBenchmark):
    op = "block_complex_mlp"
    shapes = ("b=16,l=112,n=8,d=48,e=48,c=384",)


class Fnet(MixerBenchmark):
    mixer = "fnet"
    shapes = ("8,512,768",)


class Afno(MixerBenchmark):
    mixer = "afno"
    shapes = ("8,14,14,384",)
