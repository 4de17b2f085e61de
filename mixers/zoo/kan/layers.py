"""Kolmogorov-Arnold layers: in place of each weight of a linear map a learnable function of one variable."""

import dataclasses
import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops, splines
from mixers.backend import array_backend
from mixers.graph import concatenate
from mixers.mixer import Mixer, Parameter
from mixers.registry import register

_ACTIVATIONS = ("silu", "gelu", "identity", "zero")


@dataclass(frozen=True)
class Layer(Mixer):
    """A layer from in_features to out_features, along the channels or along the tokens."""

    in_features: int
    out_features: int

    def __post_init__(self):
        for option in ("in_features", "out_features"):
            check.integer(self.name, option, getattr(self, option), minimum=1)
        check.choice(self.name, "axis", self.axis, ("channel", "token"))

    @property
    def dim(self):
        """Channels of x, which a layer along the tokens leaves open."""
        if self.axis == "token":
            raise AttributeError(f"{self.name}: has no dim with axis='token'")
        return self.in_features

    def check_input(self, x):
        """Check the axis that the layer acts on."""
        shape, i = tuple(x.shape), self.in_features
        if self.axis == "channel":
            if len(shape) < 2 or shape[-1] != i:
                raise ValueError(f"{self.name}: x must have shape (..., c) with c = {i}, got {shape}")
        elif len(shape) not in (3, 4) or math.prod(shape[1:-1]) != i:
            raise ValueError(
                f"{self.name}: x must have shape (b, l, c) or (b, h, w, c) with l or h w = {i}, got {shape}"
            )

    def mix(self, p, x):
        if self.axis == "channel":
            return self.sum_edges(p, x)
        tokens = x.reshape(x.shape[0], self.in_features, x.shape[-1])
        return self.sum_edges(p, tokens.swapaxes(1, 2)).swapaxes(1, 2)

    def sum_edges(self, p, x):
        """(..., in_features) to (..., out_features)."""
        raise NotImplementedError


