"""Ops and mixers under one face: named arrays in, outputs and named gradients out.

The commands that check, time, compile ahead and draw do not care which of the two they got.
"""

import difflib
from dataclasses import dataclass
from typing import NamedTuple

import numpy

import mixers
from mixers import ops, samples
from mixers.graph import to_host
from mixers.mixer import Mixer, required_inputs
from mixers.op import Op


class Shape(NamedTuple):
    """A shape given on the command line: sizes by letter for ops, the shape of x for mixers."""

    sizes: dict
    x: tuple | None


@dataclass(frozen=True)
class Subject:
    """An op or a mixer, with arguments drawn for it.

    `arrays` are those with gradients, by name; `fixed` holds options of an op, or parameters without
    gradient of a mixer.
    """

    name: str
    of: Op | Mixer
    arrays: dict
    fixed: dict
    inputs: tuple

    def call(self, arrays):
        """The output; nothing is kept."""
        if isinstance(self.of, Op):
            return self.of(**arrays, **self.fixed)
        return self.of(*self._split(arrays))

    def forward(self, arrays):
        """The output, and what :meth:`backward` needs."""
        if isinstance(self.of, Op):
            return self.of.forward(**arrays, **self.fixed)
        return self.of.forward(*self._split(arrays))

    def backward(self, dout, saved, keep=False):
        """Gradients by the names of the arrays."""
        if isinstance(self.of, Op):
            gradients = dict(zip(self.of.arrays, self.of.backward(dout, saved), strict=True))
        else:
            dparams, dinputs = self.of.backward(dout, saved, keep=keep)
            dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
            gradients = {**dict(zip(self.inputs, dinputs)), **dparams}
        return {name: gradients[name] for name in self.arrays}

    def cast(self, dtype):
        """The arrays in another dtype."""
        return {name: array.astype(samples.as_dtype(dtype)) for name, array in self.arrays.items()}

    def move(self, backend):
        """The same on arrays of a backend."""
        arrays, fixed = samples.on_backend((self.arrays, self.fixed), backend)
        return Subject(self.name, self.of, arrays, fixed, self.inputs)

    def cost(self):
        """Floating operations and bytes of one forward; None for a mixer."""
        return self.of.cost(**self.arrays, **self.fixed) if isinstance(self.of, Op) else None

    def _split(self, arrays):
        params = {n: a for n, a in arrays.items() if n not in self.inputs}
        order = {n: {**params, **self.fixed}[n] for n in self.of.parameters()}
        return order, *(arrays[n] for n in self.inputs)


def find(name, size="small", dtype="float32", seed=0, shape=Shape({}, None), **config):
    """Draw arguments for an op or a mixer.

    Parameters
    ----------
    name : str
    size : {"small", "bench"}
    dtype : dtype
    seed : int
    shape : Shape
    **config
        Options of a mixer's constructor, or of an op.

    Raises
    ------
    ValueError
        If there is no such op or mixer, or it cannot have this shape.
    """
    if name in ops.__all__:
        if shape.x is not None:
            known = ",".join(f"{k}=.." for k in samples.OPS[name].small)
            raise ValueError(f"{name} is an op: give its sizes by letter, as {known}")
        arguments = samples.op_sample(name, size, seed, dtype, **shape.sizes) | config
        op = getattr(ops, name)
        arrays = {n: a for n, a in arguments.items() if n in op.arrays}
        fixed = {n: a for n, a in arguments.items() if n not in arrays}
        return Subject(name, op, arrays, fixed, op.inputs)
    if name in mixers.list_mixers():
        if shape.sizes:
            raise ValueError(f"{name} is a mixer: give the shape of x, as 2,64,8 or 2,8,8,16")
        mixer, params, drawn = samples.mixer_sample(name, size, seed, dtype, shape.x, **config)
        inputs = tuple(required_inputs(type(mixer)))
        trainable = {n for n, spec in mixer.parameters().items() if spec.trainable}
        fixed = {n: p for n, p in params.items() if n not in trainable}
        arrays = dict(zip(inputs, drawn)) | {n: p for n, p in params.items() if n in trainable}
        return Subject(name, mixer, arrays, fixed, inputs)
    near = difflib.get_close_matches(name, [*ops.__all__, *mixers.list_mixers()], n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else "; `mixers list` names all"
    raise ValueError(f"there is no op or mixer {name!r}{hint}")


def parse_shape(text):
    """A shape from the command line: ``"b=2,l=1024"`` or ``"2,1024,256"``.

    >>> parse_shape("b=2,l=64").sizes
    {'b': 2, 'l': 64}
    >>> parse_shape("2,8,8,16").x
    (2, 8, 8, 16)
    """
    parts = [part for part in (text or "").split(",") if part]
    try:
        if any("=" in part for part in parts):
            return Shape({k: int(v) for k, v in (part.split("=") for part in parts)}, None)
        return Shape({}, tuple(int(part) for part in parts) or None)
    except ValueError:
        raise ValueError(f"shape must look like b=2,l=64 or 2,64,8, got {text!r}") from None


class Measured(NamedTuple):
    """Outputs and gradients by name, on the host in float64."""

    arrays: dict
    gradients: dict


def evaluate(subject, arrays, backend, dout=None):
    """Run forward and backward on a backend; `dout` is drawn if None.

    Returns
    -------
    Measured
    """
    moved, dout = samples.on_backend((arrays, dout), backend)
    subject = subject.move(backend)
    with mixers.use_backend(backend):
        out, saved = subject.forward(moved)
        gradients = subject.backward(samples.cotangent(out) if dout is None else dout, saved)
    outs = out if isinstance(out, tuple) else (out,)
    return Measured(
        {f"output {i}" if len(outs) > 1 else "output": wide(o) for i, o in enumerate(outs) if o is not None},
        {f"d{n}": wide(g) for n, g in gradients.items() if g is not None},
    )


def wide(array):
    """A host copy in float64."""
    return to_host(array).astype(numpy.float64)
