"""A small tape over ops: run the equations forward on traced values, sweep them backward.

It is no general autodiff: no control flow on values, no higher order. A mixer's ``mix`` runs the same
lines on plain arrays (inference) and on values (training). Compose your own in the same way:

>>> import numpy
>>> from mixers import graph, ops
>>> tape = graph.Tape()
>>> x = tape.value(numpy.ones((2, 3)))
>>> y = ops.silu(x) * 2.0 + x
>>> [dx] = tape.backward([(y, numpy.ones((2, 3)))], [x])
>>> dx.shape
(2, 3)
"""

import importlib

import numpy

from mixers.backend import array_backend, array_module


class Value:
    """An array on a tape, with the operators that the equations of mixers need."""

    __slots__ = ("array", "tape")
    # numpy arrays on the left must leave the operator to this class
    __array_ufunc__ = None

    def __init__(self, array, tape):
        self.array, self.tape = array, tape

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    dtype = property(lambda self: self.array.dtype)

    def __repr__(self):
        return f"Value(shape={self.shape}, dtype={self.dtype})"

    def __add__(self, other):
        return _arithmetic("add", self, other)

    def __radd__(self, other):
        return _arithmetic("add", other, self)

    def __sub__(self, other):
        return _arithmetic("sub", self, other)

    def __rsub__(self, other):
        return _arithmetic("sub", other, self)

    def __mul__(self, other):
        return _arithmetic("mul", self, other)

    def __rmul__(self, other):
        return _arithmetic("mul", other, self)

    def __truediv__(self, other):
        return _arithmetic("div", self, other)

    def __rtruediv__(self, other):
        return _arithmetic("div", other, self)

    def __neg__(self):
        return _scale(self, -1.0)

    def __getitem__(self, index):
        shape = self.shape

        def pull(d):
            dx = zeros_like(d, shape)
            dx[index] = d
            return (dx,)

        return self.tape.record(self.array[index], (self,), pull)

    def astype(self, dtype, copy=False):
        own = self.dtype
        if own == dtype:
            return self
        return self.tape.record(self.array.astype(dtype), (self,), lambda d: (d.astype(own),))

    def reshape(self, *shape):
        own = self.shape
        return self.tape.record(self.array.reshape(*shape), (self,), lambda d: (d.reshape(own),))

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
        axes = axes or tuple(reversed(range(self.ndim)))
        back = tuple(sorted(range(self.ndim), key=lambda i: axes[i] % self.ndim))
        return self.tape.record(self.array.transpose(axes), (self,), lambda d: (d.transpose(back),))

    def swapaxes(self, first, second):
        return self.tape.record(
            self.array.swapaxes(first, second), (self,), lambda d: (d.swapaxes(first, second),)
        )

    def sum(self, axis=None, keepdims=False):
        shape = self.shape
        axes = tuple(range(self.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(a % self.ndim for a in axes)
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))

        def pull(d):
            dx = zeros_like(d, shape)
            dx += d.reshape(kept)
            return (dx,)

        # by way of kept axes: the sum of everything stays an array
        total = self.array.sum(axis=axes, keepdims=True)
        if not keepdims:
            total = total.reshape([n for i, n in enumerate(shape) if i not in axes])
        return self.tape.record(total, (self,), pull)

    def mean(self, axis=None, keepdims=False):
        total = self.sum(axis, keepdims)
        count = total.dtype.type(self.size // total.size) if self.size else 1
        return self.tape.record(total.array / count, (total,), lambda d: (d / count,))


class Tape:
    """Records steps as they run and sweeps them backward once."""

    def __init__(self):
        self._steps = []
        self._used = False

    def value(self, array):
        """Put an array on the tape."""
        return Value(array, self)

    def record(self, out, inputs, pull):
        """Add one step: `pull` maps the cotangent of `out` to those of the values among `inputs`.

        With a tuple `out`, `pull` takes a list of cotangents (None where there is none).
        """
        several = isinstance(out, tuple)
        values = [o if o is None else Value(o, self) for o in (out if several else (out,))]
        self._steps.append((values, several, inputs, pull))
        return (type(out)(*values) if hasattr(out, "_fields") else tuple(values)) if several else values[0]

    def backward(self, cotangents, targets, keep=False):
        """Sweep backward.

        Parameters
        ----------
        cotangents : list of (Value, array)
            Where the sweep starts; pairs whose array is None are skipped.
        targets : list of Value
            Whose gradients are returned.
        keep : bool
            Keep the saved values for another sweep. By default each is freed once it has been used.

        Returns
        -------
        list of array
            Gradients of ``sum(value * cotangent)``, None for a target that does not reach the output.
        """
        if self._used:
            raise RuntimeError(
                "backward: the saved values were freed by an earlier backward; pass keep=True to that one"
            )
        self._used = not keep
        gradients = {}
        for value, cotangent in cotangents:
            if cotangent is not None:
                _accumulate(gradients, value, cotangent)
        wanted = {id(t) for t in targets}
        steps = list(self._steps) if keep else self._steps
        while steps:
            values, several, inputs, pull = steps.pop()
            found = [
                None if v is None else gradients.get(id(v)) if id(v) in wanted else gradients.pop(id(v), None)
                for v in values
            ]
            if all(d is None for d in found):
                continue
            for value, d in zip(inputs, pull(found if several else found[0])):
                if d is not None and isinstance(value, Value):
                    _accumulate(gradients, value, d)
        return [gradients.get(id(t)) for t in targets]


def trace_op(op, arguments):
    """Run an op on values: forward now, its backward as a step of their tape."""
    named = {n: arguments[n] for n in op.arrays}
    tape = next(v.tape for v in named.values() if isinstance(v, Value))
    arrays = {n: v.array if isinstance(v, Value) else v for n, v in named.items()}
    out, saved = op.forward(**{**arguments, **arrays})

    def pull(d):
        return op.backward(op.Outputs(*d) if isinstance(d, list) else d, saved)

    return tape.record(out, tuple(named.values()), pull)


def concatenate(parts, axis=-1):
    """Join arrays or values along an axis."""
    tape = _tape_of(parts)
    arrays = [_array(p) for p in parts]
    out = array_module(arrays[0]).concatenate(arrays, axis=axis)
    if tape is None:
        return out
    sizes = [a.shape[axis] for a in arrays]
    return tape.record(out, tuple(parts), lambda d: _split(d, sizes, axis))


def split(x, sizes, axis=-1):
    """Split an array or value along an axis into parts of the given sizes; the parts are views."""
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"split: sizes must add up to {x.shape[axis]}, got {list(sizes)}")
    parts = _split(_array(x), sizes, axis)
    if not isinstance(x, Value):
        return parts
    shape = x.shape

    def pull(ds):
        if any(d is None for d in ds):
            dx = zeros_like(next(d for d in ds if d is not None), shape)
            for part, d in zip(_split(dx, sizes, axis), ds):
                if d is not None:
                    part[...] = d
            return (dx,)
        return (array_module(ds[0]).concatenate(ds, axis=axis),)

    return x.tape.record(parts, (x,), pull)


