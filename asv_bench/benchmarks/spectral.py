"""Cosine transforms: dense products in cache for short axes, fast transforms for long ones."""

from .common import MixerBenchmark, OpBenchmark

SHAPES = ("b=16,h=56,w=56,c=64", "b=16,h=14,w=14,c=384", "b=2,h=1,w=4096,c=256")


class Dct(OpBenchmark):
    op = "dct"
    shapes = SHAPES


class Idct(OpBenchmark):
    op = "idct"
    shapes = SHAPES


class DctMixer(MixerBenchmark):
    mixer = "dct_mixer"
    shapes = ("8,14,14,384", "8,1024,256")


class Fnet(MixerBenchmark):
    mixer = "fnet"
    shapes = ("8,1024,256",)


class GlobalFilter(MixerBenchmark):
    mixer = "global_filter"
    shapes = (
        "8,14,14,384",
        "16,56,56,64",
    )


class DynamicSpectrum(MixerBenchmark):
    mixer = "dynamic_spectrum"
    shapes = (
        "8,14,14,384",
        "16,56,56,64",
    )


class Afno(MixerBenchmark):
    mixer = "afno"
    shapes = ("8,14,14,384",)