def check_range(function, name, value):
    """Check a pair of numbers lo < hi and return it as a tuple of float."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{function}: {name} must be a pair of numbers, got {value!r}")
    low, high = (check.number(function, name, part) for part in value)
    if not low < high:
        raise ValueError(f"{function}: {name} must be (lo, hi) with lo < hi, got {value}")
    return low, high


def spline_noise(size, order, noise=0.1):
    """Initialiser (i, g, o): least-squares coefficients of noise at the inner knots of a spline of g functions."""

    def draw(rng, shape):
        i, g, o = shape
        knots = splines.uniform_knots(-1.0, 1.0, size, order)
        values = rng.uniform(-0.5, 0.5, (size + 1, i * o)) * (noise / size)
        basis = splines.basis(knots[order : order + size + 1], knots, order)
        # the pseudo-inverse: the smallest of all coefficients that interpolate
        return (numpy.linalg.pinv(basis) @ values).reshape(g, i, o).swapaxes(0, 1)

    return draw


@register(
    "kan_bspline",
    paper="KAN: Kolmogorov-Arnold Networks",
    year=2024,
    arxiv="2404.19756",
    ranks=(1, 2),
    causal=False,
    cost="O(L i o (g + k))",
)
@dataclass(frozen=True)
class KanBspline(Layer):
    """Spline KAN layer: a B-spline and a fixed activation on every edge.

    y[o] = sum_i act(x[i]) w_base[i, o] + sum_g B_{i, g}(x[i]) w_spline[i, g, o] spline_scale[i, o].

    Parameters
    ----------
    in_features, out_features : int
        i and o, >= 1.
    grid_size : int
        g >= 1 intervals.
    spline_order : int
        k >= 0, the degree; there are g + k functions.
    grid_range : (float, float)
        lo < hi, ends of the intervals at the start.
    standalone_scale : bool
        Whether every edge has a factor for its spline.
    base_activation : {"silu", "gelu", "identity", "zero"}
        act.
    axis : {"channel", "token"}
        What the layer maps: the last axis of x (..., c), or the tokens of x (b, l, c) or (b, h, w, c), which
        gives (b, out_features, c); then in_features is l or h w and all channels share the functions.

    Raises
    ------
    ValueError
        If an option is out of its range, or knots in host memory do not increase.

    Notes
    -----
    Parameters: w_base (i, o), Kaiming-uniform; w_spline (i, g + k, o), the splines through small noise;
    spline_scale (i, o), Kaiming-uniform; grid (i, g + 2 k + 1), the knots of every input, not trained.
    B-splines are zero outside their knots. 2 (g + k + 1) i o flops per row.
    Source: Liu et al. 2024, arXiv:2404.19756, section 2.2; Blealtan/efficient-kan, class KANLinear.

    Examples
    --------
    >>> import mixers, numpy
    >>> layer = mixers.create("kan_bspline", in_features=6, out_features=5)
    >>> layer(layer.init(0), numpy.ones((2, 9, 6), "float32")).shape
    (2, 9, 5)
    """

    grid_size: int = 5
    spline_order: int = 3
    grid_range: tuple = (-1.0, 1.0)
    standalone_scale: bool = True
    base_activation: str = "silu"
    axis: str = "channel"

    def __post_init__(self):
        super().__post_init__()
        check.integer(self.name, "grid_size", self.grid_size, minimum=1)
        check.integer(self.name, "spline_order", self.spline_order, minimum=0)
        object.__setattr__(self, "grid_range", check_range(self.name, "grid_range", self.grid_range))
        check.boolean(self.name, "standalone_scale", self.standalone_scale)
        check.choice(self.name, "base_activation", self.base_activation, _ACTIVATIONS)

    def parameters(self):
        i, o, g, k = self.in_features, self.out_features, self.grid_size, self.spline_order
        # torch sees its weights as (out, in)
        kaiming = initializers.kaiming_uniform(i)
        knots = splines.uniform_knots(*self.grid_range, g, k)
        specs = {
            "w_base": Parameter((i, o), kaiming),
            "w_spline": Parameter((i, g + k, o), spline_noise(g, k)),
        }
        if self.standalone_scale:
            specs["spline_scale"] = Parameter((i, o), kaiming)
        table = initializers.table(numpy.tile(knots, (i, 1)))
        return specs | {"grid": Parameter((i, g + 2 * k + 1), table, trainable=False)}

    def _check_call(self, params, inputs, options):
        super()._check_call(params, inputs, options)
        knots = params["grid"]
        # looking at knots on a device would wait for it
        on_host = array_backend(knots) != "gpu"
        if on_host and not (numpy.diff(knots.astype(numpy.float64)) > 0).all():
            raise ValueError(f"{self.name}: params['grid'] must hold knots that increase along each row")

    def sum_edges(self, p, x):
        w, (i, o) = p.w_spline, p.w_base.shape
        if self.standalone_scale:
            w = w * p.spline_scale.reshape(i, 1, o)
        y = ops.kan_contract(x, w, p.grid, basis="bspline", order=self.spline_order)
        if self.base_activation == "zero":
            return y
        activation = getattr(ops, self.base_activation, None)
        return y + ops.linear(x if activation is None else activation(x), p.w_base)

    def refine(self, params, grid_size):
        """The same functions on a finer grid: coefficients refitted by least squares.

        Parameters
        ----------
        params : dict
            NumPy arrays.
        grid_size : int
            New number of intervals; between the first and last inner knot of each input they are even. A
            multiple of the old number keeps functions on even knots exactly.

        Returns
        -------
        layer : KanBspline
        params : dict
        """
        check.integer(self.name, "grid_size", grid_size, minimum=1)
        k = self.spline_order
        finer = dataclasses.replace(self, grid_size=grid_size)
        knots, w = (params[n].astype(numpy.float64) for n in ("grid", "w_spline"))
        inner = knots[:, k : k + self.grid_size + 1]
        new = numpy.stack([splines.uniform_knots(t[0], t[-1], grid_size, k) for t in inner])
        fitted = numpy.stack([splines.refit(*row, k) for row in zip(w, knots, new)])
        dtype = params["w_spline"].dtype
        return finer, {**params, "grid": new.astype(params["grid"].dtype), "w_spline": fitted.astype(dtype)}

    def refresh(self, params, x, adaptivity=0.02):
        """Move the knots to where the samples are and keep the splines on them, by least squares.

        Parameters
        ----------
        params : dict
            NumPy arrays.
        x : array (..., in_features)
            Samples (with axis "token", (b, l, c)).
        adaptivity : float
            Weight of even knots, 0 to 1; the rest are quantiles of the samples of each input.

        Returns
        -------
        dict
            With new `grid` and `w_spline`.

        Notes
        -----
        The fitted curves are those without spline_scale, so that the output on the samples stays; the authors'
        code writes the scaled ones and changes it.
        """
        check.number(self.name, "adaptivity", adaptivity, minimum=0.0)
        self.check_input(x)
        if self.axis == "token":
            x = x.reshape(x.shape[0], self.in_features, x.shape[-1]).swapaxes(1, 2)
        samples = numpy.sort(x.astype(numpy.float64).reshape(-1, self.in_features), axis=0)
        grid, w = params["grid"].astype(numpy.float64), params["w_spline"].astype(numpy.float64)
        new, fitted = [], []
        for i, column in enumerate(samples.T):
            values = splines.basis(column, grid[i], self.spline_order) @ w[i]
            new.append(splines.adaptive_knots(column, self.grid_size, self.spline_order, adaptivity))
            fitted.append(splines.fit(column, values, new[-1], self.spline_order))
        return {
            **params,
            "grid": numpy.stack(new).astype(params["grid"].dtype),
            "w_spline": numpy.stack(fitted).astype(params["w_spline"].dtype),
        }


@register(
    "kan_fourier",
    paper="FourierKAN (GistNoesis)",
    year=2024,
    arxiv="",
    ranks=(1, 2),
    causal=False,
    cost="O(L i o g)",
)
@dataclass(frozen=True)
class KanFourier(Layer):
    """Fourier KAN layer: a trigonometric polynomial on every edge.

    y[o] = b[o] + sum_{i, m} w_cos[i, m - 1, o] cos(m x[i]) + w_sin[i, m - 1, o] sin(m x[i]), m = 1..g.

    Parameters
    ----------
    in_features, out_features : int
        i and o, >= 1.
    grid_size : int
        g >= 1 frequencies.
    bias : bool
    smooth_init : bool
        Whether frequency m starts with standard deviation 1 / (sqrt(i) m^2) instead of 1 / sqrt(i g).
    axis : {"channel", "token"}
        As in :class:`KanBspline`.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    Parameters: w_cos, w_sin (i, g, o), normal; b (o,), zeros. 4 g i o flops per row.
    Source: GistNoesis/FourierKAN, class NaiveFourierKANLayer.

    Examples
    --------
    >>> import mixers, numpy
    >>> layer = mixers.create("kan_fourier", in_features=6, out_features=5, grid_size=4)
    >>> layer(layer.init(0), numpy.ones((2, 9, 6), "float32")).shape
    (2, 9, 5)
    """

    grid_size: int
    bias: bool = True
    smooth_init: bool = False
    axis: str = "channel"

    def __post_init__(self):
        super().__post_init__()
        check.integer(self.name, "grid_size", self.grid_size, minimum=1)
        check.boolean(self.name, "bias", self.bias)
        check.boolean(self.name, "smooth_init", self.smooth_init)

    def parameters(self):
        i, g, o = self.in_features, self.grid_size, self.out_features
        powers = numpy.arange(1.0, g + 1.0)[:, None]
        std = 1.0 / (i**0.5 * powers**2) if self.smooth_init else (i * g) ** -0.5
        specs = {n: Parameter((i, g, o), initializers.normal(std)) for n in ("w_cos", "w_sin")}
        return specs | ({"b": Parameter((o,), initializers.zeros)} if self.bias else {})

    def sum_edges(self, p, x):
        y = ops.kan_contract(x, concatenate((p.w_cos, p.w_sin), axis=1), basis="fourier")
        return ops.add(y, p.b) if self.bias else y


@register(
    "kan_rbf",
    paper="Kolmogorov-Arnold Networks are Radial Basis Function Networks",
    year=2024,
    arxiv="2405.06721",
    ranks=(1, 2),
    causal=False,
    cost="O(L i o g)",
)
@dataclass(frozen=True)
class KanRbf(Layer):
    """FastKAN layer: Gaussians at fixed centres on every edge.

    y[o] = sum_{i, g} exp(-((z[i] - centre[g]) / width)^2) w_rbf[i, g, o] + sum_i silu(x[i]) w_base[i, o] + b_base[o]
    with z the layer norm of x.

    Parameters
    ----------
    in_features, out_features : int
        i and o, >= 1.
    num_grids : int
        g >= 2 centres.
    grid_min, grid_max : float
        The first and the last of them, grid_min < grid_max.
    denominator : float, optional
        The width, > 0; the distance of centres by default.
    use_layernorm : bool
        Whether z is normalised; needs in_features > 1. Along the tokens with axis "token".
    use_base : bool
        Whether there is the second sum, which sees x as it is.
    norm_eps : float
        >= 0.
    axis : {"channel", "token"}
        As in :class:`KanBspline`.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    Parameters: norm_scale, norm_bias (i,); w_rbf (i, g, o), truncated normal 0.1; w_base (i, o), b_base (o,), uniform
    as torch's Linear. 2 (g + 1) i o flops per row.
    Source: Li 2024, arXiv:2405.06721; ZiyaoLi/fast-kan, class FastKANLayer.

    Examples
    --------
    >>> import mixers, numpy
    >>> layer = mixers.create("kan_rbf", in_features=6, out_features=5)
    >>> layer(layer.init(0), numpy.ones((2, 9, 6), "float32")).shape
    (2, 9, 5)
    """

    num_grids: int = 8
    grid_min: float = -2.0
    grid_max: float = 2.0
    denominator: float | None = None
    use_layernorm: bool = True
    use_base: bool = True
    norm_eps: float = 1e-5
    axis: str = "channel"

    def __post_init__(self):
        super().__post_init__()
        check.integer(self.name, "num_grids", self.num_grids, minimum=2)
        if check.number(self.name, "grid_min", self.grid_min) >= check.number(
            self.name, "grid_max", self.grid_max
        ):
            raise ValueError(
                f"{self.name}: grid_min must be < grid_max, got {self.grid_min} and {self.grid_max}"
            )
        if self.denominator is not None:
            check.number(self.name, "denominator", self.denominator, above=0)
        check.boolean(self.name, "use_layernorm", self.use_layernorm)
        check.boolean(self.name, "use_base", self.use_base)
        check.number(self.name, "norm_eps", self.norm_eps, minimum=0)
        if self.use_layernorm and self.in_features == 1:
            raise ValueError(
                f"{self.name}: use_layernorm must be False with in_features = 1, whose norm is constant"
            )

    def parameters(self):
        i, g, o = self.in_features, self.num_grids, self.out_features
        specs = {}
        if self.use_layernorm:
            specs["norm_scale"] = Parameter((i,), initializers.ones)
            specs["norm_bias"] = Parameter((i,), initializers.zeros)
        specs["w_rbf"] = Parameter((i, g, o), initializers.truncated_normal(0.1))
        if self.use_base:
            specs["w_base"] = Parameter((i, o), initializers.fan_in_uniform(i))
            specs["b_base"] = Parameter((o,), initializers.fan_in_uniform(i))
        return specs

    def sum_edges(self, p, x):
        z = ops.layer_norm(x, p.norm_scale, p.norm_bias, eps=self.norm_eps) if self.use_layernorm else x
        options = {"low": self.grid_min, "high": self.grid_max, "width": self.denominator}
        y = ops.kan_contract(z, p.w_rbf, basis="rbf", **options)
        return y + ops.linear(ops.silu(x), p.w_base, p.b_base) if self.use_base else y
