"""The published mixers, one page per family, composed of ops only."""

from mixers.zoo.kan import FourierKarat
from mixers.zoo.mlp import MlpMixer, Pool

__all__ = ["FourierKarat", "MlpMixer", "Pool"]
