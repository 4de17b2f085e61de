"""Gates made by convolutions along rows and columns."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import graph, initializers, ops
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import batch_norm, batch_norm_parameters, norm_parameters


@register(
    "dfc_attention",
    paper="GhostNetV2: Enhance Cheap Operation with Long-Range Attention",
    year=2022,
    arxiv="2211.12905",
    ranks=(2,),
    causal=False,
    cost="O(L C^2)",
)
@dataclass(frozen=True)
class DfcAttention(Mixer):
    """GhostNetV2's decoupled fully connected attention: a gate from strips of 5 at half the resolution.

    q = BN(vertical(BN(horizontal(BN(pool(x) w_gate))))); y = z upsample(sigmoid(q)), with z = x or the ghost module
    z = [act(BN(x w_primary)) | act(BN(conv(.)))].

    Parameters
    ----------
    dim : int
        Channels c of x.
    out_dim : int, optional
        Channels of y; dim by default, and required to be with value "identity".
    value : {"ghost", "identity"}
        What the gate multiplies.
    norm_eps : float
        Of all batch norms, >= 0.
    ratio : int
        Ghost only, >= 2: I = ceil(out_dim / ratio) primary channels, I (ratio - 1) cheap ones.
    dw_size : int
        Ghost only: kernel of the cheap convolution, odd.
    relu : bool
        Ghost only: ReLU after both of its norms.

    Notes
    -----
    x is (b, h, w, c), h and w >= 2. Parameters w_gate (c, o), w_gate_h (1, 5, o), w_gate_v (5, 1, o), gate_norm1..3;
    ghost: w_primary (c, I), primary_norm, w_cheap (dw, dw, 1, M), cheap_norm. No biases; Kaiming-uniform.
    The paper describes fully connected layers along each axis; the official code, followed here, has kernels of 5.
    Source: Tang et al. 2022, arXiv:2211.12905, eq. 3-5; official GhostModuleV2, mode "attn".
    """

    dim: int
    out_dim: int | None = None
    value: str = "ghost"
    norm_eps: float = 1e-5
    ratio: int = 2
    dw_size: int = 3
    relu: bool = True

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        if self.out_dim is None:
            object.__setattr__(self, "out_dim", self.dim)
        check.integer(f, "out_dim", self.out_dim, minimum=1)
        check.choice(f, "value", self.value, ("ghost", "identity"))
        if self.value == "identity" and self.out_dim != self.dim:
            raise ValueError(
                f"{f}: out_dim must be dim = {self.dim} with value 'identity', got {self.out_dim}"
            )
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)
        check.integer(f, "ratio", self.ratio, minimum=2)
        check.integer(f, "dw_size", self.dw_size, minimum=1, odd=True)
        check.boolean(f, "relu", self.relu)

    def check_input(self, x):
        super().check_input(x)
        if min(x.shape[1:3]) < 2:
            raise ValueError(f"{self.name}: x must have h, w >= 2, got {tuple(x.shape)}")

    @property
    def _widths(self):
        """Primary and cheap channels of the ghost module."""
        primary = -(-self.out_dim // self.ratio)
        return primary, primary * (self.ratio - 1)

    def parameters(self):
        c, o = self.dim, self.out_dim
        kaiming = initializers.kaiming_uniform
        specs = {
            "w_gate": Parameter((c, o), kaiming(c)),
            **batch_norm_parameters("gate_norm1", o),
            "w_gate_h": Parameter((1, 5, o), kaiming(5)),
            **batch_norm_parameters("gate_norm2", o),
            "w_gate_v": Parameter((5, 1, o), kaiming(5)),
            **batch_norm_parameters("gate_norm3", o),
        }
        if self.value == "identity":
            return specs
        primary, cheap = self._widths
        return specs | {
            "w_primary": Parameter((c, primary), kaiming(c)),
            **batch_norm_parameters("primary_norm", primary),
            "w_cheap": Parameter((self.dw_size, self.dw_size, 1, cheap), kaiming(self.dw_size**2)),
            **batch_norm_parameters("cheap_norm", cheap),
        }

    def mix(self, p, x):
        norm = lambda name, t: batch_norm(p, name, t, self.norm_eps)
        q = norm("gate_norm1", ops.linear(ops.avg_pool_2x2(x), p.w_gate))
        q = norm("gate_norm2", ops.depthwise_conv2d(q, p.w_gate_h))
        q = norm("gate_norm3", ops.depthwise_conv2d(q, p.w_gate_v))
        gate = ops.nearest_upsample(ops.sigmoid(q), grid=tuple(x.shape[1:3]))
        return ops.mul(x if self.value == "identity" else self._ghost(p, x, norm), gate)

    def _ghost(self, p, x, norm):
        primary, _ = self._widths
        act = ops.relu if self.relu else lambda t: t
        x1 = act(norm("primary_norm", ops.linear(x, p.w_primary)))
        x2 = act(norm("cheap_norm", ops.grouped_conv2d(x1, p.w_cheap, groups=primary)))
        return graph.concatenate([x1, x2])[..., : self.out_dim]


@register(
    "coordinate_local_attention",
    paper="ELA: Efficient Local Attention for Deep Convolutional Neural Networks",
    year=2024,
    arxiv="2403.01123",
    ranks=(2,),
    causal=False,
    cost="O(L C)",
)
@dataclass(frozen=True)
class CoordinateLocalAttention(Mixer):
    """ELA: gates along each axis from strip means, a short convolution and a group norm that both axes share.

    a_h = sigmoid(group_norm(conv(mean_w x))), a_w = sigmoid(group_norm(conv(mean_h x))); y = x a_h a_w.

    Parameters
    ----------
    dim : int
        Channels c.
    kernel_size : int
        Odd, >= 1.
    conv_groups : int, optional
        Divides c; c / 8 by default where 8 divides c, else 1.
    norm_groups : int, optional
        Divides c; 16 by default where it divides c, else 1.
    norm_eps : float
        >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters w_conv (k, c / conv_groups, c), norm_scale, norm_bias (c,). The paper's variants:
    T kernel 5, conv_groups c, norm_groups 32; B 7, c, 16; S 5, c / 8, 16; L 7, c / 8, 16 (the default).
    About 4 flops per element and 2 (h + w) k c^2 / conv_groups per image.
    Source: Xu & Wan 2024, arXiv:2403.01123, eq. 3-6; the official class ELA.
    """

    dim: int
    kernel_size: int = 7
    conv_groups: int | None = None
    norm_groups: int | None = None
    norm_eps: float = 1e-5

    def __post_init__(self):
        f = self.name
        c = check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "kernel_size", self.kernel_size, minimum=1, odd=True)
        for name, default in (
            ("conv_groups", c // 8 if c % 8 == 0 else 1),
            ("norm_groups", 16 if c % 16 == 0 else 1),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            check.divides(f, name, check.integer(f, name, getattr(self, name), minimum=1), "dim", c)
        check.number(f, "norm_eps", self.norm_eps, minimum=0.0)

    def parameters(self):
        c, k, inputs = self.dim, self.kernel_size, self.dim // self.conv_groups
        return {
            "w_conv": Parameter((k, inputs, c), initializers.kaiming_uniform(k * inputs)),
            **norm_parameters("norm", c),
        }

    def mix(self, p, x):
        b, h, w, c = x.shape
        a_h = self._gate(p, ops.token_mean(x, axes=(2,))).reshape(b, h, 1, c)
        a_w = self._gate(p, ops.token_mean(x, axes=(1,))).reshape(b, 1, w, c)
        return ops.mul(ops.mul(x, a_h), a_w)

    def _gate(self, p, means):
        t = ops.grouped_conv1d(means, p.w_conv, groups=self.conv_groups)
        return ops.sigmoid(
            ops.group_norm(t, p.norm_scale, p.norm_bias, groups=self.norm_groups, eps=self.norm_eps)
        )
