"""The HyperZ.Z.W operator."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import constant, stop_gradient
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
from mixers.registry import register


@register(
    "hyper_zzw",
    paper="HyperZ.Z.W Operator Connects Slow-Fast Networks for Full Context Interaction",
    year=2024,
    arxiv="2401.17948",
    ranks=(2,),
    causal=False,
    cost="O(L C (C + sqrt L)) global, O(L C (C + kernel_size^2)) local",
)
@dataclass(frozen=True)
class HyperZzw(Mixer):
    """Images meet kernels from a multiplicative network of coordinates.

    a = sin(q w_sin_0 + b_sin_0);  a <- sin(q w_sin_{i+1} + b_sin_{i+1}) (a w_lin_i + b_lin_i) + bias_p for each
    layer i, q the coordinates of a kernel's entries;  k = a w_kernel + b_kernel.
    global: y = (x k) z, the matrix product of images, z = norm(x w_mix + b_mix) over each image and channel.
    local: y = gelu(norm(conv(x, k) w_mix + b_mix)) + b_out, a depthwise convolution and a norm over batch and tokens;
    the layers are also renormalised and multiplied by gates that a context of the whole batch sets.

    Parameters
    ----------
    dim : int
        Channels c.
    mode : {"global", "local"}
    kernel_size : int
        Side k of the kernel, >= 2. global: the images must be k x k; local: odd. Authors: 32; 3, 5, 7 and 9.
    hidden : int
        Width d of the network. Authors: 64; 32.
    num_layers : int
        Layers n, >= 1. Authors: 3 or 2; 2.
    omega_0 : float
        Scale of the initial frequencies. The authors' code has no default.
    alpha, beta : float
        Shape (divided by i + 1 in layer i) and rate of the Gamma law that the initial frequencies are spread by, > 0.

    Raises
    ------
    ValueError
        If an option is out of its range, or x has another size than k x k in global mode.

    Notes
    -----
    x is (b, h, w, c). Mode "local" couples the items of a batch, in training and after. Parameters: w_sin_i (2, d),
    b_sin_i (d,), i <= n; w_lin_i (d, d), b_lin_i (d,), i < n; bias_p (k, k); w_kernel (d, c), b_kernel (c,); w_mix
    (c, c), b_mix (c,), which the norm takes away again: it has no effect and gradient zero; local: w_reduce (c, d),
    b_reduce, w_ctx (d, d), b_ctx, w_gate_i (d, d), b_gate_i; renorm_alpha, renorm_beta (n, d), which have gradients but
    which the authors do not train; b_out (1,).
    The renormalisation alpha u + beta u / |u| (norms over the k x k entries) lets nothing through its first term in
    the backward, as in the authors' code. Kernels are computed at least in float32.
    Per batch item 2 l c^2 flops for the linear map and 2 l sqrt(l) c (global) or 2 l k^2 c (local).
    Source: Zhang 2024, arXiv:2401.17948; HyperZZW_G and HyperZZW_L of the authors' repository, one branch of
    their block.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("hyper_zzw", dim=4, mode="local", kernel_size=3, hidden=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 6, 5, 4), "float32")).shape
    (1, 6, 5, 4)
    """

    dim: int
    mode: str = "global"
    kernel_size: int = 32
    hidden: int = 64
    num_layers: int = 3
    omega_0: float = 1.0
    alpha: float = 6.0
    beta: float = 1.0

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.choice(f, "mode", self.mode, ("global", "local"))
        check.integer(f, "kernel_size", self.kernel_size, minimum=2)
        if self.mode == "local" and self.kernel_size % 2 == 0:
            raise ValueError(f"{f}: kernel_size must be odd in local mode, got {self.kernel_size}")
        check.integer(f, "hidden", self.hidden, minimum=1)
        check.integer(f, "num_layers", self.num_layers, minimum=1)
        check.number(f, "omega_0", self.omega_0)
        check.number(f, "alpha", self.alpha, above=0)
        check.number(f, "beta", self.beta, above=0)

    def check_input(self, x):
        super().check_input(x)
        k = self.kernel_size
        if self.mode == "global" and x.shape[1:3] != (k, k):
            raise ValueError(
                f"{self.name}: x must have the token grid {(k, k)} of the kernel in global mode, got {x.shape[1:3]}"
            )

    def parameters(self):
        c, d, n, k = self.dim, self.hidden, self.num_layers, self.kernel_size
        zeros, linear = initializers.zeros, initializers.kaiming_uniform(d, slope=1.0)
        specs = {}
        for i in range(n + 1):
            specs[f"w_sin_{i}"] = Parameter((2, d), self._frequencies(i))
            specs[f"b_sin_{i}"] = Parameter((d,), zeros)
        for i in range(n):
            specs[f"w_lin_{i}"] = Parameter((d, d), linear)
            specs[f"b_lin_{i}"] = Parameter((d,), initializers.ones)
        specs |= {
            "bias_p": Parameter((k, k), zeros),
            "w_kernel": Parameter((d, c), lambda rng, shape: linear(rng, shape) / k),
            "b_kernel": Parameter((c,), zeros),
            "w_mix": Parameter((c, c), initializers.normal(math.sqrt(2.0 / c))),
            "b_mix": Parameter((c,), zeros),
        }
        return specs if self.mode == "global" else specs | self._context_parameters(linear)

    def _frequencies(self, layer):
        """Initial law of w_sin: a torch Linear's weights times 2 pi omega_0 and a Gamma variable each."""
        uniform = initializers.fan_in_uniform(2)

        def draw(rng, shape):
            spread = rng.gamma(self.alpha / (layer + 1), 1.0 / self.beta, shape)
            return uniform(rng, shape) * (2.0 * math.pi * self.omega_0) * spread

        return draw

    def _context_parameters(self, linear):
        c, d, n, as_torch = self.dim, self.hidden, self.num_layers, initializers.fan_in_uniform
        specs = {
            "w_reduce": Parameter((c, d), as_torch(c)),
            "b_reduce": Parameter((d,), as_torch(c)),
            "w_ctx": Parameter((d, d), as_torch(d)),
            "b_ctx": Parameter((d,), as_torch(d)),
        }
        for i in range(n):
            specs[f"w_gate_{i}"] = Parameter((d, d), linear)
            specs[f"b_gate_{i}"] = Parameter((d,), initializers.ones)
        return specs | {
            "renorm_alpha": Parameter((n, d), initializers.ones, frozen=True),
            "renorm_beta": Parameter((n, d), initializers.constant(0.1), frozen=True),
            "b_out": Parameter((1,), initializers.zeros),
        }

    def mix(self, p, x):
        if x.size == 0:
            return x
        c = self.dim
        # the norms take b_mix away again
        if self.mode == "global":
            z = ops.group_norm(ops.linear(x, p.w_mix), groups=c)
            return ops.spatial_matmul(ops.mul(x, self.kernel(p)), z)
        mixed = ops.linear(ops.depthwise_conv2d(x, self.kernel(p, x)), p.w_mix)
        # all tokens of the batch as one item
        normed = ops.group_norm(mixed.reshape(1, -1, c), groups=c).reshape(x.shape)
        return ops.add(ops.gelu(normed), p.b_out)

    def kernel(self, p, x=None):
        """The kernel (k, k, c); in local mode it depends on the input."""
        k = self.kernel_size
        first = p.w_sin_0.astype(compute_dtype(p.w_sin_0.dtype), copy=False)
        line = numpy.linspace(-1.0, 1.0, k)
        rows, columns = numpy.meshgrid(line, line, indexing="ij")
        q = constant(numpy.stack([rows.ravel(), columns.ravel()], axis=1), first)
        a = ops.sin(ops.linear(q, first, p.b_sin_0))
        e = None if x is None else self._context(p, x, like=a)
        for i in range(self.num_layers):
            sines = ops.sin(ops.linear(q, p[f"w_sin_{i + 1}"], p[f"b_sin_{i + 1}"]))
            u = sines * ops.linear(a, p[f"w_lin_{i}"], p[f"b_lin_{i}"])
            a = ops.add(u, p.bias_p.reshape(-1, 1))
            if e is not None:
                gate = ops.linear(e, p[f"w_gate_{i}"], p[f"b_gate_{i}"])
                a = _renormalised(a, p.renorm_alpha[i], p.renorm_beta[i]) * gate
        return ops.linear(a, p.w_kernel, p.b_kernel).reshape(k, k, self.dim)

    def _context(self, p, x, like):
        """What the batch looks like on k x k cells, (k^2, d)."""
        for axis in (1, 2):
            cells = constant(_cells(x.shape[axis], self.kernel_size), like)
            x = ops.axis_linear(x, cells, axis=axis)
        reduced = ops.linear(x.astype(like.dtype, copy=False), p.w_reduce, p.b_reduce)
        mean = reduced.mean(axis=0).reshape(-1, self.hidden)
        return ops.gelu(ops.linear(mean, p.w_ctx, p.b_ctx))


def _cells(n, k):
    """The matrix (k, n) of means over adaptive cells: cell i holds floor(i n / k) .. ceil((i + 1) n / k) - 1."""
    i, place = numpy.arange(k)[:, None], numpy.arange(n)
    inside = (place >= i * n // k) & (place < -(-(i + 1) * n // k))
    return inside / inside.sum(axis=1, keepdims=True)


def _renormalised(u, alpha, beta):
    """alpha u + beta u / max(|u|, 1e-12) per channel, where nothing flows back through the first u."""
    count = u.shape[0]
    # the root mean square is |u| / sqrt(count)
    unit = ops.rms_norm(u.swapaxes(0, 1), eps=1e-24 / count).swapaxes(0, 1) * (1.0 / math.sqrt(count))
    return ops.add(ops.mul(unit, beta), ops.mul(stop_gradient(u), alpha))
