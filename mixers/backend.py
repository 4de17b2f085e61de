"""Which backend computes: chosen by the array type, or by the user for a while.

NumPy arrays are computed on the CPU, CuPy arrays on the GPU. ``with mixers.use_backend("reference"):``
or the environment variable MIXERS_BACKEND overrides that for NumPy arrays. A backend is never changed
silently and no array is ever copied between devices.
"""

import contextlib
import contextvars
import importlib
import os

import numpy

BACKENDS = ("reference", "cpu", "gpu")

_chosen = contextvars.ContextVar("mixers_backend", default=None)
_registered = {numpy.ndarray: "cpu"}


@contextlib.contextmanager
def use_backend(name):
    """Compute with the named backend inside a ``with`` block.

    The choice belongs to the context (a contextvar), so other threads are not affected.

    Parameters
    ----------
    name : {"reference", "cpu", "gpu"}

    Raises
    ------
    ValueError
        If there is no such backend.

    Examples
    --------
    >>> import numpy, mixers
    >>> with mixers.use_backend("reference"):
    ...     y = mixers.ops.silu(numpy.zeros(3))
    """
    token = _chosen.set(_known(name, "use_backend"))
    try:
        yield
    finally:
        _chosen.reset(token)


def register_array_type(cls, backend):
    """Let arrays of type `cls` be computed by `backend`; returns a function that takes this back."""
    _registered[cls] = _known(backend, "register_array_type")
    return lambda: _registered.pop(cls, None)


def array_backend(array):
    """The backend that computes arrays of this type, or None if it is no array we know."""
    for cls in type(array).__mro__:
        if cls in _registered:
            return _registered[cls]
        if cls.__module__.partition(".")[0] == "cupy" and cls.__name__ == "ndarray":
            _registered[cls] = "gpu"
            return "gpu"
    return None


def array_module(array):
    """numpy or cupy: the module whose functions make arrays of this type."""
    if isinstance(array, numpy.ndarray | numpy.generic):
        return numpy
    return importlib.import_module("cupy")


def select(function, arrays):
    """Name of the backend for a call of `function` with the named `arrays` (none of them None)."""
    found, first = None, None
    for name, array in arrays.items():
        own = _registered.get(type(array)) or array_backend(array)
        if own is None:
            raise TypeError(
                f"{function}: {name} must be a NumPy or CuPy array, got {_type_name(array)}{_hint(array)}"
            )
        if found is None:
            found, first = own, name
        elif own != found:
            raise TypeError(
                f"{function}: all arrays must be of one type, got {_type_name(arrays[first])} ({first}) "
                f"and {_type_name(array)} ({name})"
            )
    chosen = _chosen.get() or os.environ.get("MIXERS_BACKEND") or None
    if chosen is None or chosen == found:
        return found
    _known(chosen, "MIXERS_BACKEND")
    if chosen == "gpu":
        raise TypeError(
            f"{function}: the gpu backend takes CuPy arrays, got {_type_name(arrays[first])} ({first}); "
            f"convert with cupy.asarray"
        )
    if found == "gpu":
        raise TypeError(
            f"{function}: the {chosen} backend takes NumPy arrays, got {_type_name(arrays[first])} ({first}); "
            f"convert with cupy.asnumpy"
        )
    return chosen


def implementation(backend, family, name):
    """The function `name` of one family of one backend, imported when first needed."""
    try:
        module = importlib.import_module(f"mixers.{backend}.{family}")
    except ModuleNotFoundError as error:
        if error.name != f"mixers.{backend}.{family}":
            raise
        module = None
    function = getattr(module, name, None)
    if function is None:
        others = [b for b in BACKENDS if b != backend and _has(b, family, name)]
        raise NotImplementedError(
            f"{name}: the {backend} backend does not have it"
            + (f"; available in: {', '.join(others)}" if others else "")
        )
    return function


def _has(backend, family, name):
    try:
        return hasattr(importlib.import_module(f"mixers.{backend}.{family}"), name)
    except ImportError:
        return False


def _known(name, where):
    if name not in BACKENDS:
        raise ValueError(f"{where}: backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def _type_name(array):
    cls = type(array)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _hint(array):
    package = type(array).__module__.partition(".")[0]
    if package == "torch":
        return "; see mixers.interop.torch"
    if package in ("jax", "jaxlib"):
        return "; see mixers.interop.jax"
    if isinstance(array, int | float | list | tuple):
        return "; convert with numpy.asarray"
    return ""
