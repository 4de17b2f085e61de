"""The selective scan along several orders of the tokens: one task carries all directions of its channels.

So it adds to y, to du and to the gradients of shared arrays where the tokens lie, without races and without copies.
"""

import numpy

from mixers.cpu import aligned
from mixers.cpu.aligned import flat
from mixers.cpu.runner import run
from mixers.cpu.scan_backward import backward
from mixers.cpu.scan_common import ALIKE, SEVERAL
from mixers.cpu.scan_forward import forward
from mixers.cpu.scan_plan import Plan, flattened, rates


def cross_selective_scan_forward(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    delta_bias=None,
    orders=None,
    delta_softplus=False,
    ordered_coefficients=True,
    save=True,
):
    """One sweep over the chunks of tokens per block of channels."""
    plan = _plan(u, delta, A, orders, ordered_coefficients)
    y, none = aligned.empty(u.shape, u.dtype), numpy.empty(0, u.dtype)
    states = plan.states(u.dtype) if save else none
    if y.size:
        run(
            forward,
            plan.count,
            _arrays(len(orders), u, delta, A, B, C, D, delta_bias),
            *(none, none, y.reshape(-1), states.reshape(-1)),
            *plan.geometry,
            *(plan.block, _ways(len(orders), delta, A, delta_bias, ordered_coefficients), delta_softplus),
            work=len(orders) * u.size * (12 * plan.sizes[4] + 20),
        )
    return y, (states if save else None,)


def cross_selective_scan_backward(dout, saved):
    """Chunk by chunk from the last: the states of each direction are recomputed, then walked backward."""
    u, delta, A, B, C, D, bias = saved.u, saved.delta, saved.A, saved.B, saved.C, saved.D, saved.delta_bias
    k, none = len(saved.orders), numpy.empty(0, saved.u.dtype)
    plan = _plan(u, delta, A, saved.orders, saved.ordered_coefficients)
    du, ddelta = aligned.empty(u.shape, u.dtype), aligned.empty(delta.shape, u.dtype)
    dA, dD, dbias = plan.sums(u.dtype)
    partial = plan.partial(u.dtype)
    if u.size:
        run(
            backward,
            plan.count,
            _arrays(k, u, delta, A, B, C, D, bias),
            *(flat(dout), flat(saved.states), none),
            (du.reshape(-1), ddelta.reshape(-1), none, partial),
            (dA.reshape(-1), none, dD.reshape(-1), dbias.reshape(-1)),
            *plan.geometry,
            *(plan.block, _ways(k, delta, A, bias, saved.ordered_coefficients), saved.delta_softplus),
            work=k * u.size * (40 * plan.sizes[4] + 60),
        )
    dB, dC = plan.gathered(partial)
    return (
        du,
        ddelta,
        _summed(dA.sum(axis=1).swapaxes(1, 2), A, 0),
        _summed(dB, B, 2),
        _summed(dC, C, 2),
        # every direction adds the same D u
        None
        if D is None
        else dD.sum(axis=(1, 2)) * u.dtype.type(k if len(D) == 1 else 1) + numpy.zeros_like(D),
        None if bias is None else _summed(dbias.sum(axis=(1, 2)), bias, 0),
    )


def _plan(u, delta, A, orders, ordered):
    tokens = flat(orders, numpy.int64)
    sources = tokens if ordered else numpy.tile(numpy.arange(u.shape[1]), len(orders))
    return Plan(u, 1, A.shape[2], (tokens, sources), len(orders), delta.shape[2])


def _arrays(k, u, delta, A, B, C, D, bias):
    """The arrays of the kernels, flat: of all but delta each direction has its own, of D there is the sum."""
    own = lambda x, axis: x if x.shape[axis] == k else numpy.repeat(x, k, axis)
    skip = None if D is None else own(D, 0).sum(axis=0)
    bias = None if bias is None else own(bias, 0)
    arrays = flattened(u, delta, own(rates(A), 0), own(B, 2), own(C, 2), skip, None, bias)
    return (*arrays, numpy.empty(0, bool))


def _ways(k, delta, A, bias, ordered):
    """Whether the t-th visits of all directions have the same decays."""
    shared = delta.shape[2] == len(A) == 1 and (bias is None or len(bias) == 1)
    return ALIKE if k > 1 and shared and not ordered else SEVERAL


def _summed(gradient, array, axis):
    """The gradient of an array that the directions may share."""
    return numpy.ascontiguousarray(
        gradient if gradient.shape[axis] == array.shape[axis] else gradient.sum(axis=axis, keepdims=True)
    )
