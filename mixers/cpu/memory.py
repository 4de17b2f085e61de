"""Memory of large arrays, kept for the next array when one is gone.

An allocator gives large blocks back to the system, which then has to clear every page anew when it is touched
again: that takes several times as long as a kernel needs to fill the page. A training step frees and allocates the
same sizes over and over, so a limited amount is kept here. It is freed when something else is needed instead.
"""

import os
import threading

import numpy

# bytes of a block below which the allocator keeps memory by itself, and steps of sizes
SMALLEST, _STEP = 1 << 17, 1 << 14


def _limit():
    """Bytes kept at most: what MIXERS_KEPT_MEMORY says in MiB, or a 32nd of the machine's, but 256 MiB at least."""
    given = os.environ.get("MIXERS_KEPT_MEMORY")
    if given is not None:
        if not given.isdecimal():
            raise ValueError(f"MIXERS_KEPT_MEMORY must be a number of MiB >= 0, got {given!r}")
        return int(given) << 20
    known = hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys()
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0
    return max(installed // 32, 1 << 28)


LIMIT = _limit()

_free = {}
_kept = 0
# a block may come back while another is taken, in the same thread
_lock = threading.RLock()


def _renew_lock():
    # another thread of the parent may have held it when this process was forked off
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class _Block:
    """Owns a block while an array, or a view of it, refers to this."""

    __slots__ = ("__array_interface__", "raw")

    def __init__(self, raw):
        self.raw = raw
        self.__array_interface__ = raw.__array_interface__

    def __del__(self):
        # the interpreter may be taking this module apart
        if _free is not None:
            _give_back(self.raw)


def block(size):
    """At least `size` bytes of uninitialised memory, as an array of uint8."""
    global _kept
    size = -(-size // _STEP) * _STEP
    with _lock:
        found = _free.get(size)
        raw = found.pop() if found else None
        if raw is not None:
            _kept -= size
    if raw is None:
        raw = numpy.empty(size, numpy.uint8)
    return numpy.asarray(_Block(raw))


def kept():
    """Bytes that are kept for coming arrays."""
    return _kept


def release():
    """Give all kept memory back to the system."""
    global _kept
    with _lock:
        _free.clear()
        _kept = 0


def _give_back(raw):
    global _kept
    size = raw.nbytes
    if size > LIMIT:
        return
    with _lock:
        if _kept + size > LIMIT:
            # what was kept does not fit what is needed now
            release()
        _free.setdefault(size, []).append(raw)
        _kept += size
