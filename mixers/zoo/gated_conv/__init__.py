"""Gated and plain convolutional token mixers.

gated  a stream of features times another that was convolved
plain  two convolutions in the place of attention, and the controls of MetaFormer
"""

from mixers.zoo.gated_conv.gated import Catm, GatedCnn, Gnconv, Lka
from mixers.zoo.gated_conv.plain import (
    ConvMixer,
    FfnifiedAttention,
    IdentityMixing,
    RandomMixing,
    SeparableConv,
)

__all__ = [
    "Catm",
    "ConvMixer",
    "FfnifiedAttention",
    "GatedCnn",
    "Gnconv",
    "IdentityMixing",
    "Lka",
    "RandomMixing",
    "SeparableConv",
]
