"""Vectors that may have less than all lanes, at the end of a row whose length is no multiple of them."""

from mixers.cpu.runner import helper
from mixers.cpu.simd import lanes, load, load_first, store, store_first


@helper
def get(array, offset, count):
    """Load the first `count` lanes, which mostly are all: a masked load waits for earlier stores."""
    return load(array, offset) if count == lanes(array) else load_first(array, offset, count)


@helper
def put(array, offset, value, count):
    """Store the first `count` lanes, which mostly are all."""
    if count == lanes(array):
        store(array, offset, value)
    else:
        store_first(array, offset, value, count)
