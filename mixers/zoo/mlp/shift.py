"""MLPs whose channels look at each other's neighbours: shifts of channel groups before linear maps."""

from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import graph, ops
from mixers.initializers import fan_in_uniform, truncated_normal, zeros
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import norm_parameters


def _linear_parameters(name, c_in, c_out, weight, bias):
    """w_<name> and b_<name>; `bias` is its law, None for no bias."""
    specs = {f"w_{name}": Parameter((c_in, c_out), weight)}
    return specs if bias is None else specs | {f"b_{name}": Parameter((c_out,), bias)}


@register(
    "axial_shift",
    paper="AS-MLP: An Axial Shifted MLP Architecture for Vision",
    year=2021,
    arxiv="2107.08391",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class AxialShift(Mixer):
    """AS-MLP's axial shift: linear maps of channels shifted along the width, and along the height.

    a = gelu(norm1(x w_in + b_in)); y = norm2(gelu(shift_w(a) w_lr + b_lr) + gelu(shift_h(a) w_td + b_td)) w_out +
    b_out; zeros come in at the border. Channel c moves by c // ceil(C / s) - s // 2 positions, s the shift size; if C
    has fewer groups than s, the last displacements are missing. Norms have statistics over an image and all its
    channels.

    Parameters
    ----------
    dim : int
        Channels C.
    shift_size : int
        s, odd, >= 1; 5 in the published models, 1 does not shift.
    bias : bool
        Of the four linear maps.
    eps : float
        Of both norms, >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in, w_lr, w_td, w_out (c, c) and biases ``b_*`` (c,), U(+-1/sqrt(c)); ``norm1_*``,
    ``norm2_*`` scale and bias (c,). 8 c flops per element forward.
    Source: Lian et al. 2021, arXiv:2107.08391, eq. 2-4; official AxialShift.
    """

    dim: int
    shift_size: int = 5
    bias: bool = True
    eps: float = 1e-5

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.integer(self.name, "shift_size", self.shift_size, minimum=1, odd=True)
        check.boolean(self.name, "bias", self.bias)
        check.number(self.name, "eps", self.eps, minimum=0.0)

    def parameters(self):
        c = self.dim
        law = fan_in_uniform(c)
        linear = lambda name: _linear_parameters(name, c, c, law, law if self.bias else None)
        return {
            **linear("in"),
            **norm_parameters("norm1", c),
            **linear("lr"),
            **linear("td"),
            **norm_parameters("norm2", c),
            **linear("out"),
        }

    @property
    def _shifts(self):
        return numpy.arange(self.dim) // -(-self.dim // self.shift_size) - self.shift_size // 2

    def mix(self, p, x):
        a = ops.linear(x, p.w_in, p.b_in)
        a = ops.gelu(ops.group_norm(a, p.norm1_scale, p.norm1_bias, eps=self.eps))
        left_right = ops.gelu(ops.shift_linear(a, p.w_lr, p.b_lr, shifts=self._shifts, axis=2))
        top_down = ops.gelu(ops.shift_linear(a, p.w_td, p.b_td, shifts=self._shifts, axis=1))
        y = ops.group_norm(left_right + top_down, p.norm2_scale, p.norm2_bias, eps=self.eps)
        return ops.linear(y, p.w_out, p.b_out)


def _spatial_shifts(c, axes):
    """Displacements (2, c) along rows and columns: quarters of the channels move by one along two axes."""
    shifts = numpy.zeros((2, c), numpy.int64)
    ends = [c * k // 4 for k in range(5)]
    for group, (axis, step) in enumerate([(axes[0], 1), (axes[0], -1), (axes[1], 1), (axes[1], -1)]):
        shifts[axis, ends[group] : ends[group + 1]] = step
    return shifts


@register(
    "spatial_shift",
    paper="S2-MLP: Spatial-Shift MLP Architecture for Vision",
    year=2021,
    arxiv="2106.07477",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class SpatialShift(Mixer):
    """S2-MLP's spatial shift: two linear maps, between which each quarter of the channels moves by one position.

    y = shift(gelu(x w_in + b_in)) w_out + b_out; the quarters, which end at floor(k C / 4), move down, up, right and
    left, all at once. A line that nothing moves into keeps its own values.

    Parameters
    ----------
    dim : int
        Channels C, any number: quarters may be empty or unequal.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in, w_out (c, c), b_in, b_out (c,), U(+-1/sqrt(c)). 4 c flops per element forward.
    Public re-implementations shift by overlapping assignments in place, which copies one line into all others; here
    every group reads the values from before the shift. The paper assigns the first two quarters to the width, its
    re-implementations to the height as here; the two differ by a permutation of the channels.
    Source: Yu et al. 2021, arXiv:2106.07477, section 3.2, eq. 4-6.
    """

    dim: int

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)

    def parameters(self):
        c, law = self.dim, fan_in_uniform(self.dim)
        return {**_linear_parameters("in", c, c, law, law), **_linear_parameters("out", c, c, law, law)}

    def mix(self, p, x):
        a = ops.gelu(ops.linear(x, p.w_in, p.b_in))
        shifts = _spatial_shifts(self.dim, axes=(0, 1))
        return ops.shift_linear(a, p.w_out, p.b_out, shifts=shifts, axis=(1, 2), mode="clamp")


@register(
    "spatial_shift_v2",
    paper="S2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision",
    year=2021,
    arxiv="2108.01072",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class SpatialShiftV2(Mixer):
    """S2-MLPv2's spatial shift: three maps of x, two of them shifted, weighed by split attention.

    [u0 | u1 | u2] = x w_in + b_in; z0 = shift_a(u0), z1 = shift_b(u1), z2 = u2; m = sum_k weights_k z_k per image and
    channel, weights = softmax(gelu(a w_att_in) w_att_out) with a the sum of all z over tokens; y = m w_out + b_out.
    shift_a is that of :class:`SpatialShift`, shift_b has the axes exchanged.

    Parameters
    ----------
    dim : int
        Channels C, any number.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in (c, 3 c), b_in (3 c,), w_att_in (c, c), w_att_out (c, 3 c), w_out (c, c),
    b_out (c,), U(+-1/sqrt(c)). Output k C + c of w_att_out belongs to branch k. The sum over tokens grows with the
    image, so the softmax is often saturated; it is computed in float32 at least. 8 c flops per element forward.
    Source: Yu et al. 2021, arXiv:2108.01072, eq. 3-8; re-implementations' S2Attention with simultaneous shifts.
    """

    dim: int

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)

    def parameters(self):
        c, law = self.dim, fan_in_uniform(self.dim)
        return {
            **_linear_parameters("in", c, 3 * c, law, law),
            "w_att_in": Parameter((c, c), law),
            "w_att_out": Parameter((c, 3 * c), law),
            **_linear_parameters("out", c, c, law, law),
        }

    def mix(self, p, x):
        u0, u1, u2 = graph.split(ops.linear(x, p.w_in, p.b_in), [self.dim] * 3)
        z0, z1 = (
            ops.channel_shift(u, shifts=_spatial_shifts(self.dim, axes), axis=(1, 2), mode="clamp")
            for u, axes in ((u0, (0, 1)), (u1, (1, 0)))
        )
        m = ops.branch_attention(z0, z1, u2, p.w_att_in, p.w_att_out, pool="sum", order="slowest")
        return ops.linear(m, p.w_out, p.b_out)


def _cycle_shifts(c, kernel):
    """Channel c is read at offset ((c + k // 2) mod k) - k // 2: it moves by the opposite."""
    reach = kernel // 2
    return reach - (numpy.arange(c) + reach) % kernel


@register(
    "cycle_fc",
    paper="CycleMLP: A MLP-like Architecture for Dense Prediction",
    year=2021,
    arxiv="2107.10224",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class CycleFc(Mixer):
    """CycleMLP's cycle fully-connected layer: a linear map that reads channel c at an offset that cycles with c.

    y[i] = b + sum_c x[i + o_c, c] w[c], o_c = ((c + K // 2) mod K) - K // 2 along one axis, zeros beyond the grid.

    Parameters
    ----------
    dim : int
        Channels C of x.
    axis : {"w", "h"}
        The axis of the offsets; "w" is the official kernel (1, K).
    kernel : int
        K, odd, >= 1.
    out_dim : int, optional
        Channels of y; C by default.
    bias : bool

    Notes
    -----
    x is (b, h, w, c). Parameters w (c, out_dim), truncated normal with std 0.02, b (out_dim,), zero. 2 c out_dim flops
    per token forward.
    Source: Chen et al. 2021, arXiv:2107.10224, eq. 2-3; official CycleFC.
    """

    dim: int
    axis: str
    kernel: int = 3
    out_dim: int | None = None
    bias: bool = True

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        check.choice(self.name, "axis", self.axis, ("w", "h"))
        check.integer(self.name, "kernel", self.kernel, minimum=1, odd=True)
        if self.out_dim is None:
            object.__setattr__(self, "out_dim", self.dim)
        check.integer(self.name, "out_dim", self.out_dim, minimum=1)
        check.boolean(self.name, "bias", self.bias)

    def parameters(self):
        specs = {"w": Parameter((self.dim, self.out_dim), truncated_normal(0.02))}
        return specs | {"b": Parameter((self.out_dim,), zeros)} if self.bias else specs

    def mix(self, p, x):
        axis = 2 if self.axis == "w" else 1
        return ops.shift_linear(x, p.w, p.b, shifts=_cycle_shifts(self.dim, self.kernel), axis=axis)


@register(
    "cycle_mlp",
    paper="CycleMLP: A MLP-like Architecture for Dense Prediction",
    year=2021,
    arxiv="2107.10224",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class CycleMlp(Mixer):
    """CycleMLP's token mixing: cycle layers along both axes and a plain linear map, weighed by an attention.

    z0 = cycle_w(x), z1 = cycle_h(x), z2 = x w_c + b_c; m = sum_k weights_k z_k per image and channel, weights =
    softmax(gelu(a w_att_in + b_att_in) w_att_out + b_att_out) with a the mean over tokens of the sum of all z;
    y = m w_out + b_out.

    Parameters
    ----------
    dim : int
        Channels C, >= 4.
    kernel : int
        K, odd, >= 1; 3 in the paper.
    bias_c : bool
        Bias of w_c.

    Notes
    -----
    x is (b, h, w, c). Parameters w_row, w_col, w_c, w_out (c, c), b_row, b_col, b_c, b_out (c,), w_att_in (c, c // 4),
    b_att_in (c // 4,), w_att_out (c // 4, 3 c), b_att_out (3 c,); truncated normal with std 0.02, biases zero. Output
    3 c + k of w_att_out belongs to branch k. 8 c flops per element forward.
    Source: Chen et al. 2021, arXiv:2107.10224, section 3.2 and figure 2; official CycleMLP.
    """

    dim: int
    kernel: int = 3
    bias_c: bool = False

    def __post_init__(self):
        check.integer(self.name, "dim", self.dim, minimum=1)
        if self.dim < 4:
            raise ValueError(f"{self.name}: dim must be >= 4, got {self.dim}")
        check.integer(self.name, "kernel", self.kernel, minimum=1, odd=True)
        check.boolean(self.name, "bias_c", self.bias_c)

    def parameters(self):
        c, law = self.dim, truncated_normal(0.02)
        return {
            **_linear_parameters("row", c, c, law, zeros),
            **_linear_parameters("col", c, c, law, zeros),
            **_linear_parameters("c", c, c, law, zeros if self.bias_c else None),
            **_linear_parameters("att_in", c, c // 4, law, zeros),
            **_linear_parameters("att_out", c // 4, 3 * c, law, zeros),
            **_linear_parameters("out", c, c, law, zeros),
        }

    def mix(self, p, x):
        shifts = _cycle_shifts(self.dim, self.kernel)
        z0 = ops.shift_linear(x, p.w_row, p.b_row, shifts=shifts, axis=2)
        z1 = ops.shift_linear(x, p.w_col, p.b_col, shifts=shifts, axis=1)
        z2 = ops.linear(x, p.w_c, p.b_c)
        m = ops.branch_attention(z0, z1, z2, p.w_att_in, p.w_att_out, p.b_att_in, p.b_att_out)
        return ops.linear(m, p.w_out, p.b_out)


@register(
    "mix_shift",
    paper="Mixing and Shifting: Exploiting Global and Local Dependencies in Vision MLPs",
    year=2022,
    arxiv="2202.06510",
    ranks=(2,),
    causal=False,
    cost="O(L C k^2)",
)
@dataclass(frozen=True)
class MixShift(Mixer):
    """MS-MLP's mixing and shifting: channel groups move around the image by their own distance, then convolve.

    Group j: y_j = conv(roll_w(x_j, s_j); w_lr_j) + b_lr_j + conv(roll_h(x_j, s_j); w_td_j) + b_td_j, depthwise with
    kernel k_j. The roll wraps around, the convolution then pads with zeros.

    Parameters
    ----------
    dim : int
        Channels C. With n groups of ceil(C / n) channels, none may be empty; the last may be smaller.
    shifts : sequence of int
        s_j, positions towards larger indices.
    kernels : sequence of int
        k_j, odd, as many as shifts. The paper's first stage has (1, 1, 3, 5, 7), later ones (1, 3, 3, 5, 7),
        (1, 5, 5, 5, 7) and (1, 7, 7, 7, 7).

    Notes
    -----
    x is (b, h, w, c). Parameters of each group j with C_j channels: w_lr_j, w_td_j (k_j, k_j, C_j), b_lr_j, b_td_j
    (C_j,), U(+-1/k_j). 4 k_j^2 flops per element forward. What follows in the paper's block is its channel MLP.
    Source: Zheng et al. 2022, arXiv:2202.06510, section 3.2; official MixShiftBlock.
    """

    dim: int
    shifts: tuple = (-2, -1, 0, 1, 2)
    kernels: tuple = (1, 1, 3, 5, 7)

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        for name, options in (("shifts", {}), ("kernels", {"minimum": 1, "odd": True})):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not value:
                raise ValueError(f"{f}: {name} must be a sequence of at least one integer, got {value!r}")
            object.__setattr__(
                self, name, tuple(check.integer(f, f"each of {name}", v, **options) for v in value)
            )
        n = len(self.shifts)
        if len(self.kernels) != n:
            raise ValueError(f"{f}: kernels must be as many as shifts = {n}, got {len(self.kernels)}")
        if len(self._sizes) != n:
            raise ValueError(
                f"{f}: dim must fill {n} groups of {self._sizes[0]} channels, got {self.dim}, "
                f"which fills {len(self._sizes)}"
            )

    @property
    def _sizes(self):
        """Channels of each group."""
        q = -(-self.dim // len(self.shifts))
        return [min(q, self.dim - first) for first in range(0, self.dim, q)]

    def parameters(self):
        specs = {}
        for j, (k, c) in enumerate(zip(self.kernels, self._sizes)):
            for way in ("lr", "td"):
                specs[f"w_{way}_{j}"] = Parameter((k, k, c), fan_in_uniform(k * k))
                specs[f"b_{way}_{j}"] = Parameter((c,), fan_in_uniform(k * k))
        return specs

    def mix(self, p, x):
        count = range(len(self.shifts))
        flat = lambda name: graph.concatenate([p[f"{name}_{j}"].reshape(-1) for j in count])
        bias = ops.add(flat("b_lr"), flat("b_td"))
        return ops.rolled_conv2d(
            x, flat("w_lr"), flat("w_td"), bias, shifts=self.shifts, kernels=self.kernels
        )
