"""How the selective scans are cut into tasks; it depends on the arguments alone, never on the threads."""

import numpy

from mixers.cpu import aligned
from mixers.cpu.runner import run
from mixers.cpu.scan_backward import GATHERED, gather
from mixers.cpu.scan_common import BLOCK, CHUNK, FAR, LOG2_E
from mixers.cpu.simd import lanes

# blocks of channels below which the tokens are cut into segments, and the length of those
_FEW = 4
_SEGMENT_CHUNKS = 128


class Plan:
    """What the kernels ask for besides the arrays: sizes, cut, walk, block; see :mod:`mixers.cpu.scan_common`.

    Parameters
    ----------
    u : array (b, l, c)
    groups, n : int
        Groups of channels, and states.
    walk : (int64 array (directions l), int64 array)
        The tokens in the order of the visits, direction after direction, and those whose coefficients each visit takes.
    directions : int
    deltas : int
        Rows of delta per token.
    segments : bool
        Few and long sequences may be cut into segments.
    """

    def __init__(self, u, groups, n, walk, directions=1, deltas=1, segments=False):
        b, l, c = u.shape
        channels, w = c // groups, lanes(u)
        blocks = b * groups * -(-channels // w)
        # wide tasks share sums over channels, and read whole stretches of memory
        width = w * min(max(blocks // (32 if u.nbytes <= FAR else 8), 1), 8)
        self.parts = -(-channels // width)
        chunks = -(-l // CHUNK)
        cut = segments and blocks < _FEW and chunks > 2 * _SEGMENT_CHUNKS
        self.segments = -(-chunks // _SEGMENT_CHUNKS) if cut else 1
        self.count = b * groups * self.parts * self.segments
        self.sizes = (b, l, c, groups * directions, n)
        self.cut = self.segments, _SEGMENT_CHUNKS if cut else chunks, self.parts, width, directions, deltas
        self.geometry = walk, self.sizes, self.cut
        self.block = (0,) * max(i for i in range(1, BLOCK + 1) if n % i == 0)

    def states(self, dtype):
        """Memory for the states that a forward saves, (directions, b, chunks, n, c)."""
        b, l, c, _, n = self.sizes
        return aligned.empty((self.cut[4], b, -(-l // CHUNK), n, c), dtype)

    def sums(self, dtype):
        """Memory for the shares of dA, dD and ddelta_bias: (directions or 1, b segments, n or 1, c)."""
        b, _, c, _, n = self.sizes
        directions = self.cut[4]
        return [
            aligned.zeros((k, b * self.segments, m, c), dtype)
            for k, m in ((directions, n), (1, 1), (directions, 1))
        ]

    def partial(self, dtype):
        """Memory for the shares of dB and dC."""
        b, l, _, g, n = self.sizes
        return aligned.empty(self.parts * b * l * g * n * 2, dtype)

    def gathered(self, partial):
        """dB and dC (b, l, g, n) from their shares."""
        b, l, _, g, n = self.sizes
        dB, dC = (aligned.empty((b, l, g, n), partial.dtype) for _ in range(2))
        rows = b * l * g
        run(
            gather,
            -(-rows // GATHERED),
            *(partial, dB.reshape(-1), dC.reshape(-1)),
            *(rows, n, self.parts, self.block),
            work=partial.size,
        )
        return dB, dC


def rates(A):
    """A (..., c, n) by rows of states (..., n, c), in powers of two."""
    rows = A.swapaxes(-1, -2) * A.dtype.type(LOG2_E)
    # one NaN for all: some others would not survive the scaling of exponents
    rows[numpy.isnan(rows)] = numpy.nan
    return rows


def flattened(*arrays):
    """Each array in one axis, of none where there is none."""
    none = numpy.empty(0, arrays[0].dtype)
    return tuple(none if a is None else aligned.flat(a) for a in arrays)
