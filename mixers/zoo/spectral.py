"""Spectral token mixers."""

import math
from dataclasses import dataclass

from mixers import _checks as check
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
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


@register(
    "fnet",
    paper="FNet: Mixing Tokens with Fourier Transforms",
    year=2021,
    arxiv="2105.03824",
    ranks=(1, 2),
    causal=False,
    cost="O(L C log(L C))",
)
@dataclass(frozen=True)
class FNet(Mixer):
    """Fourier mixing without parameters: y = Re F(x), the discrete Fourier transform over tokens and channels.

    Parameters
    ----------
    dim : int
        Channels c.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c); an image is mixed as the sequence of its h w tokens in raster order. No scaling:
    the output is about sqrt(l c) times as large as the input, too large for float16 at some hundred tokens.
    The map is symmetric, so the gradient is the same transform. About 2.5 log2(l c) flops per value.
    Source: Lee-Thorp et al. 2021, arXiv:2105.03824, equation 3.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixers.create("fnet", dim=1)({}, numpy.array([[[1.0], [2.0], [3.0]]]))[0, :, 0].round(12)
    array([ 6. , -1.5, -1.5])
    """

    dim: int

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)

    def parameters(self):
        return {}

    def mix(self, p, x):
        return ops.fourier_real(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), self.dim)).reshape(x.shape)


