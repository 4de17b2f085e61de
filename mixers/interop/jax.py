"""Ops and mixers as differentiable JAX functions, also under ``jit``.

They run on the host through ``jax.pure_callback``, on the cpu backend. The backward runs the forward once
more, because a callback can keep nothing. Under ``vmap`` the items are computed one after the other.
"""

import functools

import jax
import numpy

from mixers.op import Op


def wrap(function, **options):
    """A differentiable function of JAX arrays.

    Parameters
    ----------
    function : Op or Mixer
        An op of :mod:`mixers.ops`, called as ``f(*arrays)``, or a mixer, called as ``f(params, *inputs)``
        with a dict of arrays.
    **options
        Options of the op or of the mixer's call; fixed here because JAX traces arguments.

    Returns
    -------
    callable
        Returns an array or a tuple of arrays. First derivatives only, in reverse mode.

    Notes
    -----
    When JAX traces the function for new shapes, it is run once on arrays of ones to learn the output's shape.

    Examples
    --------
    >>> from mixers import ops
    >>> float(jax.grad(lambda x: wrap(ops.relu)(x).sum())(jax.numpy.ones(3)).sum())
    3.0
    """
    run = _run_op if isinstance(function, Op) else _run_mixer

    def forward(*arguments):
        return run(function, _to_host(arguments), options)[0]

    def gradients(arguments, dout):
        return run(function, _to_host(arguments), options)[1](_to_host(dout))

    @jax.custom_vjp
    def call(*arguments):
        shapes = _output_shapes(forward, arguments)
        return jax.pure_callback(forward, shapes, *arguments, vmap_method="sequential")

    def call_forward(*arguments):
        return call(*arguments), arguments

    def call_backward(arguments, dout):
        return jax.pure_callback(gradients, _shapes(arguments), arguments, dout, vmap_method="sequential")

    call.defvjp(call_forward, call_backward)
    return call


def _run_op(op, arguments, options):
    named = dict(zip(op.arrays, arguments))
    out, saved = op.forward(**named, **options)
    several = isinstance(out, tuple)

    def pull(dout):
        found = op.backward(op.Outputs(*dout) if several else dout, saved)
        return tuple(_or_zeros(getattr(found, "d" + n), a) for n, a in named.items())

    return (tuple(out) if several else out), pull


def _run_mixer(mixer, arguments, options):
    params, *inputs = arguments
    out, saved = mixer.forward(params, *inputs, **options)

    def pull(dout):
        dparams, dinputs = mixer.backward(dout, saved)
        dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
        return {n: _or_zeros(dparams[n], p) for n, p in params.items()}, *dinputs

    return out, pull


def _or_zeros(gradient, array):
    # JAX wants a cotangent for every array, also for running statistics
    return numpy.zeros_like(array) if gradient is None and array is not None else gradient


def _to_host(tree):
    return jax.tree_util.tree_map(numpy.asarray, tree)


def _shapes(tree):
    return jax.tree_util.tree_map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def _output_shapes(forward, arguments):
    leaves, structure = jax.tree_util.tree_flatten(arguments)
    return _shapes_of_ones(forward, tuple((tuple(a.shape), a.dtype.name) for a in leaves), structure)


@functools.lru_cache(maxsize=256)
def _shapes_of_ones(forward, leaves, structure):
    ones = [numpy.ones(shape, jax.numpy.dtype(dtype)) for shape, dtype in leaves]
    return _shapes(forward(*jax.tree_util.tree_unflatten(structure, ones)))
