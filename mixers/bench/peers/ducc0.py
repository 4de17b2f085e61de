"""ducc0: the transforms with the least rounding and the best threading we know of on the CPU."""

import numpy

from mixers.bench.contender import Contender

INSTALL = "ducc0"


def contenders(subject, backend, backward, threads):
    import ducc0

    if backend != "cpu":
        return []
    a = subject.arrays
    if subject.name in ("dct", "idct"):
        axes = tuple(range(1, a["x"].ndim - 1))
        transform = lambda kind: ducc0.fft.dct(a["x"], type=kind, axes=axes, inorm=1, nthreads=threads)
        kinds = (2, 3) if subject.name == "dct" else (3, 2)
        call, inverse = (lambda: transform(kinds[0])), (lambda: transform(kinds[1]))
        both = lambda: (call(), inverse())
        return [Contender("ducc0", call, *((inverse, both) if backward else (None, None)), call)]
    if subject.name == "long_conv1d" and subject.fixed.get("causal", True):
        call = lambda: _long_conv(ducc0, a["x"], a["h"], a["D"], threads)
        return [Contender("ducc0", call, None, None, call)]
    return []


def _long_conv(ducc0, x, h, D, threads):
    """Forward only: x (b, l, c) and h (k, c), zero-padded to twice the length."""
    l = x.shape[1]
    size = ducc0.fft.good_size(l + min(l, len(h)), True)
    spectrum = ducc0.fft.r2c(_padded(x, size, 1), axes=(1,), nthreads=threads)
    spectrum *= ducc0.fft.r2c(_padded(h[:l], size, 0), axes=(0,), nthreads=threads)
    y = ducc0.fft.c2r(spectrum, axes=(1,), lastsize=size, inorm=2, nthreads=threads)
    return y[:, :l] + D * x


def _padded(array, size, axis):
    shape = list(array.shape)
    shape[axis] = size
    padded = numpy.zeros(shape, array.dtype)
    padded[(slice(None),) * axis + (slice(0, array.shape[axis]),)] = array
    return padded
