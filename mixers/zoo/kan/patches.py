"""Radial KAN inside the patches of an image, with axial convolutions and a low-rank linear map between them."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import softmax


@register(
    "multi_patch_rbf_kan",
    paper="Vision KAN: Towards an Attention-Free Backbone for Vision with Kolmogorov-Arnold Networks",
    year=2026,
    arxiv="",
    ranks=(2,),
    causal=False,
    cost="O(L C (p^2 g + k + r))",
    grid_tied=True,
)
@dataclass(frozen=True)
class MultiPatchRbfKan(Mixer):
    """Radial KAN inside patches, axial depthwise convolutions, low-rank linear map of all tokens.

    Every channel of a p x p patch t becomes t + sum_{i, g} exp(-((t[i] - mu[i, g]) / s[i, g])^2 / 2) w_rbf[i, g]
    + silu(t) w_base + b_base with s = exp(log_sigma) + 1e-6. Two weights from the mean of all tokens then add
    up a vertical and a horizontal convolution: y1. Last, y = y1 + w_global_out (w_global_in y1).

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int, int), optional
        Tokens (h, w) that w_global_in and w_global_out are made for. Without it the mixer takes parameters as
        they come, and cannot draw them.
    patch_size : int
        p >= 1, divides h and w.
    num_grids : int
        g >= 2.
    sep_kernel : int
        k, odd.
    use_global_linear : bool
    global_rank : int
        r = min(global_rank, h w).

    Raises
    ------
    ValueError
        If an option is out of its range, or x is not a multiple of the patch.

    Notes
    -----
    Parameters, f = p^2, m = max(8, c // 4): mu, log_sigma (f, g); w_rbf (f, g, f); w_base (f, f), b_base (f,); w_dw_h
    (k, 1, c), w_dw_w (1, k, c), b_dw_h, b_dw_w (c,); w_reweight_in (c, m), w_reweight_out (m, 2) and biases;
    w_global_in (r, h w), w_global_out (h w, r).
    Source: SeriYann/ViK, class MultiPatchRBFKAN, whose lazily made parts are parameters here.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("multi_patch_rbf_kan", dim=5, grid=(6, 9), patch_size=3)
    >>> mixer(mixer.init(0), numpy.ones((2, 6, 9, 5), "float32")).shape
    (2, 6, 9, 5)
    """

    dim: int
    grid: tuple | None = None
    patch_size: int = 7
    num_grids: int = 8
    sep_kernel: int = 3
    use_global_linear: bool = True
    global_rank: int = 64

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        for option, minimum in (("patch_size", 1), ("num_grids", 2), ("global_rank", 1)):
            check.integer(self.name, option, getattr(self, option), minimum=minimum)
        check.integer(self.name, "sep_kernel", self.sep_kernel, minimum=1, odd=True)
        check.boolean(self.name, "use_global_linear", self.use_global_linear)
        if self.grid is not None:
            object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
            for size in self.grid:
                check.divides(self.name, "patch_size", self.patch_size, "the sides of grid", size)

    def check_input(self, x):
        """Check the patches, too."""
        super().check_input(x)
        if any(size % self.patch_size for size in x.shape[1:3]):
            raise ValueError(
                f"{self.name}: x must have a token grid of multiples of patch_size = {self.patch_size}, "
                f"got {tuple(x.shape[1:3])}"
            )

    def parameters(self):
        c, f, g, k = self.dim, self.patch_size**2, self.num_grids, self.sep_kernel
        m = max(8, c // 4)
        weight, axial = initializers.truncated_normal(0.02), initializers.fan_in_uniform(k)
        centres = numpy.tile(numpy.linspace(-2.0, 2.0, g), (f, 1))
        specs = {
            "mu": Parameter((f, g), initializers.table(centres)),
            "log_sigma": Parameter((f, g), initializers.constant(math.log(4.0 / (g - 1) + 1e-6))),
            "w_rbf": Parameter((f, g, f), initializers.normal(0.1)),
            "w_base": Parameter((f, f), weight),
            "b_base": Parameter((f,), initializers.zeros),
            "w_dw_h": Parameter((k, 1, c), axial),
            "b_dw_h": Parameter((c,), axial),
            "w_dw_w": Parameter((1, k, c), axial),
            "b_dw_w": Parameter((c,), axial),
            "w_reweight_in": Parameter((c, m), weight),
            "b_reweight_in": Parameter((m,), initializers.zeros),
            "w_reweight_out": Parameter((m, 2), weight),
            "b_reweight_out": Parameter((2,), initializers.zeros),
        }
        if self.use_global_linear:
            n = None if self.grid is None else math.prod(self.grid)
            r = None if n is None else min(self.global_rank, n)
            specs["w_global_in"] = Parameter((r, n), weight)
            specs["w_global_out"] = Parameter((n, r), weight)
        return specs

    def mix(self, p, x):
        y = self._patches(p, x)
        b, h, w, c = y.shape
        hidden = ops.gelu(ops.linear(y.mean(axis=(1, 2)), p.w_reweight_in, p.b_reweight_in))
        a = softmax(ops.linear(hidden, p.w_reweight_out, p.b_reweight_out)).reshape(b, 2, 1, 1, 1)
        vertical = ops.depthwise_conv2d(y, p.w_dw_h, p.b_dw_h)
        horizontal = ops.depthwise_conv2d(y, p.w_dw_w, p.b_dw_w)
        y = vertical * a[:, 0] + horizontal * a[:, 1]
        if not self.use_global_linear:
            return y
        tokens = y.reshape(b, h * w, c)
        low = ops.axis_linear(tokens, p.w_global_in, axis=1)
        return y + ops.axis_linear(low, p.w_global_out, axis=1).reshape(b, h, w, c)

    def _patches(self, p, x):
        """The radial KAN on every channel of every patch, with its residual."""
        b, h, w, c = x.shape
        q = self.patch_size
        cut = x.reshape(b, h // q, q, w // q, q, c).transpose(0, 1, 3, 5, 2, 4)
        t = cut.reshape(b, h // q, w // q, c, q * q)
        base = ops.linear(ops.silu(t), p.w_base, p.b_base)
        # exp(-u^2 / 2) is exp(-v^2) with a width larger by sqrt 2
        width = (ops.exp(p.log_sigma) + 1e-6) * math.sqrt(2.0)
        t = t + ops.kan_contract(t, p.w_rbf, p.mu, width, basis="rbf") + base
        back = t.reshape(b, h // q, w // q, c, q, q).transpose(0, 1, 4, 2, 5, 3)
        return back.reshape(b, h, w, c)
