"""Mixers that scan images along several orders."""

from .common import MixerBenchmark


class Vim(MixerBenchmark):
    mixer = "vim"
    shapes = ("8,196,384",)


class Ss2d(MixerBenchmark):
    mixer = "ss2d"
    shapes = ("8,14,14,384",)


class Es2d(MixerBenchmark):
    mixer = "es2d"
    shapes = ("8,14,14,384",)


class Evss(MixerBenchmark):
    mixer = "evss"
    shapes = ("8,14,14,384",)


class PlainMamba(MixerBenchmark):
    mixer = "plain_mamba"
    shapes = ("8,14,14,384",)


class Lamamba(MixerBenchmark):
    mixer = "lamamba"
    shapes = ("8,14,14,384",)


class MambaYoloLs(MixerBenchmark):
    mixer = "mamba_yolo_ls"
    shapes = ("8,14,14,384",)


class MambaYoloRg(MixerBenchmark):
    mixer = "mamba_yolo_rg"
    shapes = ("8,14,14,384",)
