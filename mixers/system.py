"""Threads, versions and caches of this installation."""

import importlib.metadata
import os
import platform

from mixers._version import __version__


def set_num_threads(count):
    """Use `count` threads for CPU kernels from now on, in all Python threads.

    Results do not depend on it. The default is the number of cores this process may use, or MIXERS_NUM_THREADS.

    Parameters
    ----------
    count : int
        >= 1.

    Raises
    ------
    ValueError
        If count < 1.
    """
    from mixers.cpu import runner

    runner.set_num_threads(count)


def get_num_threads():
    """Number of threads that CPU kernels use."""
    from mixers.cpu import runner

    return runner.get_num_threads()


def info():
    """Versions, backends, threads and caches, as a dict (``mixers info`` prints it).

    Returns
    -------
    dict
        Nothing is compiled and no device is touched beyond asking CuPy for their number.
    """
    from mixers.cpu import cache, memory

    packages = ("numpy", "scipy", "numba", "llvmlite", "ml_dtypes", "cupy-cuda12x", "cupy-cuda13x")
    return {
        "token-mixers": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **{name: _version(name) for name in packages},
        "threads": get_num_threads(),
        "backend override": os.environ.get("MIXERS_BACKEND") or "none",
        "gpu": _gpu(),
        "kernel cache": _cache(*cache.describe()),
        "kept memory": f"{memory.LIMIT >> 20} MiB at most",
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cache(directory, files, size):
    if directory is None:
        return "no writable directory: kernels are compiled anew in every process"
    return f"{directory} ({files} kernels, {size / 1e6:.1f} MB)"


def _gpu():
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device ({error})"
    names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
    return ", ".join(names) or "no CUDA device"
