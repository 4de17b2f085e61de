"""State-space mixers: projections, a short convolution and a diagonal recurrence with input-dependent coefficients.

selective    what the mixers with a selective scan share
mamba        one causal scan
mamba2       one decay per head, computed as products of matrices
vim          a scan in both directions
plain_mamba  images: along snakes that know their direction
cross_scan   images: along rows and columns, or over every second token
lamamba      along snakes from four corners, and attention in windows
mamba_yolo   the convolutions around such a scan
"""

from mixers.zoo.ssm.cross_scan import Es2d, Evss, Ss2d
from mixers.zoo.ssm.lamamba import Lamamba
from mixers.zoo.ssm.mamba import Mamba, MambaState
from mixers.zoo.ssm.mamba2 import Mamba2, Mamba2State
from mixers.zoo.ssm.mamba_yolo import MambaYoloLs, MambaYoloRg
from mixers.zoo.ssm.plain_mamba import PlainMamba
from mixers.zoo.ssm.vim import Vim

__all__ = [
    "Es2d",
    "Evss",
    "Lamamba",
    "Mamba",
    "Mamba2",
    "Mamba2State",
    "MambaState",
    "MambaYoloLs",
    "MambaYoloRg",
    "PlainMamba",
    "Ss2d",
    "Vim",
]
