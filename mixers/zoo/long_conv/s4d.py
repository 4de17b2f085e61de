"""Diagonal state-space models."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Mixer, Parameter
from mixers.op import compute_dtype
from mixers.registry import register


@register(
    "s4d",
    paper="On the Parameterization and Initialization of Diagonal State Space Models",
    year=2022,
    arxiv="2206.11893",
    ranks=(1,),
    causal=True,
    cost="O(L C (C + d_state + log L))",
)
@dataclass(frozen=True)
class S4d(Mixer):
    """A diagonal linear recurrence as a long convolution, then a gated linear map.

    v = k * x + D x with k[l] = 2 Re sum_n C_n phi_n lambda_n^l;  (a, b) = gelu(v) w_out + b_out;  y = a sigmoid(b).

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        Modes n, even, >= 2; half of them are stored, the others are their conjugates.
    disc : {"zoh", "bilinear"}
        Discretisation, see :data:`mixers.ops.s4d_kernel`.
    a_init : {"lin", "inv", "real"}
        Initial poles A_i, i < n / 2. "lin": -1/2 + pi i sqrt(-1). "inv": -1/2 + n / pi (n / (2 i + 1) - 1) sqrt(-1).
        "real": -(i + 1).
    dt_min, dt_max : float
        Range of the initial steps, 0 < dt_min <= dt_max.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    x is (b, l, c) of any length; causal. Parameters: log_dt (c,), uniform between the logarithms of dt_min and dt_max;
    log_A_real, A_imag (c, n / 2), A = -exp(log_A_real) + A_imag sqrt(-1); C_re, C_im (c, n / 2): N(0, 1/2); D (c,):
    N(0, 1); w_out (c, 2 c), b_out (2 c,). B is fixed to 1. The kernel is computed at least in float32.
    4 l c^2 flops for the linear map, 10 l log2(2 l) c for the convolution per batch item, 4 n c l for the kernel.
    Source: Gu et al. 2022, arXiv:2206.11893, sections 3 and 4; S4D of the authors' s4 repository.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("s4d", dim=4, d_state=8)
    >>> mixer(mixer.init(0), numpy.ones((1, 20, 4), "float32")).shape
    (1, 20, 4)
    """

    dim: int
    d_state: int = 64
    disc: str = "zoh"
    a_init: str = "lin"
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self):
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "d_state", self.d_state, minimum=2)
        if self.d_state % 2:
            raise ValueError(f"{f}: d_state must be even, got {self.d_state}")
        check.choice(f, "disc", self.disc, ("zoh", "bilinear"))
        check.choice(f, "a_init", self.a_init, ("lin", "inv", "real"))
        check.number(f, "dt_min", self.dt_min, above=0)
        check.number(f, "dt_max", self.dt_max, minimum=self.dt_min)

    def parameters(self):
        c, shape = self.dim, (self.dim, self.d_state // 2)
        half, as_torch = initializers.normal(math.sqrt(0.5)), initializers.fan_in_uniform(self.dim)
        real, imaginary = (numpy.broadcast_to(row, shape) for row in self._poles())
        return {
            "log_dt": Parameter((c,), initializers.uniform(math.log(self.dt_min), math.log(self.dt_max))),
            "log_A_real": Parameter(shape, initializers.table(numpy.log(real))),
            "A_imag": Parameter(shape, initializers.table(imaginary)),
            "C_re": Parameter(shape, half),
            "C_im": Parameter(shape, half),
            "D": Parameter((c,), initializers.normal()),
            "w_out": Parameter((c, 2 * c), as_torch),
            "b_out": Parameter((2 * c,), as_torch),
        }

    def _poles(self):
        """Negated real and imaginary parts of A at the start."""
        n, modes = self.d_state, numpy.arange(self.d_state // 2)
        if self.a_init == "real":
            return modes + 1.0, numpy.zeros(len(modes))
        imaginary = numpy.pi * modes if self.a_init == "lin" else n / numpy.pi * (n / (2 * modes + 1) - 1)
        return numpy.full(len(modes), 0.5), imaginary

    def mix(self, p, x):
        v = ops.long_conv1d(x, self.kernel(p, x.shape[1]), p.D)
        a, b = split(ops.linear(ops.gelu(v), p.w_out, p.b_out), [self.dim, self.dim])
        return a * ops.sigmoid(b)

    def kernel(self, p, length):
        """The convolution kernel (length, c)."""
        log_dt = p.log_dt.astype(compute_dtype(p.log_dt.dtype), copy=False)
        # the op of no tokens has nothing to convolve with
        length = max(length, 1)
        return ops.s4d_kernel(log_dt, p.log_A_real, p.A_imag, p.C_re, p.C_im, length=length, disc=self.disc)
