"""Mamba."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy

from mixers import _checks as check
from mixers import ops
from mixers.graph import split
from mixers.registry import register
from mixers.zoo.ssm.recurrent import RecurrentMixer
from mixers.zoo.ssm.selective import SelectiveLaw, convolution, outer_projections


class MambaState(NamedTuple):
    """What a Mamba carries from token to token.

    conv_state (b, d_conv - 1, e) holds the last inputs of the convolution, oldest first, and ssm_state
    (b, e, d_state) the state of the recurrence.
    """

    conv_state: numpy.ndarray
    ssm_state: numpy.ndarray


@register(
    "mamba",
    paper="Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
    year=2023,
    arxiv="2312.00752",
    ranks=(1,),
    causal=True,
    recurrent=True,
    cost="O(L C (C + d_state))",
)
@dataclass(frozen=True)
class Mamba(SelectiveLaw, RecurrentMixer):
    """Mamba: a gated selective state-space scan after a short causal convolution.

    (v, z) = x w_in + b_in;  u = silu(conv(v));  (r, B, C) = u w_x;
    y = selective_scan(u, r w_dt, -exp(A_log), B, C, D, gate z, softplus with dt_bias) w_out + b_out

    Parameters
    ----------
    dim : int
        Channels c.
    d_state : int
        States n per inner channel.
    d_conv : int
        Taps k of the convolution.
    expand : float
        Inner channels e = floor(expand c).
    dt_rank : int or "auto"
        Width r of the bottleneck that makes the steps; "auto" is c / 16 rounded up.
    conv_bias, bias : bool
        Biases of the convolution, and of both outer projections.
    dt_min, dt_max, dt_init_floor : float
        Initial steps lie between dt_min and dt_max on a logarithmic scale, and not below dt_init_floor.
    dt_init : {"random", "constant"}
        w_dt starts uniform within, or constant at, dt_scale / sqrt(r).
    dt_scale : float

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    x is (b, l, c); causal. Call options: `state`, a MambaState from the tokens before; `return_state`, then the
    result is ``(y, state)``. Both take part in the backward; :meth:`step` continues token by token. `sequence_starts`
    and `mask` (b, l), NumPy arrays of booleans: where packed sequences begin, and False for padding, which changes no
    state; see :mod:`mixers.sequences`.
    Parameters: w_in (c, 2 e), b_in; conv_w (k, e), conv_b; w_x (e, r + 2 n); w_dt (r, e), dt_bias (e,);
    A_log (e, n), D (e,); w_out (e, c), b_out. exp(A_log) is computed at least in float32. A_log, D and dt_bias
    should not decay in training.
    6 c e + 2 e (2 r + 2 n + k) + e (9 n + 12) flops per token forward.
    Source: Gu & Dao 2023, arXiv:2312.00752, section 3.4; state-spaces/mamba, mamba_simple.py.

    Examples
    --------
    >>> import mixers, numpy
    >>> mixer = mixers.create("mamba", dim=8)
    >>> params = mixer.init(0)
    >>> x = numpy.ones((1, 20, 8), "float32")
    >>> y, state = mixer(params, x, return_state=True)
    >>> y_next, state = mixer.step(params, x[:, 0], state)
    >>> y.shape, y_next.shape
    ((1, 20, 8), (1, 8))
    """

    dim: int
    d_state: int = 16
    d_conv: int = 4
    expand: float = 2.0
    dt_rank: int | str = "auto"
    conv_bias: bool = True
    bias: bool = False

    _state_type = MambaState

    def __post_init__(self):
        self._check_scan("expand")
        check.integer(self.name, "d_conv", self.d_conv, minimum=1)
        check.boolean(self.name, "conv_bias", self.conv_bias)
        check.boolean(self.name, "bias", self.bias)

    @property
    def _state_shapes(self):
        return (self.d_conv - 1, self._inner), (self._inner, self.d_state)

    def parameters(self):
        e = self._inner
        first, last = outer_projections(self.dim, 2 * e, e, self.bias)
        return first | convolution((self.d_conv, e), self.conv_bias) | self._scan_parameters(e) | last

    def mix(self, p, x, *, state=None, return_state=False, sequence_starts=None, mask=None):
        tables = {"sequence_starts": sequence_starts, "mask": mask}
        conv_state, ssm_state = (None, None) if state is None else state
        v, z = split(ops.linear(x, p.w_in, p.b_in), [self._inner, self._inner])
        u = ops.causal_conv1d(
            v, p.conv_w, p.conv_b, initial_state=conv_state, return_final_state=return_state, **tables
        )
        u, conv_state = u if return_state else (u, None)
        y = ops.selective_scan(
            u,
            *self._coefficients(p, u),
            h0=ssm_state,
            return_last_state=return_state,
            **self._constants(p),
            z=z,
            **tables,
        )
        y, ssm_state = y if return_state else (y, None)
        y = ops.linear(y, p.w_out, p.b_out)
        return (y, MambaState(conv_state, ssm_state)) if return_state else y

    def _advance(self, p, x, state):
        v, z = split(ops.linear(x, p.w_in, p.b_in), [self._inner, self._inner])
        u, conv_state = ops.causal_conv1d_update(v, state.conv_state, p.conv_w, p.conv_b)
        y, ssm_state = ops.selective_state_update(
            state.ssm_state, u, *self._coefficients(p, u), **self._constants(p), z=z
        )
        return ops.linear(y, p.w_out, p.b_out), MambaState(conv_state, ssm_state)
