"""Arguments to try every op and mixer with: what the command line, the benchmarks and the docs run.

Those of the ops are in :mod:`mixers.op_samples`. A mixer needs a line in ``MIXERS`` only if the configuration below
does not suit it: channels ``dim``, and ``grid`` if it asks for one.
"""

import dataclasses
import importlib

import numpy

from mixers import registry
from mixers.backend import array_backend
from mixers.mixer import as_dtype, required_inputs
from mixers.op_samples import OPS, normal

SIZES = ("small", "bench")

# shape of the first input (batch, tokens..., channels) by the number of token axes
_INPUTS = {
    "small": {1: (2, 12, 8), 2: (2, 4, 6, 8)},
    "bench": {1: (8, 1024, 256), 2: (8, 14, 14, 384)},
}


def _side(grid):
    """The side of a square grid."""
    return grid[0]


# mixers of square images
_SQUARE, _SMALL_SQUARE = ("hyena_nd", "hyper_zzw"), (2, 5, 5, 8)

# further options of the constructors, where the defaults do not suit the shapes above; "digits" is for the model
# that `mixers train` builds, on 4 x 4 tokens of 48 channels: like "small" if it is not there; an option may be a
# function of the grid
MIXERS = {
    "lamamba": {
        "small": {"window_size": 2, "num_heads": 2, "shift_size": 1},
        "bench": {"window_size": 7},
        "digits": {"window_size": 2, "num_heads": 4, "shift_size": 1},
    },
    "mamba2": {
        "small": {"d_state": 3, "headdim": 4, "ngroups": 2},
        "bench": {},
        "digits": {"d_state": 16, "headdim": 8},
    },
    "multi_axis_gmlp": {
        "small": {"block_size": (2, 3), "grid_size": (4, 2)},
        "bench": {"block_size": (7, 7), "grid_size": (7, 7)},
        "digits": {"block_size": (2, 2), "grid_size": (2, 2)},
    },
    "cross_gating": {
        "small": {"block_size": (2, 3), "grid_size": (4, 2), "upsample_g": False},
        "bench": {"block_size": (7, 7), "grid_size": (7, 7), "upsample_g": False},
    },
    "nin_gate": {
        "small": {"token_dim": 10, "channel_dim": 6},
        "bench": {"token_dim": 768, "channel_dim": 768},
    },
    "hyena_nd": {"small": {"filter_order": 6}, "bench": {}},
    "hyper_zzw": {
        "small": {"kernel_size": _side, "hidden": 6, "num_layers": 2},
        "bench": {"kernel_size": _side},
        "digits": {"kernel_size": _side, "hidden": 16},
    },
    "gnconv": {"small": {"order": 3}, "bench": {"order": 5}},
    "raft_layer": {"small": {"axis": "h"}, "bench": {"axis": "h"}, "digits": {"axis": "h"}},
    "strip_layer": {"small": {"axis": "h"}, "bench": {"axis": "h"}, "digits": {"axis": "h"}},
    "cycle_fc": {"small": {"axis": "w"}, "bench": {"axis": "w"}, "digits": {"axis": "w"}},
    "mix_shift": {"small": {"shifts": (-1, 0, 2), "kernels": (1, 3, 5)}, "bench": {}},
    "mlp_mixer": {"small": {"hidden": 10}, "bench": {"hidden": 256}, "digits": {"hidden": 32}},
    "kan_fourier": {"small": {"grid_size": 3}, "bench": {"grid_size": 4}},
    "s_conv_kan": {"small": {"kernel_size": 3, "padding": 1}, "bench": {"kernel_size": 3, "padding": 1}},
    "multi_patch_rbf_kan": {
        "small": {"patch_size": 2, "num_grids": 5},
        "bench": {"patch_size": 7},
        "digits": {"patch_size": 2},
    },
    "karat": {
        "small": {"num_heads": 2, "rank": 4, "basis": "bspline", "operator": "phi_phi", "base": "silu"},
        "bench": {"num_heads": 4, "rank": 12, "basis": "bspline", "grid_range": (-2.0, 2.0)},
        "digits": {"num_heads": 4, "rank": 12, "basis": "bspline", "grid_range": (-2.0, 2.0)},
    },
    "fourier_karat": {
        "small": {"num_heads": 2, "rank": 4},
        "bench": {"num_heads": 4, "rank": 12},
        "digits": {"num_heads": 4, "rank": 12},
    },
}