def constant(values, like):
    """A table of numbers as an array of the type (NumPy, CuPy) and dtype of `like`, an array or value."""
    array = _array(like)
    table = numpy.asarray(values).astype(array.dtype)
    if array_backend(array) != "gpu":
        return table
    return importlib.import_module("mixers.gpu.device").device_of(array).to_device(table)


def to_host(x):
    """The values as a NumPy array, for decisions; on a GPU this waits for them."""
    array = _array(x)
    if array_backend(array) != "gpu":
        return array
    return importlib.import_module("mixers.gpu.device").device_of(array).to_host(array)


def stop_gradient(x):
    """The plain array of a value: nothing flows back through it."""
    return _array(x)


def _split(array, sizes, axis):
    axis = axis % array.ndim
    parts, start = [], 0
    for size in sizes:
        parts.append(array[(slice(None),) * axis + (slice(start, start + size),)])
        start += size
    return tuple(parts)


def _arithmetic(name, left, right):
    if isinstance(right, int | float):
        if name in ("mul", "div"):
            return _scale(left, right if name == "mul" else 1.0 / right)
        return _shift(left, right if name == "add" else -right)
    if isinstance(left, int | float) and name != "div":
        if name == "mul":
            return _scale(right, left)
        return _shift(right if name == "add" else -right, left)
    from mixers import ops

    if isinstance(left, int | float):
        # a full array keeps 1 / x an op like any other
        left = zeros_like(right.array, right.shape) + right.dtype.type(left)
    return getattr(ops, name)(left, right)


def _scale(x, factor):
    factor = x.dtype.type(factor)
    return x.tape.record(x.array * factor, (x,), lambda d: (d * factor,))


def _shift(x, offset):
    return x.tape.record(x.array + x.dtype.type(offset), (x,), lambda d: (d,))


def _accumulate(gradients, value, d):
    held = gradients.get(id(value))
    gradients[id(value)] = d if held is None else held + d


def _array(x):
    return x.array if isinstance(x, Value) else x


def _tape_of(parts):
    return next((p.tape for p in parts if isinstance(p, Value)), None)


def zeros_like(array, shape):
    """Zeros of the given shape, of the type and dtype of `array`."""
    return array_module(array).zeros_like(array, shape=shape)