@register(
    "global_filter",
    paper="Global Filter Networks for Image Classification",
    year=2021,
    arxiv="2107.00645",
    ranks=(2,),
    causal=False,
    grid_tied=True,
    cost="O(L log L C)",
)
@dataclass(frozen=True)
class GlobalFilter(Mixer):
    """A learned complex gain for every frequency: y = irfft2(rfft2(x) (w_re + i w_im)).

    The spectral gating of SpectFormer is the same operator.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int, int)
        (h, w); the gains are tied to it. A sequence is a grid with h = 1 or w = 1.

    Notes
    -----
    x is (b, h, w, c). Parameters w_re, w_im (h, w // 2 + 1, c), 0.02 N(0, 1). The result is the circular
    convolution of each channel with a kernel as large as the grid, irfft2(w_re + i w_im) / sqrt(h w). In columns 0 and
    (even w) w / 2 of the weights only the part with the symmetry of a real kernel has an effect.
    About 5 log2(h w) flops per value.
    Source: Rao et al. 2021, arXiv:2107.00645, section 3.2; Patro et al. 2023, arXiv:2304.06446.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("global_filter", dim=1, grid=(2, 2))
    >>> ones, zeros = numpy.ones((2, 2, 1)), numpy.zeros((2, 2, 1))
    >>> x = numpy.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    >>> mixer({"w_re": ones, "w_im": zeros}, x)[0, :, :, 0].round(12)
    array([[1., 2.],
           [3., 4.]])
    """

    dim: int
    grid: tuple = (14, 14)

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))

    def parameters(self):
        h, w = self.grid
        weight = Parameter((h, w // 2 + 1, self.dim), initializers.normal(0.02))
        return {"w_re": weight, "w_im": weight}

    def mix(self, p, x):
        return ops.spectral_filter(x, p.w_re, p.w_im)


@register(
    "afno",
    paper="Adaptive Fourier Neural Operators: Efficient Token Mixers for Transformers",
    year=2021,
    arxiv="2111.13587",
    ranks=(1, 2),
    causal=False,
    cost="O(L C (C / num_blocks + log L))",
)
@dataclass(frozen=True)
class Afno(Mixer):
    """Adaptive Fourier neural operator: a small complex network applied to every frequency.

    X = rfft(x);  z = S(relu(X w1 + b1) w2 + b2) on the frequencies that are kept, else 0;  y = irfft(z) + x.
    The weights are block-diagonal over the channels and shared by all frequencies; S shrinks softly.

    Parameters
    ----------
    dim : int
        Channels c.
    num_blocks : int
        Blocks of channels, a divisor of dim.
    sparsity_threshold : float
        What S takes from the absolute values of real and imaginary parts, >= 0.
    hard_thresholding_fraction : float
        Part of the frequencies that is kept, in (0, 1].
    hidden_size_factor : int
        Hidden channels per channel, >= 1.
    mode_rule : {"afno", "fourcastnet"}
        Which frequencies (i, k) are kept, f the fraction. "afno": k < int((h w // 2 + 1) f), for sequences
        k < int((l // 2 + 1) f). "fourcastnet": with t = h // 2 + 1 and n = int(t f), t - n <= i < t + n and k < n. So
        do the authors' codes; with f = 1 all are kept, but of "fourcastnet" no column beyond h // 2.

    Raises
    ------
    ValueError
        If an option is out of its range, or a sequence comes with mode_rule "fourcastnet".

    Notes
    -----
    x is (b, l, c) or (b, h, w, c). Parameters, with d = c / num_blocks and e = hidden_size_factor d: w1_re, w1_im
    (num_blocks, d, e), b1_re, b1_im (num_blocks, e), w2_re, w2_im (num_blocks, e, d), b2_re, b2_im (num_blocks, d), all
    0.02 N(0, 1). The spectrum is computed at least in float32.
    About 8 c e flops per token and 5 log2(h w) per value.
    Source: Guibas et al. 2021, arXiv:2111.13587, section 4; Pathak et al. 2022, arXiv:2202.11214 ("fourcastnet").

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("afno", dim=8, num_blocks=2)
    >>> mixer(mixer.init(0), numpy.ones((1, 4, 6, 8), "float32")).shape
    (1, 4, 6, 8)
    """

    dim: int
    num_blocks: int = 8
    sparsity_threshold: float = 0.01
    hard_thresholding_fraction: float = 1.0
    hidden_size_factor: int = 1
    mode_rule: str = "afno"

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "num_blocks", self.num_blocks, minimum=1)
        check.divides(f, "num_blocks", self.num_blocks, "dim", self.dim)
        check.number(f, "sparsity_threshold", self.sparsity_threshold, minimum=0)
        fraction = check.number(f, "hard_thresholding_fraction", self.hard_thresholding_fraction, above=0)
        if fraction > 1:
            raise ValueError(f"{f}: hard_thresholding_fraction must be in (0, 1], got {fraction}")
        check.integer(f, "hidden_size_factor", self.hidden_size_factor, minimum=1)
        check.choice(f, "mode_rule", self.mode_rule, ("afno", "fourcastnet"))

    def check_input(self, x):
        super().check_input(x)
        if self.mode_rule == "fourcastnet" and x.ndim == 3:
            raise ValueError(
                f'{self.name}: x must be an image (b, h, w, c) with mode_rule "fourcastnet", got shape {tuple(x.shape)}'
            )

    def parameters(self):
        n, d = self.num_blocks, self.dim // self.num_blocks
        e = self.hidden_size_factor * d
        shapes = {"w1": (n, d, e), "b1": (n, e), "w2": (n, e, d), "b2": (n, d)}
        law = initializers.normal(0.02)
        return {f"{m}_{part}": Parameter(shape, law) for m, shape in shapes.items() for part in ("re", "im")}

    def mix(self, p, x):
        grid = x.shape[1:-1]
        if 0 in grid:
            return x
        rows, columns = self.modes(grid)
        re, im = ops.rfft(x.astype(compute_dtype(x.dtype), copy=False), rows=rows, columns=columns)
        weights = (p[f"{m}_{part}"] for m in ("w1", "b1", "w2", "b2") for part in ("re", "im"))
        re, im = ops.block_complex_mlp(re, im, *weights, threshold=self.sparsity_threshold)
        return ops.add(x, ops.irfft(re, im, grid=grid, rows=rows))

    def modes(self, grid):
        """The rows (first, stop) and the number of columns of the spectrum that are kept."""
        f, half = self.hard_thresholding_fraction, grid[-1] // 2 + 1
        if self.mode_rule == "afno":
            return None, min(half, int((math.prod(grid) // 2 + 1) * f))
        middle = grid[0] // 2 + 1
        kept = int(middle * f)
        return (max(0, middle - kept), min(grid[0], middle + kept)), min(half, kept)


@register(
    "dynamic_spectrum",
    paper="Dynamic Spectrum Mixer for Visual Recognition",
    year=2023,
    arxiv="2309.06721",
    ranks=(1, 2),
    causal=False,
    cost="O(L log L C)",
)
@dataclass(frozen=True)
class DynamicSpectrum(Mixer):
    """Cosine coefficients weighted in bands, the weights chosen by the input.

    F = dct(x);  z_k = mean of F over band k;  m = softmax(gelu(norm(z) w1 + b1) w2 + b2);  y = idct(m_band F).
    The bands are runs of the coefficients in zigzag order, from low to high frequency; every channel of every item
    chooses its own weights, with one small network for all.

    Parameters
    ----------
    dim : int
        Channels c.
    num_bands : int
        Bands k, >= 2 and at most the number of tokens.
    hidden : int
        Width v of the network.
    bias : bool
        b1 and b2.
    rescale : bool
        Multiply the weights by k, so that equal weights give the identity (else identity / k).
    projections : bool
        Linear maps of the channels before and after.

    Raises
    ------
    ValueError
        If an option is out of its range, or x has fewer tokens than bands.

    Notes
    -----
    x is (b, l, c) or (b, h, w, c) of any size. Parameters norm_scale, norm_bias (k,): 1, 0; w1 (k, v), w2 (v, k), w_in
    (c, c), w_out (c, c): normal with std 0.02; b1 (v,), b2 (k,), b_in (c,), b_out (c,): 0. The coefficients are
    computed at least in float32. Two cosine transforms, 3 flops per value and 4 k v per channel.
    The paper publishes no code and describes the generator of the weights only in outline; its inner structure is that
    of the same first authors' Dynamic SpectraFormer. hidden, num_bands, rescale and projections are this
    library's.
    Source: Hu & Yu 2023, arXiv:2309.06721.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("dynamic_spectrum", dim=8, num_bands=4)
    >>> mixer(mixer.init(0), numpy.ones((1, 4, 6, 8), "float32")).shape
    (1, 4, 6, 8)
    """

    dim: int
    num_bands: int = 16
    hidden: int = 64
    bias: bool = True
    rescale: bool = False
    projections: bool = False

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "num_bands", self.num_bands, minimum=2)
        check.integer(f, "hidden", self.hidden, minimum=1)
        for name in ("bias", "rescale", "projections"):
            check.boolean(f, name, getattr(self, name))

    def check_input(self, x):
        super().check_input(x)
        tokens = math.prod(x.shape[1:-1])
        if tokens < self.num_bands:
            raise ValueError(
                f"{self.name}: x must have at least num_bands = {self.num_bands} tokens, got shape {tuple(x.shape)}"
            )

    def parameters(self):
        c, k, v = self.dim, self.num_bands, self.hidden
        law, zeros = initializers.truncated_normal(), initializers.zeros
        specs = {
            "norm_scale": Parameter((k,), initializers.ones),
            "norm_bias": Parameter((k,), zeros),
            "w1": Parameter((k, v), law),
            "w2": Parameter((v, k), law),
        }
        if self.bias:
            specs |= {"b1": Parameter((v,), zeros), "b2": Parameter((k,), zeros)}
        if self.projections:
            for side in ("in", "out"):
                specs |= {f"w_{side}": Parameter((c, c), law), f"b_{side}": Parameter((c,), zeros)}
        return specs

    def mix(self, p, x):
        u = ops.linear(x, p.w_in, p.b_in) if self.projections else x
        F = ops.dct(u.astype(compute_dtype(x.dtype), copy=False))
        z = ops.band_mean(F, bands=self.num_bands)
        m = ops.band_weights(z, p.norm_scale, p.norm_bias, p.w1, p.w2, p.b1, p.b2)
        if self.rescale:
            m = m * float(self.num_bands)
        y = ops.idct(ops.band_scale(F, m)).astype(x.dtype, copy=False)
        return ops.linear(y, p.w_out, p.b_out) if self.projections else y
