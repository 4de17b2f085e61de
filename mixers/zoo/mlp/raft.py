"""RaftMLP: token MLPs over the lines of an image, several channels at a time."""

from dataclasses import dataclass

from mixers import _checks as check
from mixers import ops
from mixers.initializers import fan_in_uniform
from mixers.mixer import Mixer, Parameter
from mixers.registry import register
from mixers.zoo.blocks import norm_parameters


def _raft_parameters(n, raft_size, expansion, suffix=""):
    """Of the MLP over one line of n positions."""
    tokens, hidden = raft_size * n, expansion * raft_size * n
    return {
        f"w_in{suffix}": Parameter((hidden, tokens), fan_in_uniform(tokens)),
        f"b_in{suffix}": Parameter((hidden,), fan_in_uniform(tokens)),
        f"w_out{suffix}": Parameter((tokens, hidden), fan_in_uniform(hidden)),
        f"b_out{suffix}": Parameter((tokens,), fan_in_uniform(hidden)),
    }


# axes of (b, h, w, a, m) in the order (b, a, position, line, m), and back
_ORDERS = {"h": ((0, 3, 1, 2, 4), (0, 2, 3, 1, 4)), "w": ((0, 3, 2, 1, 4), (0, 3, 2, 1, 4))}


def _raft(x, axis, raft_size, *weights):
    """A token MLP over the vectors of raft_size channels by the positions of a line."""
    b, h, w, c = x.shape
    # channel a co + m is (a, m); the raft index a joins the position, as the slower of the two
    cells = x.reshape(b, h, w, raft_size, c // raft_size)
    order, back = _ORDERS[axis]
    moved = cells.transpose(order)
    _, _, n, lines, batch = moved.shape
    y = ops.token_mlp(moved.reshape(b, raft_size * n, lines * batch), *weights)
    return y.reshape(moved.shape).transpose(back).reshape(x.shape)


def _check_raft(function, dim, raft_size, expansion):
    check.integer(function, "dim", dim, minimum=1)
    check.divides(
        function, "raft_size", check.integer(function, "raft_size", raft_size, minimum=1), "dim", dim
    )
    check.integer(function, "expansion", expansion, minimum=1)


@register(
    "raft_layer",
    paper="RaftMLP: How Much Can Be Done Without Attention and with Less Spatial Locality?",
    year=2021,
    arxiv="2108.04384",
    ranks=(2,),
    causal=False,
    grid_tied=True,
    cost="O(L C e r n)",
)
@dataclass(frozen=True)
class RaftLayer(Mixer):
    """One raft-token-mixing MLP: a two-layer MLP over the positions of each line and r channels at once.

    With channel c = a (C / r) + m, raft index a: the vectors x[(a, position)] of every line and m go through
    y = w_out gelu(w_in x + b_in) + b_out.

    Parameters
    ----------
    dim : int
        Channels C.
    grid : (int, int)
        (h, w); the weights are tied to the size n of the mixed axis, the other one may differ.
    axis : {"h", "w"}
        "h" mixes the rows of each column, "w" the columns of each row.
    raft_size : int
        r, >= 1, divides C; 2 in the hierarchical models.
    expansion : int
        e, >= 1: the hidden layer has e r n units.

    Notes
    -----
    x is (b, h, w, c). Parameters w_in (e r n, r n), b_in (e r n,), w_out (r n, e r n), b_out (r n,), all
    U(+-1/sqrt(fan_in)). 4 e r n flops per element forward, twice that backward.
    Source: Tatsunami & Taki 2021, arXiv:2108.04384, eq. 3-6 without norm and skip.
    """

    dim: int
    grid: tuple
    axis: str
    raft_size: int = 4
    expansion: int = 2

    def __post_init__(self):
        _check_raft(self.name, self.dim, self.raft_size, self.expansion)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
        check.choice(self.name, "axis", self.axis, ("h", "w"))

    def accepts_grid(self, grid):
        mixed = 0 if self.axis == "h" else 1
        return grid[mixed] == self.grid[mixed]

    def parameters(self):
        n = self.grid[0] if self.axis == "h" else self.grid[1]
        return _raft_parameters(n, self.raft_size, self.expansion)

    def mix(self, p, x):
        return _raft(x, self.axis, self.raft_size, p.w_in, p.w_out, p.b_in, p.b_out)


@register(
    "raft_mlp",
    paper="RaftMLP: How Much Can Be Done Without Attention and with Less Spatial Locality?",
    year=2021,
    arxiv="2108.04384",
    ranks=(2,),
    causal=False,
    grid_tied=True,
    cost="O(L C e r (H + W))",
)
@dataclass(frozen=True)
class RaftMlp(Mixer):
    """RaftMLP's token mixing: a vertical and a horizontal raft layer, each behind a layer norm.

    d1 = raft_h(norm_v(x)); x1 = x + d1; d2 = raft_w(norm_h(x1)); y = d1 + d2, plus x with `residual`.

    Parameters
    ----------
    dim : int
        Channels C.
    grid : (int, int)
        (h, w), to which the weights are tied.
    raft_size : int
        r, >= 1, divides C; 2 in the hierarchical models.
    expansion : int
        e, >= 1: the hidden layers have e r h and e r w units.
    residual : bool
        Whether y includes x, as in the official module. Leave it off in a block that adds x itself, and give that
        block no norm of its own.
    eps : float
        Of both layer norms, >= 0.

    Notes
    -----
    x is (b, h, w, c). Parameters norm_v_scale, norm_v_bias, norm_h_scale, norm_h_bias (c,), and those of
    :class:`RaftLayer` with suffixes _v (n = h) and _h (n = w). 4 e r (h + w) flops per element forward.
    Source: Tatsunami & Taki 2021, arXiv:2108.04384, eq. 3-6 (serialised vertical and horizontal mixing blocks).
    """

    dim: int
    grid: tuple
    raft_size: int = 4
    expansion: int = 2
    residual: bool = False
    eps: float = 1e-5

    def __post_init__(self):
        _check_raft(self.name, self.dim, self.raft_size, self.expansion)
        object.__setattr__(self, "grid", check.grid(self.name, self.grid, ranks=(2,)))
        check.boolean(self.name, "residual", self.residual)
        check.number(self.name, "eps", self.eps, minimum=0.0)

    def parameters(self):
        h, w = self.grid
        return {
            **norm_parameters("norm_v", self.dim),
            **_raft_parameters(h, self.raft_size, self.expansion, "_v"),
            **norm_parameters("norm_h", self.dim),
            **_raft_parameters(w, self.raft_size, self.expansion, "_h"),
        }

    def mix(self, p, x):
        normed = ops.layer_norm(x, p.norm_v_scale, p.norm_v_bias, eps=self.eps)
        d1 = _raft(normed, "h", self.raft_size, p.w_in_v, p.w_out_v, p.b_in_v, p.b_out_v)
        x1 = x + d1
        normed = ops.layer_norm(x1, p.norm_h_scale, p.norm_h_bias, eps=self.eps)
        d2 = _raft(normed, "w", self.raft_size, p.w_in_h, p.w_out_h, p.b_in_h, p.b_out_h)
        return (x1 if self.residual else d1) + d2
