"""Networks with sine activations on tables of positions, and windows over what they generate."""

import math

import numpy

from mixers import initializers, ops
from mixers.mixer import Parameter
from mixers.op import compute_dtype


def positions(rows, features):
    """Features of the positions: t, then cosines and negated sines of slowly rising frequencies."""
    bands = (features - 1) // 2
    n = numpy.arange(rows)[:, None]
    angle = numpy.linspace(1e-4, bands - 1, bands) * (2 * numpy.pi * n / rows)
    return numpy.concatenate([n / max(rows - 1, 1), numpy.cos(angle), -numpy.sin(angle)], axis=1)


def decays(count, slow_decay_pct, fast_decay_pct, target):
    """Exponents that fall to log(target) after these fractions of the longest sequence, the slow one first."""
    return numpy.linspace(math.log(target) / slow_decay_pct, math.log(target) / fast_decay_pct, count)


def sine_network_parameters(mixer, features, name=""):
    """Layers ``w_filter_<name>0``, ... and the output layer ``w_filter_<name>out`` (f, order - 1, c)."""
    f, as_torch = mixer.filter_order, initializers.fan_in_uniform
    specs = {}
    for i in range(mixer.num_inner_mlps + 1):
        inputs = f if i else features
        specs[f"w_filter_{name}{i}"] = Parameter((inputs, f), as_torch(inputs))
        specs[f"b_filter_{name}{i}"] = Parameter((f,), as_torch(inputs))
    shape = (f, mixer.order - 1, mixer.dim)
    return specs | {f"w_filter_{name}out": Parameter(shape, as_torch(f))}


def sine_network(mixer, p, table, name=""):
    """a <- sin(freq (a w + b)) for each layer, then the output layer: (..., (order - 1) c), at least in float32.

    Output s c + i is channel i of filter s.
    """
    a = table.astype(compute_dtype(table.dtype), copy=False)
    for i in range(mixer.num_inner_mlps + 1):
        a = ops.linear(a, p[f"w_filter_{name}{i}"], p[f"b_filter_{name}{i}"])
        a = ops.sin(ops.mul(a, p.freq))
    return ops.linear(a, p[f"w_filter_{name}out"].reshape(mixer.filter_order, -1))
