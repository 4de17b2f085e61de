"""What the mixers with a selective scan share: the start of its parameters, and its coefficients."""

import math
from dataclasses import dataclass, field

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.graph import split
from mixers.mixer import Parameter
from mixers.op import compute_dtype


@dataclass(frozen=True, kw_only=True)
class StepLaw:
    """How the steps of a scan start: log-uniform in [dt_min, dt_max], and not below dt_init_floor.

    These options come last; what they decide is over once the parameters are drawn, so they are not shown.
    """

    dt_min: float = field(default=1e-3, repr=False)
    dt_max: float = field(default=1e-1, repr=False)
    dt_init_floor: float = field(default=1e-4, repr=False)

    def _check_steps(self):
        check.number(self.name, "dt_min", self.dt_min, above=0)
        check.number(self.name, "dt_max", self.dt_max, minimum=self.dt_min)
        check.number(self.name, "dt_init_floor", self.dt_init_floor, above=0)

    @property
    def _step_bias(self):
        """An initialiser whose softplus follows the law."""

        def draw(rng, shape):
            steps = numpy.exp(rng.uniform(math.log(self.dt_min), math.log(self.dt_max), shape))
            steps = steps.clip(min=self.dt_init_floor)
            return steps + numpy.log(-numpy.expm1(-steps))

        return draw


@dataclass(frozen=True, kw_only=True)
class SelectiveLaw(StepLaw):
    """How all parameters of a selective scan start; for mixers with dim, d_state, dt_rank and expand (or _inner)."""

    dt_init: str = field(default="random", repr=False)
    dt_scale: float = field(default=1.0, repr=False)

    @property
    def _inner(self):
        return int(self.expand * self.dim)

    def _check_scan(self, name, *switches):
        """Check what the mixers share, and switches; `name` is the option that sets the inner channels."""
        f = self.name
        check.integer(f, "dim", self.dim, minimum=1)
        check.integer(f, "d_state", self.d_state, minimum=1)
        check.number(f, name, getattr(self, name), above=0)
        if self._inner < 1:
            raise ValueError(f"{f}: {name} must give at least one inner channel, got {getattr(self, name)}")
        if self.dt_rank != "auto":
            check.integer(f, "dt_rank", self.dt_rank, minimum=1)
        self._check_steps()
        check.choice(f, "dt_init", self.dt_init, ("random", "constant"))
        check.number(f, "dt_scale", self.dt_scale, above=0)
        for switch in switches:
            check.boolean(f, switch, getattr(self, switch))

    @property
    def _rank(self):
        return -(-self.dim // 16) if self.dt_rank == "auto" else self.dt_rank

    @property
    def _step_weight(self):
        bound = self.dt_scale / math.sqrt(self._rank)
        constant = self.dt_init == "constant"
        return initializers.constant(bound) if constant else initializers.uniform(-bound, bound)

    def _scan_parameters(self, e, suffix="", directions=()):
        """Parameters of a scan of e channels; with `directions` (k,) of k scans, along a first axis."""
        n, rank = self.d_state, self._rank
        specs = {
            "w_x": Parameter((*directions, e, rank + 2 * n), initializers.fan_in_uniform(e)),
            "w_dt": Parameter((*directions, rank, e), self._step_weight),
            "dt_bias": Parameter((*directions, e), self._step_bias),
            "A_log": Parameter((*directions, e, n), log_rates),
            "D": Parameter((*directions, e), initializers.ones),
        }
        return {name + suffix: spec for name, spec in specs.items()}

    def _coefficients(self, p, u, suffix=""):
        """Raw steps, A, B and C of the scan of u, with one group."""
        n = self.d_state
        r, B, C = split(ops.linear(u, p[f"w_x{suffix}"]), [self._rank, n, n])
        group = (*u.shape[:-1], 1, n)
        return (
            ops.linear(r, p[f"w_dt{suffix}"]),
            rates(p[f"A_log{suffix}"]),
            B.reshape(group),
            C.reshape(group),
        )

    def _constants(self, p, suffix=""):
        return {"D": p[f"D{suffix}"], "delta_bias": p[f"dt_bias{suffix}"], "delta_softplus": True}


def log_rates(rng, shape):
    """The rates 1, 2, ..., n of the states of every channel, as logarithms."""
    return numpy.broadcast_to(numpy.log(numpy.arange(1.0, shape[-1] + 1)), shape).copy()


def rates(A_log):
    """A = -exp(A_log), at least in float32."""
    return -ops.exp(A_log.astype(compute_dtype(A_log.dtype), copy=False))


def outer_projections(c, wide, inner, bias):
    """w_in (c, wide) and w_out (inner, c), and their biases; in two parts, for what lies between."""
    as_torch = initializers.fan_in_uniform
    first, last = (
        {"w_in": Parameter((c, wide), as_torch(c))},
        {"w_out": Parameter((inner, c), as_torch(inner))},
    )
    if bias:
        first["b_in"] = Parameter((wide,), as_torch(c))
        last["b_out"] = Parameter((c,), as_torch(inner))
    return first, last


def convolution(w_shape, bias, suffix=""):
    """conv_w and conv_b of a depthwise convolution; the channels are the last axis of w."""
    law = initializers.fan_in_uniform(math.prod(w_shape[:-1]))
    specs = {f"conv_w{suffix}": Parameter(w_shape, law)}
    return specs | ({f"conv_b{suffix}": Parameter(w_shape[-1:], law)} if bias else {})
