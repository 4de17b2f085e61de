"""State-space mixers: projections, a short convolution and a diagonal recurrence with input-dependent coefficients.

selective  what the mixers with a selective scan share
mamba      one causal scan
"""

from mixers.zoo.ssm.mamba import Mamba, MambaState

__all__ = ["Mamba", "MambaState"]
