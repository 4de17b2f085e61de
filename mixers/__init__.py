"""Forward and backward of the published token mixers as plain array functions.

>>> import numpy
>>> import mixers
>>> mixer = mixers.create("pool", dim=4)
>>> x = numpy.ones((1, 8, 8, 4), "float32")
>>> y, saved = mixer.forward({}, x)
>>> dparams, dx = mixer.backward(numpy.ones_like(y), saved)
>>> y.shape, dx.shape
((1, 8, 8, 4), (1, 8, 8, 4))
"""

import importlib

from mixers._version import __version__

# importing mixers loads none of these: numba, scipy and cupy wait for the first call
_SUBMODULES = ("backend", "graph", "initializers", "interop", "mixer", "models", "op", "ops", "tasks", "zoo")
_NAMES = {
    "Mixer": "mixer",
    "create": "registry",
    "describe": "registry",
    "list_mixers": "registry",
    "use_backend": "backend",
    "get_num_threads": "system",
    "set_num_threads": "system",
    "info": "system",
}

__all__ = ["__version__", *_NAMES, *_SUBMODULES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"mixers.{_NAMES[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"mixers.{name}")
    raise AttributeError(f"module 'mixers' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