def op_sample(name, size="small", seed=0, dtype="float32", **sizes):
    """Arguments for an op.

    Parameters
    ----------
    name : str
        A name of :mod:`mixers.ops`.
    size : {"small", "bench"}
    seed : int
    dtype : dtype
    **sizes : int
        Replace sizes by their letter, for instance ``l=4096``.

    Returns
    -------
    dict
        By argument name.

    Raises
    ------
    ValueError
        If there is no such op, size or letter.

    Examples
    --------
    >>> {n: a.shape for n, a in op_sample("linear", l=3).items()}
    {'x': (2, 3, 5), 'w': (5, 3), 'b': (3,)}
    """
    if name not in OPS:
        raise ValueError(f"op_sample: there is no op {name!r}; known: {', '.join(sorted(OPS))}")
    sample = OPS[name]
    known = sample.bench if _known_size("op_sample", size) == "bench" else sample.small
    surplus = sorted(set(sizes) - set(known))
    if surplus:
        raise ValueError(f"op_sample: {name} has the sizes {', '.join(known)}, got {', '.join(surplus)}")
    rng = numpy.random.default_rng(seed)
    arrays = {}
    for argument, spec in sample.arrays.items():
        letters, law = (spec, normal) if isinstance(spec, str) else spec
        shape = tuple({**known, **sizes}[letter] for letter in letters.split())
        drawn = law(rng, shape)
        arrays[argument] = drawn if drawn.dtype.kind == "i" else drawn.astype(as_dtype(dtype))
    return {**arrays, **sample.options}


def mixer_sample(name, size="small", seed=0, dtype="float32", shape=None, **config):
    """A mixer, parameters and inputs.

    Parameters
    ----------
    name : str
        A name of :func:`mixers.list_mixers`.
    size : {"small", "bench"}
    seed : int
    dtype : dtype
    shape : tuple of int, optional
        Of x: (b, l, c) or (b, h, w, c).
    **config
        Options of the constructor, besides dim and grid.

    Returns
    -------
    mixer : mixers.Mixer
    params : dict
        As initialised, plus noise, so that nothing is exactly zero.
    inputs : tuple of array

    Raises
    ------
    ValueError
        If there is no such mixer or size, or the mixer does not take the shape.

    Examples
    --------
    >>> mixer, params, (x,) = mixer_sample("pool")
    >>> mixer, x.shape
    (Pool(dim=8, pool_size=3), (2, 4, 6, 8))
    """
    cls = registry.mixer_class(name)
    usual = _INPUTS[_known_size("mixer_sample", size)][max(cls.metadata.ranks)]
    if name in _SQUARE and size == "small":
        usual = _SMALL_SQUARE
    shape = tuple(shape or usual)
    mixer = cls(**{**fitting_options(cls, size, shape[-1], shape[1:-1]), **config})
    rng = numpy.random.default_rng(seed)
    specs = mixer.parameters()
    params = {
        n: (p + 0.1 * rng.standard_normal(p.shape) if specs[n].trainable else p).astype(as_dtype(dtype))
        for n, p in mixer.init(rng, dtype="float64").items()
    }
    count = len(required_inputs(cls))
    return mixer, params, tuple(rng.standard_normal(shape).astype(as_dtype(dtype)) for _ in range(count))


def fitting_options(cls, size, dim, grid):
    """Options for the constructor of a mixer class: `dim` and `grid`, as far as it has them, and those above."""
    fields = {field.name for field in dataclasses.fields(cls)}
    sizes = dict.fromkeys(("dim", "out_dim", "in_features", "out_features"), dim) | {"grid": tuple(grid)}
    fit = {n: v for n, v in sizes.items() if n in fields}
    known = MIXERS.get(cls.metadata.name, {})
    options = known.get(size, known.get("small", {}))
    return fit | {n: v(grid) if callable(v) else v for n, v in options.items()}


def cotangent(out, seed=1):
    """Random cotangents in the structure of an output, of its types and dtypes; None where it has None."""
    rng = numpy.random.default_rng(seed)

    def draw(o):
        if isinstance(o, tuple):
            parts = [draw(part) for part in o]
            return type(o)(*parts) if hasattr(o, "_fields") else tuple(parts)
        if o is None:
            return None
        return on_backend(rng.standard_normal(o.shape).astype(o.dtype), array_backend(o))

    return draw(out)


def on_backend(value, backend):
    """Arrays, and dicts and tuples of them, as the type that a backend computes on."""
    if isinstance(value, dict):
        return {n: on_backend(v, backend) for n, v in value.items()}
    if isinstance(value, tuple):
        parts = [on_backend(v, backend) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if backend != "gpu" or not isinstance(value, numpy.ndarray) or value.dtype.kind in "iu":
        return value
    return importlib.import_module("mixers.gpu.device").cupy_device().to_device(value)


def _known_size(function, size):
    if size not in SIZES:
        raise ValueError(f"{function}: size must be one of {', '.join(map(repr, SIZES))}, got {size!r}")
    return size
