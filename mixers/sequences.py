"""Several sequences in one row of tokens, and tokens that are none.

The scans, the causal convolution and the recurrent mixers take two tables of booleans (b, l), NumPy arrays on every
backend. `sequence_starts` is true where a sequence begins: what came before is forgotten there. `mask` is false for
padding: such a token changes no state, and its output is zero.

>>> starts_from_lengths([3, 2])
array([[ True, False, False,  True, False]])
"""

import importlib

import numpy

from mixers import _checks as check
from mixers.backend import array_backend


def starts_from_lengths(lengths):
    """The `sequence_starts` of sequences packed one after the other into one row.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence, at least 1.

    Returns
    -------
    numpy.ndarray (1, l)
        Boolean, l the sum of the lengths.

    Raises
    ------
    ValueError
        If a length is below 1.
    """
    lengths = [check.integer("starts_from_lengths", "length", n, minimum=1) for n in lengths]
    return starts_from_offsets(numpy.cumsum([0, *lengths]))


def starts_from_offsets(offsets):
    """The `sequence_starts` for cumulative lengths 0, l_1, l_1 + l_2, ..., l.

    Parameters
    ----------
    offsets : sequence of int
        Strictly increasing, from 0 to the number of tokens.

    Returns
    -------
    numpy.ndarray (1, l)

    Raises
    ------
    ValueError
        If the offsets do not begin with 0 or do not increase.

    Examples
    --------
    >>> starts_from_offsets([0, 1, 3])
    array([[ True,  True, False]])
    """
    offsets = numpy.asarray(offsets)
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or (numpy.diff(offsets) < 1).any():
        raise ValueError(
            f"starts_from_offsets: offsets must increase from 0 to the number of tokens, got {offsets.tolist()}"
        )
    starts = numpy.zeros((1, int(offsets[-1])), bool)
    starts[0, offsets[:-1]] = True
    return starts


def check_tokens(function, batch, l, **tables):
    """Check tables of booleans (b, l) among the options of an op or mixer."""
    for name, table in tables.items():
        if table is None:
            continue
        if not isinstance(table, numpy.ndarray) or table.dtype != bool:
            kind = getattr(table, "dtype", type(table).__name__)
            raise TypeError(f"{function}: {name} must be a NumPy array of booleans, got {kind}")
        check.shape(function, name, table, b=batch, l=l)


def zeroed(array, mask, value=0.0):
    """The array (b, l, ...) with a number, or an array, at the tokens that the mask leaves out; None stays None."""
    if array is None or mask is None:
        return array
    keep = on_device(mask.reshape(*mask.shape, *[1] * (array.ndim - 2)), array)
    value = array.dtype.type(value) if isinstance(value, float) else value.astype(array.dtype)
    return numpy.where(keep, array, value)


def frozen_steps(delta, mask, bias, softplus):
    """Raw steps that come to nothing at the tokens that the mask leaves out."""
    if softplus or bias is None:
        # softplus is zero there, and so is its slope
        return zeroed(delta, mask, -1e4 if softplus else 0.0)
    return zeroed(delta, mask, -bias)


def on_device(table, like):
    """A host table as an array of the type of `like`."""
    if array_backend(like) != "gpu":
        return table
    return importlib.import_module("mixers.gpu.device").device_of(like).to_device(table)


def convolution_rows(b, l, k, sequence_starts, mask):
    """What a causal convolution of k taps needs at tokens that do not follow the k - 1 before them.

    Rows are numbered as those of X (b, k - 1 + l), the initial state followed by the tokens; b (k - 1 + l) is a row of
    zeros.

    Returns
    -------
    tokens : int array (m,)
        Those tokens, as item l + t, and all that the mask leaves out.
    rows : int array (m, k)
        The rows they see, the newest last.
    last : int array (b, k - 1)
        The rows of the final state.
    """
    none = b * (k - 1 + l)
    starts = numpy.zeros((b, l), bool) if sequence_starts is None else sequence_starts
    keep = numpy.ones((b, l), bool) if mask is None else mask
    # tokens whose last k - 1 predecessors hold neither a start nor padding see what they would see anyway
    odd = ~keep | starts
    near = odd.copy()
    for i in range(1, k):
        near[:, i:] |= odd[:, : max(l - i, 0)]
    tokens = numpy.flatnonzero(near)
    tables = numpy.full((len(tokens), k), none, numpy.int64)
    last = numpy.empty((b, k - 1), numpy.int64)
    for item in range(b):
        kept = numpy.flatnonzero(keep[item])
        # the rows that tokens may see, and the number of the sequence that each belongs to
        rows = item * (k - 1 + l) + numpy.concatenate([numpy.arange(k - 1), k - 1 + kept])
        owners = numpy.concatenate([numpy.zeros(k - 1, int), starts[item].cumsum()[kept]])
        own = numpy.isin(tokens, item * l + kept, assume_unique=True)
        window = numpy.searchsorted(kept, tokens[own] - item * l)[:, None] + numpy.arange(k)
        of = owners[window]
        tables[own] = numpy.where(of == of[:, -1:], rows[window], none)
        end = len(rows) - (k - 1)
        last[item] = numpy.where(owners[end:] == starts[item].sum(), rows[end:], none)
    return tokens, tables, last
