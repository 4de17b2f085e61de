"""Mamba-2."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy

from mixers import _checks as check
from mixers import graph, initializers, ops
from mixers.graph import split
from mixers.mixer import Parameter
from mixers.ops.ssd import step_limits
from mixers.registry import register
from mixers.zoo.ssm.recurrent import RecurrentMixer
from mixers.zoo.ssm.selective import StepLaw, convolution, outer_projections, rates


class Mamba2State(NamedTuple):
    """What a Mamba-2 carries from token to token.

    conv_state (b, d_conv - 1, d_ssm + 2 g n) holds the last inputs of the convolution, oldest first, and
    ssm_state (b, h, p, n) the state of the recurrence.
    """

    conv_state: numpy.ndarray
    ssm_state: numpy.ndarray


@register(
    "mamba2",
    paper="Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality",
    year=2024,
    arxiv="2405.21060",
    ranks=(1,),
    causal=True,
    recurrent=True,
    cost="O(L C (C + d_state + chunk_size))",
)
@dataclass(frozen=True)
class Mamba2(StepLaw, RecurrentMixer):
    """Mamba-2: heads with one decay each, computed in chunks as products of matrices.

    (z0, x0, z, v, dt) = x w_in + b_in;  (u, B, C) = silu(conv(v));
    Y = ssd_scan(u, dt, -exp(A_log), B, C, D, softplus with dt_bias);  Y = norm(Y silu(z));
    y = (silu(z0) x0, Y) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per channel of a head.
    d_conv : int
        Taps k of the convolution.
    expand : float
        Inner channels e = floor(expand c).
    headdim : int
        Channels p of a head; divides d_ssm.
    ngroups : int
        Groups g of heads that share B and C; divides the heads h = d_ssm / p.
    d_ssm : int, optional
        Inner channels that go through the scan, all by default; the rest is a gated MLP beside it.
    D_has_headdim : bool
        One D per channel instead of one per head.
    rmsnorm : bool
        Norm after the scan; without it the gate is part of the scan.
    norm_before_gate : bool
        Norm first, then gate, instead of norm(Y silu(z)).
    norm_per_group : bool
        The mean square is taken over the d_ssm / g channels of each group, else over all.
    dt_limit : (float, float), optional
        Bounds of the steps.
    learnable_init_states : bool
        The state before the first token is a parameter, shared by the batch.
    conv_bias, bias : bool
        Biases of the convolution, and of both outer projections.
    chunk_size : int
        See :data:`mixers.ops.ssd_scan`; the result does not depend on it beyond rounding.
    dt_min, dt_max, dt_init_floor : float
        Initial steps lie between dt_min and dt_max on a logarithmic scale, and not below dt_init_floor.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    x is (b, l, c); causal. Call options: `state`, a Mamba2State from the tokens before; `return_state`, then the
    result is ``(y, state)``. Both take part in the backward; :meth:`step` continues token by token. A state that
    is given takes the place of init_states, which only the first of packed sequences starts from. `sequence_starts`
    and `mask` (b, l), NumPy arrays of booleans: where packed sequences begin, and False for padding, which changes no
    state; see :mod:`mixers.sequences`.
    Parameters: w_in (c, 2 d_mlp + 2 d_ssm + 2 g n + h) with the columns z0, x0, z, u, B, C, dt, and d_mlp = e - d_ssm;
    b_in; conv_w (k, d_ssm + 2 g n), conv_b; dt_bias (h,), A_log (h,), D (h,) or (h, p); norm_scale (d_ssm,);
    init_states (h, p, n); w_out (e, c), b_out. Rates start uniform in [1, 16]. exp(A_log) is computed at least in
    float32. A_log, D and dt_bias should not decay in training.
    Source: Dao & Gu 2024, arXiv:2405.21060, sections 6 and 7; state-spaces/mamba, mamba2.py.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("mamba2", dim=8, headdim=4, d_state=16)
    >>> params = mixer.init(0)
    >>> x = numpy.ones((1, 20, 8), "float32")
    >>> y, state = mixer(params, x, return_state=True)
    >>> y_next, state = mixer.step(params, x[:, 0], state)
    >>> y.shape, y_next.shape
    ((1, 20, 8), (1, 8))
    """

    dim: int
    d_state: int = 128
    d_conv: int = 4
    expand: float = 2.0
    headdim: int = 64
    ngroups: int = 1
    d_ssm: int | None = None
    D_has_headdim: bool = False
    rmsnorm: bool = True
    norm_before_gate: bool = False
    norm_per_group: bool = True
    dt_limit: tuple[float, float] | None = None
    learnable_init_states: bool = False
    conv_bias: bool = True
    bias: bool = False
    chunk_size: int = 256

    _state_type = Mamba2State

    def __post_init__(self):
        f = self.name
        for option in ("dim", "d_state", "d_conv", "headdim", "ngroups", "chunk_size"):
            check.integer(f, option, getattr(self, option), minimum=1)
        check.number(f, "expand", self.expand, above=0)
        if self._inner < 1:
            raise ValueError(f"{f}: expand must give at least one inner channel, got {self.expand}")
        if self.d_ssm is not None:
            check.integer(f, "d_ssm", self.d_ssm, minimum=1)
            if self.d_ssm > self._inner:
                raise ValueError(
                    f"{f}: d_ssm must be at most the inner channels {self._inner}, got {self.d_ssm}"
                )
        check.divides(f, "headdim", self.headdim, "d_ssm", self._scanned)
        check.divides(f, "ngroups", self.ngroups, "the number of heads", self._heads)
        for option in (
            "D_has_headdim",
            "rmsnorm",
            "norm_before_gate",
            "norm_per_group",
            "learnable_init_states",
            "conv_bias",
            "bias",
        ):
            check.boolean(f, option, getattr(self, option))
        if self.dt_limit is not None:
            step_limits(f, self.dt_limit)
        self._check_steps()

    @property
    def _inner(self):
        return int(self.expand * self.dim)

    @property
    def _scanned(self):
        return self._inner if self.d_ssm is None else self.d_ssm

    @property
    def _heads(self):
        return self._scanned // self.headdim

    @property
    def _convolved(self):
        return self._scanned + 2 * self.ngroups * self.d_state

    @property
    def _state_shapes(self):
        return (self.d_conv - 1, self._convolved), (self._heads, self.headdim, self.d_state)

    def parameters(self):
        c, h, beside = self.dim, self._heads, self._inner - self._scanned
        wide = 2 * beside + self._scanned + self._convolved + h
        first, last = outer_projections(c, wide, self._inner, self.bias)
        specs = first | convolution((self.d_conv, self._convolved), self.conv_bias)
        specs |= {
            "dt_bias": Parameter((h,), self._step_bias),
            "A_log": Parameter((h,), lambda rng, shape: numpy.log(rng.uniform(1.0, 16.0, shape))),
            "D": Parameter((h, self.headdim) if self.D_has_headdim else (h,), initializers.ones),
        }
        if self.rmsnorm:
            specs["norm_scale"] = Parameter((self._scanned,), initializers.ones)
        if self.learnable_init_states:
            specs["init_states"] = Parameter((h, self.headdim, self.d_state), initializers.zeros)
        return specs | last

    def mix(self, p, x, *, state=None, return_state=False, sequence_starts=None, mask=None):
        tables = {"sequence_starts": sequence_starts, "mask": mask}
        conv_state, ssm_state = self._start(p, x.shape[0]) if state is None else state
        z0, x0, z, v, dt = self._project(p, x)
        u = ops.causal_conv1d(
            v, p.conv_w, p.conv_b, initial_state=conv_state, return_final_state=return_state, **tables
        )
        u, conv_state = u if return_state else (u, None)
        Y = ops.ssd_scan(
            *self._scanned_arrays(p, u, dt),
            **self._constants(p, z),
            h0=ssm_state,
            chunk_size=self.chunk_size,
            return_last_state=return_state,
            **tables,
        )
        Y, ssm_state = Y if return_state else (Y, None)
        y = self._leave(p, Y, z0, x0, z)
        return (y, Mamba2State(conv_state, ssm_state)) if return_state else y

    def _start(self, p, batch):
        if p.init_states is None:
            return None, None
        # a sum with zeros is a broadcast that the tape knows the gradient of
        zeros = graph.constant(numpy.zeros((batch, 1, 1, 1)), p.init_states)
        return None, p.init_states + zeros

    def _project(self, p, x):
        """z0 and x0 of the MLP, the gate z, what is convolved and the steps."""
        beside = self._inner - self._scanned
        sizes = [beside, beside, self._scanned, self._convolved, self._heads]
        return split(ops.linear(x, p.w_in, p.b_in), sizes)

    def _scanned_arrays(self, p, u, dt):
        """x, dt, A, B and C of the scan, by heads and groups; of sequences and of single tokens."""
        states = self.ngroups * self.d_state
        xs, B, C = split(u, [self._scanned, states, states])
        lead = u.shape[:-1]
        group = (*lead, self.ngroups, self.d_state)
        heads = xs.reshape(*lead, self._heads, self.headdim)
        return heads, dt, rates(p.A_log), B.reshape(group), C.reshape(group)

    def _constants(self, p, z):
        gate = None if self.rmsnorm else z.reshape(*z.shape[:-1], self._heads, self.headdim)
        return {"D": p.D, "z": gate, "dt_bias": p.dt_bias, "dt_softplus": True, "dt_limit": self.dt_limit}

    def _leave(self, p, Y, z0, x0, z):
        """Norm and gate, the MLP beside, and the last projection."""
        Y = Y.reshape(z.shape)
        if self.rmsnorm and self.norm_before_gate:
            Y = ops.gate(z, self._norm(p, Y), activation="silu")
        elif self.rmsnorm:
            Y = self._norm(p, ops.gate(z, Y, activation="silu"))
        if x0.shape[-1]:
            Y = graph.concatenate([ops.gate(z0, x0, activation="silu"), Y])
        return ops.linear(Y, p.w_out, p.b_out)

    def _norm(self, p, Y):
        if not self.norm_per_group or self.ngroups == 1:
            return ops.rms_norm(Y, p.norm_scale)
        parts = Y.reshape(*Y.shape[:-1], self.ngroups, self._scanned // self.ngroups)
        return ops.rms_norm(parts).reshape(Y.shape) * p.norm_scale

    def initial_state(self, batch, dtype="float32", params=None):
        state = super().initial_state(batch, dtype, params)
        if params is not None and self.learnable_init_states:
            state.ssm_state[...] = params["init_states"]
        return state

    def _advance(self, p, x, state):
        z0, x0, z, v, dt = self._project(p, x)
        u, conv_state = ops.causal_conv1d_update(v, state.conv_state, p.conv_w, p.conv_b)
        Y, ssm_state = ops.ssd_state_update(
            state.ssm_state, *self._scanned_arrays(p, u, dt), **self._constants(p, z)
        )
        return self._leave(p, Y, z0, x0, z), Mamba2State(conv_state, ssm_state)
