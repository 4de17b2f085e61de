"""The published mixers, one page per family, composed of ops only."""

from mixers.zoo.mlp import Pool

__all__ = ["Pool"]
