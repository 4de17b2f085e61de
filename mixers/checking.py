"""Is this installation right? Every backend against the float64 reference, and that against differences."""

from typing import NamedTuple

import numpy

import mixers
from mixers import samples, subjects

DTYPES = ("float64", "float32", "float16", "bfloat16")

# largest deviation from the reference, relative to the largest value of the array: an order of magnitude
# above what the test suite allows, because inputs of any shape may come and mixers are chains of ops
BOUNDS = {"float64": 1e-10, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
DIFFERENCES_BOUND = 1e-6

_DIRECTIONS, _STEP = 3, 1e-5


class Finding(NamedTuple):
    """One array, compared: the error relative to its largest value, and the bound it must keep."""

    backend: str
    dtype: str
    array: str
    error: float
    bound: float

    @property
    def passed(self):
        """Whether the error keeps the bound; NaN does not."""
        return self.error <= self.bound


def check(name, backends=("cpu",), dtypes=DTYPES, seed=0, shape=subjects.Shape({}, None), **config):
    """Check an op or a mixer on this machine.

    Parameters
    ----------
    name : str
    backends : tuple of str
        Compared with the reference in float64 on the same rounded inputs, outputs and all gradients.
    dtypes : tuple of str
    seed : int
    shape : subjects.Shape
        By default a small one.
    **config
        Options of the mixer or op.

    Yields
    ------
    Finding
    """
    subject = subjects.find(name, dtype="float64", seed=seed, shape=shape, **config)
    yield from _differences(subject)
    for dtype in dtypes:
        arrays = subject.cast(dtype)
        with mixers.use_backend("reference"):
            dout = samples.cotangent(subject.call(arrays))
        want = subjects.evaluate(subject, _wide(arrays), "reference", _wide(dout))
        for backend in backends:
            got = subjects.evaluate(subject, arrays, backend, dout)
            scale = max((numpy.abs(g).max(initial=0.0) for g in want.gradients.values()), default=0.0)
            for array, value in want.arrays.items():
                yield Finding(backend, dtype, array, _error(got.arrays[array], value), BOUNDS[dtype])
            for array, value in want.gradients.items():
                error = _error(got.gradients[array], value, floor=1e-3 * scale)
                yield Finding(backend, dtype, array, error, BOUNDS[dtype])


def _differences(subject):
    """The reference's gradients against central differences along random directions, in float64."""
    with mixers.use_backend("reference"):
        out, saved = subject.forward(subject.arrays)
        dout = samples.cotangent(out)
        gradients = subject.backward(dout, saved)
        rng = numpy.random.default_rng(2)
        for name, array in subject.arrays.items():
            if gradients[name] is None:
                continue
            worst = 0.0
            for _ in range(_DIRECTIONS):
                v = rng.standard_normal(array.shape)
                values = [
                    _weighted(subject.call({**subject.arrays, name: array + sign * _STEP * v}), dout)
                    for sign in (1, -1)
                ]
                numeric = (values[0] - values[1]) / (2 * _STEP)
                analytic = float((gradients[name] * v).sum())
                scale = max(abs(numeric), float(numpy.linalg.norm(gradients[name])), 1e-3)
                worst = max(worst, abs(numeric - analytic) / scale)
            yield Finding("differences", "float64", f"d{name}", worst, DIFFERENCES_BOUND)


def _weighted(out, dout):
    pairs = zip(out, dout) if isinstance(out, tuple) else [(out, dout)]
    return sum(float((o * d).sum()) for o, d in pairs if o is not None)


def _wide(value):
    if isinstance(value, dict):
        return {n: _wide(v) for n, v in value.items()}
    if isinstance(value, tuple):
        parts = [_wide(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return None if value is None else value.astype(numpy.float64)


def _error(got, want, floor=0.0):
    if not want.size:
        return 0.0
    return float(numpy.abs(got - want).max() / max(numpy.abs(want).max(), floor, 1e-300))
