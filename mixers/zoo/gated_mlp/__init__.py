"""Gated MLPs: feature maps multiplied by gates that have seen other positions.

tokens   gates from linear maps over all tokens
windows  gates from linear maps inside windows and across them
strips   gates from convolutions along rows and columns
"""

from mixers.zoo.gated_mlp.strips import CoordinateLocalAttention, DfcAttention
from mixers.zoo.gated_mlp.tokens import Gmlp, NinGate
from mixers.zoo.gated_mlp.windows import CrossGating, CrossGatingOutput, MultiAxisGmlp

__all__ = [
    "CoordinateLocalAttention",
    "CrossGating",
    "CrossGatingOutput",
    "DfcAttention",
    "Gmlp",
    "MultiAxisGmlp",
    "NinGate",
]
