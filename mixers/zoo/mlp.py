"""Pooling and MLP token mixers."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import ops
from mixers.mixer import Mixer
from mixers.registry import register


@register(
    "pool",
    paper="MetaFormer Is Actually What You Need for Vision",
    year=2022,
    arxiv="2111.11418",
    ranks=(1, 2),
    causal=False,
    cost="O(L C k)",
)
@dataclass(frozen=True)
class Pool(Mixer):
    """PoolFormer's token mixer: the mean over a window minus the token itself.

    Parameters
    ----------
    dim : int
        Channels.
    pool_size : int
        Window, odd, >= 1; 1 gives zeros.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). No parameters.
    Source: Yu et al. 2022, arXiv:2111.11418, eq. 4.
    """

    dim: int
    pool_size: int = 3

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.integer(self.name, "pool_size", self.pool_size, minimum=1, odd=True)

    def mix(self, p, x):
        return ops.avg_pool(x, size=self.pool_size, minus_identity=True)
