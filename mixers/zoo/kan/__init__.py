"""Kolmogorov-Arnold layers and mixers."""

from mixers.zoo.kan.karat import FourierKarat, Karat
from mixers.zoo.kan.layers import KanBspline, KanFourier, KanRbf
from mixers.zoo.kan.patches import MultiPatchRbfKan
from mixers.zoo.kan.selectable import SConvKan, SKan

__all__ = [
    "FourierKarat",
    "KanBspline",
    "KanFourier",
    "KanRbf",
    "Karat",
    "MultiPatchRbfKan",
    "SConvKan",
    "SKan",
]
