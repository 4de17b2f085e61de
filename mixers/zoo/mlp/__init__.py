"""Pooling and MLP token mixers.

dense  pooling, and linear maps along all tokens
raft   linear maps along lines, several channels at a time
strip  linear maps along lines and their neighbours
shift  linear maps over channels that were shifted apart
"""

from mixers.zoo.mlp.dense import MlpMixer, Pool, ResMlp
from mixers.zoo.mlp.raft import RaftLayer, RaftMlp
from mixers.zoo.mlp.shift import (
    AxialShift,
    CycleFc,
    CycleMlp,
    MixShift,
    SpatialShift,
    SpatialShiftV2,
)
from mixers.zoo.mlp.strip import StripCgsmm, StripLayer, StripLsmm, StripMlp

__all__ = [
    "AxialShift",
    "CycleFc",
    "CycleMlp",
    "MixShift",
    "MlpMixer",
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
