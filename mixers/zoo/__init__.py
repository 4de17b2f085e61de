"""The published mixers, one page per family, composed of ops only."""

from mixers.zoo.gated_conv import GatedCnn
from mixers.zoo.gated_mlp import (
    CoordinateLocalAttention,
    CrossGating,
    DfcAttention,
    Gmlp,
    MultiAxisGmlp,
    NinGate,
)
from mixers.zoo.kan import FourierKarat
from mixers.zoo.long_conv import Hyena
from mixers.zoo.mlp import MlpMixer, Pool
from mixers.zoo.spectral import DctMixer
from mixers.zoo.ssm import Mamba

__all__ = [
    "CoordinateLocalAttention",
    "CrossGating",
    "DctMixer",
    "DfcAttention",
    "FourierKarat",
    "GatedCnn",
    "Gmlp",
    "Hyena",
    "Mamba",
    "MlpMixer",
    "MultiAxisGmlp",
    "NinGate",
    "Pool",
]
