"""Where compiled kernels are kept between processes.

Numba keys its cache by the file that holds the kernel, and so misses edits of the functions the kernel
calls. Here the key covers every file of this package that the kernel's file imports. Each compiled
signature is one file named after its key: no index that two processes could overwrite for each other.
"""

import functools
import hashlib
import os
import pickle
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import numba
from numba.core import caching
from numba.core.serialize import dumps

_PACKAGE = Path(__file__).parent
_IMPORT = re.compile(r"^\s*(?:from|import)\b[^\n(]*(?:\([^)]*\))?", re.MULTILINE)


@functools.cache
def _read(path):
    """Digest of a source file, and the files of this package that its import statements name."""
    source = Path(path).read_bytes()
    words = set(re.findall(r"\w+", " ".join(_IMPORT.findall(source.decode("utf-8", "replace")))))
    named = [str(p) for p in sorted(_PACKAGE.glob("*.py")) if p.stem in words]
    return hashlib.sha256(source).hexdigest(), named


def source_stamp(path):
    """Digest of the file at `path` and of all files of this package it imports, directly or not."""
    digests, pending = {}, [str(path)]
    while pending:
        current = pending.pop()
        if current not in digests:
            digests[current], named = _read(current)
            pending += named
    # without the directories, so that a moved installation keeps its kernels
    parts = sorted(f"{Path(name).name} {digest}" for name, digest in digests.items())
    return hashlib.sha256("\n".join([numba.__version__, *parts]).encode()).hexdigest()


class _Stamped:
    def get_source_stamp(self):
        return source_stamp(self._py_file)


class _Chosen(_Stamped, caching.InTreeCacheLocator):
    """The directory named by MIXERS_CACHE_DIR."""

    def __init__(self, py_func, py_file):
        super().__init__(py_func, py_file)
        self._cache_path = os.path.join(
            os.environ["MIXERS_CACHE_DIR"], self.get_suitable_cache_subpath(py_file)
        )

    @classmethod
    def from_function(cls, py_func, py_file):
        return super().from_function(py_func, py_file) if os.environ.get("MIXERS_CACHE_DIR") else None


class _NumbaChosen(_Stamped, caching.UserProvidedCacheLocator):
    pass


class _BesideSource(_Stamped, caching.InTreeCacheLocator):
    pass


class _UserWide(_Stamped, caching.UserWideCacheLocator):
    pass


class _Results(caching.CompileResultCacheImpl):
    # not beside the sources: what pip did not install it leaves behind when it uninstalls
    _locator_classes = (_Chosen, _NumbaChosen, _UserWide, _BesideSource)


class KernelCache(caching.FunctionCache):
    """Compiled signatures of one kernel, one file each."""

    _impl_class = _Results

    def __init__(self, py_func):
        super().__init__(py_func)
        self._stamp = self._impl.locator.get_source_stamp()[:12]

    def _path(self, sig, codegen):
        key = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:24]
        return os.path.join(self.cache_path, f"{self._impl.filename_base}.{self._stamp}-{key}.nbc")

    def _load_overload(self, sig, target_context):
        if not self._enabled:
            return None
        try:
            with open(self._path(sig, target_context.codegen()), "rb") as file:
                payload = file.read()
        except OSError:
            return None
        return self._impl.rebuild(target_context, pickle.loads(payload))

    def _save_overload(self, sig, data):
        if not self._enabled or not self._impl.check_cachable(data):
            return
        path = self._path(sig, data.codegen)
        partial = f"{path}.{uuid.uuid4().hex[:8]}"
        try:
            self._impl.locator.ensure_cache_path()
            try:
                with open(partial, "wb") as file:
                    file.write(dumps(self._impl.reduce(data)))
                os.replace(partial, path)
            finally:
                if os.path.exists(partial):
                    os.unlink(partial)
            self._drop_stale()
        except OSError:
            # a full or vanished disk costs a compilation next time, nothing else
            return

    def _drop_stale(self):
        base = self._impl.filename_base + "."
        for name in os.listdir(self.cache_path):
            if name.startswith(base) and name.endswith(".nbc") and not name.startswith(base + self._stamp):
                os.unlink(os.path.join(self.cache_path, name))


def enable(dispatcher):
    """Let the compiled function keep its results on disk, if any place for that is writable."""
    try:
        dispatcher._cache = KernelCache(dispatcher.py_func)
    except (RuntimeError, AttributeError):
        # no writable place, or Numba is switched off (NUMBA_DISABLE_JIT)
        return


class Kept(NamedTuple):
    """Where the compiled kernels of this package are kept, and how much there is."""

    directory: str | None
    files: int
    bytes: int


def describe():
    """Return the directory of the kernel cache (None if nowhere is writable), its files and bytes.

    >>> describe().files >= 0
    True
    """
    try:
        directory = _Results(source_stamp).locator.get_cache_path()
    except RuntimeError:
        return Kept(None, 0, 0)
    sizes = [entry.stat().st_size for entry in os.scandir(directory) if entry.name.endswith(".nbc")]
    return Kept(directory, len(sizes), sum(sizes))
