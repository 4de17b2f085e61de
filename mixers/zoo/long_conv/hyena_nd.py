"""The Hyena operator for images."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import concatenate, constant, split
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
from mixers.registry import register
from mixers.zoo.long_conv.filters import decays, positions, sine_network, sine_network_parameters

# which axes the convolutions look ahead along, for each direction
_CAUSAL, _BACKWARDS = (False, False), (True, True)
_FOUR = (_CAUSAL, _BACKWARDS, (False, True), (True, False))


@register(
    "hyena_nd",
    paper="Multi-Dimensional Hyena for Spatial Inductive Bias",
    year=2023,
    arxiv="2309.13600",
    ranks=(2,),
    causal=False,
    grid_tied=True,
    cost="O(order L C (C + log L))",
)
@dataclass(frozen=True)
class HyenaNd(Mixer):
    """Hyena on square images: convolutions over a quadrant with generated kernels, between gates.

    x_0, ..., x_{order-1}, v = conv3x3(x w_in + b_in);  v <- h_s * u / (2 n) + D_s u, u = v x_{order-1-s}, for
    s = 0 .. order - 2;  y = (v x_0) w_out + b_out. The direction that a convolution looks to can be reversed, or all
    four be taken together.

    Parameters
    ----------
    dim : int
        Channels c.
    grid : (int, int)
        (n, n): the images must have this size.
    order : int
        Gates, >= 2; there are order - 1 long convolutions.
    filter_order : int
        Width f of the filter networks.
    emb_dim : int
        Features e of a position, odd, >= 3.
    num_inner_mlps : int
        Hidden layers of width f, >= 0.
    w : float
        Initial frequency of the sine layers.
    shift : float
        Floor of the windows "standard".
    fast_decay_pct, slow_decay_pct, target : float
        The windows fall to target, in (0, 1), after these fractions (> 0) of an axis.
    filter : {"product", "2d", "direct"}
        The kernel is the product of one filter per axis; or generated from both positions; or a free parameter.
    window : {"standard", "no", "learn", "symmetric"}
        Fixed decays along both axes; none; decays and floors that are trained; trained decays in i + j (only for
        filter "2d"). No effect on filter "direct".
    sqrt_decay : bool
        Square root of the decay, for filter "2d".
    direction : {"standard", "seq", "4dir", "4dirp"}
        All convolutions look back along both axes; the first one ahead along both; the sum of the four ways to choose,
        weighted by numbers; or by matrices.

    Raises
    ------
    ValueError
        If an option is out of its range, window "symmetric" comes without filter "2d", or x has another size.

    Notes
    -----
    x is (b, n, n, c). Not causal: the 3 x 3 convolution looks to all sides. Parameters: w_in (c, (order + 1) c), b_in;
    w_short (3, 3, (order + 1) c), b_short; D (order - 1, c); w_out (c, c), b_out; filters "product" and "2d": pos_emb
    (n, e), trained, freq (f,), shared by all sine layers; w_filter_h_i, b_filter_h_i, w_filter_h_out (f, order - 1, c)
    and the same with w ("product"), or w_filter_i, b_filter_i, w_filter_out, the first of 2 e inputs ("2d"); filter
    (order - 1, n, n, c) ("direct"); window "learn": deltas_h, deltas_w, and shift_h, shift_w ("product") or shift
    ("2d"), "symmetric": deltas, shift, all (order - 1, c); w_mix (4,), b_mix (1,) ("4dir") or w_mix (4, c, c), b_mix
    (c,) ("4dirp"). Kernels are computed at least in float32.
    The factor 1 / (2 n) is that of the authors' code, whose direction "parallel" is not here. About
    2 n^2 c^2 (order + 2) flops for the linears and 40 n^2 log2(2 n) c (order - 1) for the convolutions per batch item,
    four times in four directions.
    Source: Zimerman & Wolf 2023, arXiv:2309.13600; HyenaOperator2d of the authors' repository.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("hyena_nd", dim=4, grid=(6, 6), filter_order=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 6, 6, 4), "float32")).shape
    (1, 6, 6, 4)
    """

    dim: int
    grid: tuple
    order: int = 2
    filter_order: int = 64
    emb_dim: int = 3
    num_inner_mlps: int = 2
    w: float = 1.0
    shift: float = 0.0
    fast_decay_pct: float = 0.3
    slow_decay_pct: float = 1.5
    target: float = 1e-2
    filter: str = "product"
    window: str = "standard"
    sqrt_decay: bool = False
    direction: str = "standard"

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        object.__setattr__(self, "grid", check.grid(f, self.grid, ranks=(2,)))
        if self.grid[0] != self.grid[1]:
            raise ValueError(f"{f}: grid must be square, got {self.grid}")
        check.integer(f, "order", self.order, minimum=2)
        check.integer(f, "filter_order", self.filter_order, minimum=1)
        check.integer(f, "emb_dim", self.emb_dim, minimum=3, odd=True)
        check.integer(f, "num_inner_mlps", self.num_inner_mlps, minimum=0)
        check.number(f, "w", self.w)
        check.number(f, "shift", self.shift)
        check.number(f, "fast_decay_pct", self.fast_decay_pct, above=0)
        check.number(f, "slow_decay_pct", self.slow_decay_pct, above=0)
        check.number(f, "target", self.target, above=0, below=1)
        check.choice(f, "filter", self.filter, ("product", "2d", "direct"))
        check.choice(f, "window", self.window, ("standard", "no", "learn", "symmetric"))
        check.boolean(f, "sqrt_decay", self.sqrt_decay)
        check.choice(f, "direction", self.direction, ("standard", "seq", "4dir", "4dirp"))
        if self.window == "symmetric" and self.filter != "2d":
            raise ValueError(f'{f}: window "symmetric" needs filter "2d", got filter {self.filter!r}')

    def parameters(self):
        c, o, wide, as_torch = self.dim, self.order, (self.order + 1) * self.dim, initializers.fan_in_uniform
        return {
            "w_in": Parameter((c, wide), as_torch(c)),
            "b_in": Parameter((wide,), as_torch(c)),
            "w_short": Parameter((3, 3, wide), as_torch(9)),
            "b_short": Parameter((wide,), as_torch(9)),
            **self._filter_parameters(),
            "D": Parameter((o - 1, c), initializers.normal()),
            **self._direction_parameters(),
            "w_out": Parameter((c, c), as_torch(c)),
            "b_out": Parameter((c,), as_torch(c)),
        }

    def _filter_parameters(self):
        n, e = self.grid[0], self.emb_dim
        if self.filter == "direct":
            return {"filter": Parameter((self.order - 1, n, n, self.dim), initializers.normal())}
        specs = {
            "pos_emb": Parameter((n, e), initializers.table(positions(n, e))),
            "freq": Parameter((self.filter_order,), initializers.constant(self.w)),
        }
        if self.filter == "product":
            specs |= sine_network_parameters(self, e, "h_") | sine_network_parameters(self, e, "w_")
        else:
            specs |= sine_network_parameters(self, 2 * e)
        shape = (self.order - 1, self.dim)
        rates = Parameter(shape, initializers.table(self._decays().reshape(shape)))
        floors = Parameter(shape, initializers.uniform(0.0, 1.0))
        if self.window == "learn":
            specs |= {"deltas_h": rates, "deltas_w": rates}
            specs |= {"shift_h": floors, "shift_w": floors} if self.filter == "product" else {"shift": floors}
        elif self.window == "symmetric":
            specs |= {"deltas": rates, "shift": floors}
        return specs

    def _direction_parameters(self):
        c, as_torch = self.dim, initializers.fan_in_uniform
        if self.direction == "4dir":
            return {"w_mix": Parameter((4,), as_torch(4)), "b_mix": Parameter((1,), as_torch(4))}
        if self.direction == "4dirp":
            return {"w_mix": Parameter((4, c, c), as_torch(4 * c)), "b_mix": Parameter((c,), as_torch(4 * c))}
        return {}

    def mix(self, p, x):
        projected = ops.linear(x, p.w_in, p.b_in)
        short = ops.depthwise_conv2d(projected, p.w_short, p.b_short)
        *gates, v = split(short, [self.dim] * (self.order + 1))
        kernels = [h * (1.0 / (2 * self.grid[0])) for h in self.kernels(p)]
        if self.direction in ("standard", "seq"):
            y = self._convolve(p, v, gates, kernels, _CAUSAL)
        else:
            y = self._mix_directions(p, [self._convolve(p, v, gates, kernels, d) for d in _FOUR])
        return ops.linear(y, p.w_out, p.b_out)

    def _convolve(self, p, v, gates, kernels, reverse):
        for s, h in enumerate(kernels):
            ahead = _BACKWARDS if self.direction == "seq" and s == 0 else reverse
            v = ops.long_conv2d(v * gates[self.order - 1 - s], h, p.D[s], reverse=ahead)
        return v * gates[0]

    def _mix_directions(self, p, parts):
        if self.direction == "4dir":
            terms = [ops.mul(part, p.w_mix[i : i + 1]) for i, part in enumerate(parts)]
            return ops.add(sum(terms[1:], terms[0]), p.b_mix)
        terms = [ops.linear(part, p.w_mix[i]) for i, part in enumerate(parts)]
        return ops.add(sum(terms[1:], terms[0]), p.b_mix)

    def kernels(self, p):
        """The kernels h_s in order, (n, n, c) each, before the factor 1 / (2 n)."""
        n, count = self.grid[0], self.order - 1
        if self.filter == "direct":
            wide = p.filter.astype(compute_dtype(p.filter.dtype), copy=False)
            return [wide[s] for s in range(count)]
        if self.filter == "product":
            h, w = (self._line(p, axis) for axis in ("h", "w"))
            kernel = h.reshape(n, 1, -1) * w.reshape(1, n, -1)
        else:
            table = p.pos_emb.astype(compute_dtype(p.pos_emb.dtype), copy=False)
            ones = constant(numpy.ones((n, n, self.emb_dim)), table)
            rows, columns = ones * table.reshape(n, 1, -1), ones * table.reshape(1, n, -1)
            kernel = sine_network(self, p, concatenate([rows, columns]))
            if self.window != "no":
                kernel = kernel * self._window(p, kernel)
        return split(kernel, [self.dim] * count)

    def _line(self, p, axis):
        """The filter along one axis with its window, (n, (order - 1) c)."""
        line = sine_network(self, p, p.pos_emb, f"{axis}_")
        if self.window == "no":
            return line
        if self.window == "standard":
            decay = constant(numpy.exp(-self._times()[:, None] * numpy.abs(self._decays())), line)
            return line * (decay + self.shift)
        return line * (self._decay(p[f"deltas_{axis}"], self._times(), line) + _row(p[f"shift_{axis}"], line))

    def _window(self, p, like):
        """The window of a kernel over both axes, (n, n, (order - 1) c)."""
        n, half = self.grid[0], 0.5 if self.sqrt_decay else 1.0
        times = half * self._times()
        if self.window == "standard":
            t = times[:, None, None] + times[:, None]
            return constant(numpy.exp(-t * numpy.abs(self._decays())) + self.shift, like)
        if self.window == "learn":
            rows, columns = (self._decay(p[f"deltas_{axis}"], times, like) for axis in "hw")
            return rows.reshape(n, 1, -1) * columns.reshape(1, n, -1) + _row(p.shift, like)
        steps = half * (numpy.arange(n)[:, None] + numpy.arange(n))
        return self._decay(p.deltas, steps.reshape(-1), like).reshape(n, n, -1) + _row(p.shift, like)

    def _decay(self, deltas, times, like):
        """exp(-t |delta|) with rates that are trained."""
        return ops.exp(constant(-times[:, None], like) * ops.absolute(_row(deltas, like)))

    def _times(self):
        n = self.grid[0]
        return numpy.arange(n) / max(n - 1, 1)

    def _decays(self):
        count = (self.order - 1) * self.dim
        return decays(count, self.slow_decay_pct, self.fast_decay_pct, self.target)


def _row(parameter, like):
    """(order - 1, c) as a row of all filters, in the dtype that kernels are computed in."""
    return parameter.astype(like.dtype, copy=False).reshape(1, -1)
