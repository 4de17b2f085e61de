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
from mixers.zoo.mlp import (
    AxialShift,
    CycleFc,
    CycleMlp,
    MixShift,
    MlpMixer,
    Pool,
    RaftLayer,
    RaftMlp,
    ResMlp,
    SpatialShift,
    SpatialShiftV2,
    StripCgsmm,
    StripLayer,
    StripLsmm,
    StripMlp,
)
from mixers.zoo.spectral import DctMixer
from mixers.zoo.ssm import Mamba

__all__ = [
    "AxialShift",
    "CoordinateLocalAttention",
    "CrossGating",
    "CycleFc",
    "CycleMlp",
    "DctMixer",
    "DfcAttention",
    "FourierKarat",
    "GatedCnn",
    "Gmlp",
    "Hyena",
    "Mamba",
    "MixShift",
    "MlpMixer",
    "MultiAxisGmlp",
    "NinGate",
    "Pool",
    "RaftLayer",
    "RaftMlp",
    "ResMlp",
    "SpatialShift",
    "SpatialShiftV2",
    "StripCgsmm",
    "StripLayer",
    "StripLsmm",
    "StripMlp",
]
