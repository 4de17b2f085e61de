"""The published mixers, one page per family, composed of ops only."""

from mixers.zoo.mlp import MlpMixer, Pool

__all__ = ["MlpMixer", "Pool"]
