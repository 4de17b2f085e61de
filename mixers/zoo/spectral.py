"""Spectral token mixers."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.registry import register


@register(
    "dct_mixer",
    paper="Static DCT-II mixer (defined by this library)",
    year=2026,
    arxiv="",
    ranks=(1, 2),
    causal=False,
    grid_tied=True,
    cost="O(L log L C)",
)
@dataclass(frozen=True)
class DctMixer(Mixer):
    """A learned gain for every cosine coefficient: y = idct(w * dct(x)).

    The real-valued relative of a global filter: borders are mirrored instead of periodic.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : tuple of int
        (l,) or (h, w); the gains are tied to it.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameter w (*grid, c) starts at 1 + 0.02 N(0, 1), close to the identity.
    The transforms are orthonormal and the operator is symmetric.
    Source: none; the static counterpart of the dynamic spectrum mixer, Hu & Yu 2023, arXiv:2309.06721.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("dct_mixer", dim=1, grid=(4,))
    >>> x = numpy.array([[[1.0], [2.0], [3.0], [4.0]]])
    >>> mixer({"w": numpy.ones((4, 1))}, x)[0, :, 0].round(12)
    array([1., 2., 3., 4.])
    """

    dim: int
    grid: tuple

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid))

    def parameters(self):
        return {"w": Parameter((*self.grid, self.dim), initializers.normal(0.02, mean=1.0))}

    def mix(self, p, x):
        F = ops.dct(x)
        return ops.idct(ops.mul(F, p.w))
