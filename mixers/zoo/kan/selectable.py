"""Layers that weigh several bases on every edge, or choose among them."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import graph, initializers, ops
from mixers.graph import concatenate
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import softmax
from mixers.zoo.kan.layers import Layer, check_range, spline_noise

MEMBERS = ("bspline", "rbf", "chebyshev", "fourier", "wavelet", "relu")
_WAVELETS = ("mexican_hat", "morlet", "dog", "meyer")
_PAPER = {
    "paper": "Activation Space Selectable Kolmogorov-Arnold Networks",
    "year": 2024,
    "arxiv": "2408.08338",
    "causal": False,
}


@dataclass(frozen=True, kw_only=True)
class _Selectable:
    """The options that both layers share, their parameters and the sum over the pool."""

    pool: tuple = ("bspline", "rbf", "chebyshev")
    select: str = "soft"
    select_per: str = "input"
    select_norm: str = "none"
    base: bool = True
    bias: bool = False
    grid_size: int = 5
    spline_order: int = 3
    grid_range: tuple = (-1.0, 1.0)
    rbf_grids: int = 8
    rbf_min: float = -2.0
    rbf_max: float = 2.0
    cheby_degree: int = 4
    fourier_grids: int = 3
    wavelet_type: str = "mexican_hat"
    relu_grids: int = 5
    relu_order: int = 3

    def check_selection(self):
        """Check the options above."""
        name = self.name
        if isinstance(self.pool, str) or not hasattr(self.pool, "__len__") or not len(self.pool):
            raise ValueError(f"{name}: pool must name one basis or more, got {self.pool!r}")
        object.__setattr__(self, "pool", tuple(self.pool))
        for member in self.pool:
            check.choice(name, "pool", member, MEMBERS)
        if len(set(self.pool)) < len(self.pool):
            raise ValueError(f"{name}: pool must hold different bases, got {self.pool}")
        check.choice(name, "select", self.select, ("soft", "hard"))
        check.choice(name, "select_per", self.select_per, ("input", "layer", "none"))
        check.choice(name, "select_norm", self.select_norm, ("none", "softmax"))
        check.boolean(name, "base", self.base)
        check.boolean(name, "bias", self.bias)
        for option, minimum in (
            ("grid_size", 1),
            ("spline_order", 0),
            ("rbf_grids", 2),
            ("cheby_degree", 0),
            ("fourier_grids", 1),
            ("relu_grids", 1),
            ("relu_order", 0),
        ):
            check.integer(name, option, getattr(self, option), minimum=minimum)
        object.__setattr__(self, "grid_range", check_range(name, "grid_range", self.grid_range))
        check_range(name, "(rbf_min, rbf_max)", (self.rbf_min, self.rbf_max))
        check.choice(name, "wavelet_type", self.wavelet_type, _WAVELETS)

    def edge_parameters(self, lead, o):
        """Parameters for inputs of the axes `lead` and o outputs."""
        i = int(numpy.prod(lead))
        kaiming = initializers.kaiming_uniform(i)
        specs = {}
        for member in self.pool:
            specs |= {
                name: Parameter((*lead, *shape), init)
                for name, (shape, init) in getattr(self, f"_{member}_parameters")(i, o, kaiming).items()
            }
        share = initializers.constant(0.0 if self.select_norm == "softmax" else 1.0 / len(self.pool))
        if self.select_per != "none":
            axes = lead if self.select_per == "input" else ()
            specs["select"] = Parameter((*axes, len(self.pool)), share)
        if self.base:
            specs["w_base"] = Parameter((*lead, o), kaiming)
        return specs | ({"b": Parameter((o,), initializers.zeros)} if self.bias else {})

    def _bspline_parameters(self, i, o, kaiming):
        g, k = self.grid_size, self.spline_order
        noise = spline_noise(g, k)
        return {"bspline_coef": ((g + k, o), lambda rng, shape: noise(rng, (i, g + k, o)).reshape(shape))}

    def _rbf_parameters(self, i, o, kaiming):
        return {"rbf_coef": ((self.rbf_grids, o), initializers.truncated_normal(0.1))}

    def _chebyshev_parameters(self, i, o, kaiming):
        d = self.cheby_degree + 1
        return {"cheby_coef": ((d, o), initializers.normal(1.0 / (i * d)))}

    def _fourier_parameters(self, i, o, kaiming):
        g = self.fourier_grids
        init = initializers.normal((i * g) ** -0.5)
        return {"fourier_cos": ((g, o), init), "fourier_sin": ((g, o), init)}

    def _wavelet_parameters(self, i, o, kaiming):
        return {
            "wavelet_weight": ((o,), kaiming),
            "wavelet_scale": ((o,), initializers.ones),
            "wavelet_translation": ((o,), initializers.zeros),
        }

    def _relu_parameters(self, i, o, kaiming):
        n, k = self.relu_grids, self.relu_order
        low = (numpy.arange(n + k) - k) / n
        spread = lambda values: lambda rng, shape: numpy.broadcast_to(values, shape).copy()
        return {
            "relu_low": ((n + k,), spread(low)),
            "relu_high": ((n + k,), spread(low + (k + 1) / n)),
            "relu_coef": ((n + k, o), initializers.normal((i * (n + k)) ** -0.5)),
        }

    def sum_pool(self, p, x):
        """y = sum over pool and inputs of the weight times the edge functions, plus base and bias.

        x is (..., i); parameters have their leading axes flattened to i.
        """
        i, weights, y = x.shape[-1], self.weights(p), None
        for member, name in enumerate(self.pool):
            own = {n: a for n, a in p.items() if n in getattr(self, f"_{name}_parameters")(i, 1, None)}
            kept = None if self.select == "soft" else self._winners(weights, i) == member
            if kept is not None and not kept.any():
                continue
            weight = None if weights is None else weights[..., member]
            rows = x
            if kept is not None and not kept.all():
                chosen = numpy.flatnonzero(kept)
                rows, own = x[..., chosen], {n: a[chosen] for n, a in own.items()}
                weight = weight[chosen] if weight is not None and weight.ndim else weight
            part = self._member(name, rows, weight, own)
            y = part if y is None else y + part
        if self.base:
            y = y + ops.linear(ops.silu(x), p.w_base)
        return ops.add(y, p.b) if self.bias else y

    def weights(self, p):
        """The weights (i, members) or (members,), None without any."""
        if self.select_per == "none":
            return None
        return softmax(p.select) if self.select_norm == "softmax" else p.select

    def _winners(self, weights, i):
        """The member that each input keeps, the first of equals; (i,) on the host."""
        if weights is None:
            return numpy.zeros(i, int)
        table = numpy.abs(graph.to_host(weights).astype(numpy.float64))
        return numpy.broadcast_to(table.argmax(axis=-1), (i,))

    def _member(self, name, x, weight, own):
        """The sum of one member; `own` holds its parameters."""
        if name == "wavelet":
            edges = _weighted(own["wavelet_weight"], weight), own["wavelet_scale"], own["wavelet_translation"]
            return ops.kan_edges(x, *edges, function=self.wavelet_type)
        if name == "relu":
            options = {"basis": "relu", "order": self.relu_order}
            ends = own["relu_low"], own["relu_high"]
            return ops.kan_contract(x, _weighted(own["relu_coef"], weight), *ends, **options)
        w, options = self.common_basis(name, own)
        return ops.kan_contract(x, _weighted(w, weight), **options)

    def common_basis(self, name, own):
        """Coefficients and options of a member whose functions are the same for all inputs."""
        if name == "bspline":
            low, high = self.grid_range
            options = {"basis": "bspline", "order": self.spline_order, "low": low, "high": high}
            return own["bspline_coef"], options
        if name == "rbf":
            return own["rbf_coef"], {"basis": "rbf", "low": self.rbf_min, "high": self.rbf_max}
        if name == "chebyshev":
            return own["cheby_coef"], {"basis": "chebyshev"}
        return concatenate((own["fourier_cos"], own["fourier_sin"]), axis=-2), {"basis": "fourier"}


def _weighted(coefficients, weight):
    """Coefficients (i, ...) times a weight of every input, or of all; the inputs may have several axes."""
    if weight is None:
        return coefficients
    ones = (1,) * (coefficients.ndim - weight.ndim)
    return coefficients * weight.reshape(*weight.shape, *ones)


@register("s_kan", ranks=(1, 2), cost="O(L i o g) for all g functions of the pool", **_PAPER)
@dataclass(frozen=True)
class SKan(_Selectable, Layer):
    """Selectable KAN layer: a weighted pool of bases on every edge.

    y[o] = sum over members k and inputs i of S[i, k] f_{k, i, o}(x[i]), plus silu(x) w_base and b.

    Parameters
    ----------
    in_features, out_features : int
        i and o, >= 1.
    pool : tuple of str
        Different ones of "bspline", "rbf", "chebyshev", "fourier", "wavelet", "relu".
    select : {"soft", "hard"}
        All members, or only the one with the largest abs(S) of each input (the first of equals), with its
        weight as it is; the others are not evaluated and get no gradient.
    select_per : {"input", "layer", "none"}
        Weights of every input, of the layer, or all 1.
    select_norm : {"none", "softmax"}
        Whether S is the softmax of `select` over the pool.
    base, bias : bool
        Whether there are w_base and b.
    grid_size, spline_order, grid_range
        Intervals, degree and ends of the B-splines on even knots.
    rbf_grids, rbf_min, rbf_max
        Number, first and last of the radial centres.
    cheby_degree : int
        Highest degree of the polynomials in tanh x.
    fourier_grids : int
        Frequencies.
    wavelet_type : {"mexican_hat", "morlet", "dog", "meyer"}
    relu_grids, relu_order : int
        Intervals and overlap of the ReLU bumps.
    axis : {"channel", "token"}
        As in :class:`KanBspline`.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    Parameters of the members in the pool: bspline_coef (i, grid_size + spline_order, o); rbf_coef
    (i, rbf_grids, o); cheby_coef (i, cheby_degree + 1, o); fourier_cos, fourier_sin (i, fourier_grids, o);
    wavelet_weight, wavelet_scale, wavelet_translation (i, o); relu_low, relu_high
    (i, relu_grids + relu_order), relu_coef with o more. Then select (i, members) or (members,); w_base (i, o);
    b (o,). With select="hard" the weights are read on the host.
    Source: arXiv:2408.08338, whose code is not public; members as in SeriYann/KANConv2d without its norms.

    Examples
    --------
    >>> import mixers, numpy
    >>> layer = mixers.create("s_kan", in_features=6, out_features=5, pool=("rbf", "wavelet"))
    >>> layer(layer.init(0), numpy.ones((2, 9, 6), "float32")).shape
    (2, 9, 5)
    """

    axis: str = "channel"

    def __post_init__(self):
        super().__post_init__()
        self.check_selection()

    def parameters(self):
        return self.edge_parameters((self.in_features,), self.out_features)

    def sum_edges(self, p, x):
        return self.sum_pool(p, x)


@register("s_conv_kan", ranks=(2,), cost="O(L k^2 C o g)", **_PAPER)
@dataclass(frozen=True)
class SConvKan(_Selectable, Mixer):
    """Selectable convolutional KAN: :class:`SKan` on the windows of an image.

    Parameters
    ----------
    dim, out_dim : int
        Channels of x and of the output.
    kernel_size : int
        Side k >= 1 of the window.
    stride : int
        >= 1.
    padding : int
        Zeros on each side, >= 0; they go through the functions like other values.
    pool, select, select_per, select_norm, base, bias
        As in :class:`SKan`; select_per="input" has a weight for every tap and channel.
    grid_size, spline_order, grid_range, rbf_grids, rbf_min, rbf_max, cheby_degree, fourier_grids
        As in :class:`SKan`.
    wavelet_type, relu_grids, relu_order
        As in :class:`SKan`.

    Raises
    ------
    ValueError
        If an option is out of its range or the window is larger than the padded image.

    Notes
    -----
    x (b, h, w, dim) gives (b, ho, wo, out_dim), ho = (h + 2 padding - k) // stride + 1. Parameters as of SKan with
    (k, k, dim) in place of i.
    Source: arXiv:2408.08338; windows as in SeriYann/KANConv2d.

    Examples
    --------
    >>> import mixers, numpy
    >>> layer = mixers.create("s_conv_kan", dim=3, out_dim=4, kernel_size=3, padding=1)
    >>> layer(layer.init(0), numpy.ones((2, 6, 5, 3), "float32")).shape
    (2, 6, 5, 4)
    """

    dim: int
    out_dim: int
    kernel_size: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self):
        for option in ("dim", "out_dim", "kernel_size", "stride"):
            check.integer(self.name, option, getattr(self, option), minimum=1)
        check.integer(self.name, "padding", self.padding, minimum=0)
        self.check_selection()

    def check_input(self, x):
        """Check that the window fits into the padded image."""
        super().check_input(x)
        if min(x.shape[1:3]) + 2 * self.padding < self.kernel_size:
            raise ValueError(
                f"{self.name}: kernel_size must be at most the padded image, "
                f"got {self.kernel_size} and the grid {tuple(x.shape[1:3])}"
            )

    def parameters(self):
        return self.edge_parameters((self.kernel_size, self.kernel_size, self.dim), self.out_dim)

    def mix(self, p, x):
        if self._shares_functions():
            return self._convolve(p, x)
        windows = ops.unfold2d(x, size=self.kernel_size, stride=self.stride, padding=self.padding)
        i = windows.shape[-1]
        flat = {n: a.reshape(i, *a.shape[3:]) if a.ndim > 2 else a for n, a in p.items()}
        return self.sum_pool(type(p)(flat), windows)

    def _shares_functions(self):
        """Whether all taps use all members, in which no tap has functions of its own."""
        return self.select == "soft" and not {"wavelet", "relu"} & set(self.pool)

    def _convolve(self, p, x):
        """The same without windows: the functions are evaluated once per pixel."""
        grid = {"stride": self.stride, "padding": self.padding}
        weights, y = self.weights(p), None
        for member, name in enumerate(self.pool):
            w, options = self.common_basis(name, dict(p.items()))
            w = _weighted(w, None if weights is None else weights[..., member])
            part = ops.kan_conv2d(x, w, **options, **grid)
            y = part if y is None else y + part
        if self.base:
            w = p.w_base.reshape(*p.w_base.shape[:3], 1, self.out_dim)
            y = y + ops.kan_conv2d(x, w, basis="silu", **grid)
        return ops.add(y, p.b) if self.bias else y
