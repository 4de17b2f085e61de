"""What an op is: one declaration, three verbs, any backend.

``y = op(...)`` computes and saves nothing, ``y, saved = op.forward(...)`` keeps what the backward needs,
``gradients = op.backward(dout, saved)`` returns a NamedTuple with one gradient per array argument.
Called on traced values (mixers.graph) the op is recorded on their tape.
"""

import functools
import inspect
import sys
from collections import namedtuple

import numpy

from mixers import _checks, backend
from mixers.graph import Value, trace_op

_REQUIRED = inspect.Parameter.empty


def op(*, inputs, parameters="", outputs="y", saves="", flops=None):
    """Declare an op; the decorated function holds the signature, the docstring and the argument checks.

    Parameters
    ----------
    inputs : str
        Names of the activations, the main input first: its dtype is that of the first output.
    parameters : str
        Names of arrays that may be wider than the main input (weights, states).
    outputs : str
        Names of the outputs. With several, the op returns a NamedTuple; trailing outputs that the
        backend returns as None (not asked for) are dropped, and a single one is returned bare.
    saves : str
        Names of the intermediates that the forward keeps for the backward besides its arguments.
    flops : callable, optional
        Called with the arguments by keyword: floating operations of one forward, for benchmarks. One per
        element of the main input by default.
    """
    return lambda declare: Op(
        declare, inputs.split(), parameters.split(), outputs.split(), saves.split(), flops
    )


class Op:
    """A pure function of arrays with the verbs call, forward and backward."""

    def __init__(self, declare, inputs, parameters, outputs, saves, flops):
        functools.update_wrapper(self, declare)
        self.name = declare.__name__
        self.family = declare.__module__.rpartition(".")[2]
        self.inputs, self.parameters = tuple(inputs), tuple(parameters)
        self.main = inputs[0]
        self._flops = flops or (lambda **arguments: arguments[inputs[0]].size)
        self._check = declare
        signature = inspect.signature(declare)
        self.signature = signature
        self._defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not _REQUIRED}
        self._positional = [n for n, p in signature.parameters.items() if p.kind is not p.KEYWORD_ONLY]
        self.arrays = tuple(n for n in signature.parameters if n in inputs or n in parameters)
        self.outputs, self.saves = tuple(outputs), tuple(saves)
        self.Saved = self._record("Saved", (*signature.parameters, *saves, "output_shapes"))
        self.Gradients = self._record("Gradients", ["d" + n for n in self.arrays])
        self.Outputs = self._record("Outputs", outputs)

    def _record(self, kind, fields):
        # placed in the declaring module so that saved values can be pickled
        name = "".join(part.title() for part in self.name.split("_")) + kind
        record = namedtuple(name, fields, module=self.__module__)
        setattr(sys.modules[self.__module__], name, record)
        return record

    def __repr__(self):
        return f"<op {self.name}>"

    def __call__(self, *args, **kwargs):
        """Compute without keeping anything for a backward."""
        arguments = self._bind(args, kwargs)
        if any(isinstance(arguments.get(n), Value) for n in self.arrays):
            return trace_op(self, arguments)
        return self._compute(arguments, save=False)[0]

    def forward(self, *args, **kwargs):
        """Compute and keep what :meth:`backward` needs: returns ``(output, saved)``."""
        return self._compute(self._bind(args, kwargs), save=True)

    def backward(self, dout, saved):
        """Gradients of ``sum(output * dout)`` with respect to every array argument.

        Parameters
        ----------
        dout : array, or the op's output NamedTuple
            Cotangents of the outputs; None for an output that took no part.
        saved : NamedTuple
            From :meth:`forward`.

        Returns
        -------
        NamedTuple
            ``d<name>`` for every array argument in the order of the signature, None where it was None.
        """
        given = {n: a for n in self.arrays if (a := getattr(saved, n)) is not None}
        douts = self._cotangents(dout, saved.output_shapes)
        chosen = backend.select(
            self.name, {**given, **{f"d{n}": d for n, d in zip(self.outputs, douts) if d is not None}}
        )
        run = backend.implementation(chosen, self.family, f"{self.name}_backward")
        main = given[self.main].dtype
        compute = compute_dtype(main)
        first = compute if chosen != "gpu" else main
        douts = [
            d if d is None else d.astype(first if i == 0 else compute, copy=False)
            for i, d in enumerate(douts)
        ]
        cast = self._cast(given, chosen, main, compute)
        gradients = run(douts[0] if len(self.outputs) == 1 else self.Outputs(*douts), saved._replace(**cast))
        return self.Gradients(
            *(
                None if d is None else d.astype(given[n].dtype, copy=False)
                for n, d in zip(self.arrays, gradients, strict=True)
            )
        )

    def cost(self, *args, **kwargs):
        """Cost model of one forward: floating operations, and bytes if each array is moved once.

        Returns
        -------
        tuple of int
            ``(flops, bytes)``; the output counts like the main input.
        """
        arguments = self._bind(args, kwargs)
        moved = sum(a.nbytes for n in self.arrays if (a := arguments[n]) is not None)
        return int(self._flops(**arguments)), moved + arguments[self.main].nbytes

    def _bind(self, args, kwargs):
        arguments = self._defaults.copy()
        if len(args) > len(self._positional):
            raise TypeError(
                f"{self.name}: takes at most {len(self._positional)} positional arguments, got {len(args)}"
            )
        arguments.update(zip(self._positional, args))
        for name in kwargs:
            if name in self._positional[: len(args)]:
                raise TypeError(f"{self.name}: {name} was given twice")
        arguments.update(kwargs)
        if len(arguments) != len(self.signature.parameters):
            known = self.signature.parameters
            surplus = [n for n in arguments if n not in known]
            missing = [n for n in known if n not in arguments]
            what = f"has no argument {surplus[0]!r}" if surplus else f"{', '.join(missing)} must be given"
            raise TypeError(f"{self.name}: {what}; the signature is {self.name}{self.signature}")
        return arguments

    def _compute(self, arguments, save):
        given = {n: a for n in self.arrays if (a := arguments[n]) is not None or n not in self._defaults}
        chosen = backend.select(self.name, given)
        for name, array in given.items():
            _checks.floating(self.name, name, array)
        self._check(**arguments)
        run = backend.implementation(chosen, self.family, f"{self.name}_forward")
        main = given[self.main].dtype
        compute = compute_dtype(main)
        cast = self._cast(given, chosen, main, compute)
        out, intermediates = run(**{**arguments, **cast} if cast else arguments, save=save)
        outs = (out,) if len(self.outputs) == 1 else out
        outs = [
            o if o is None else o.astype(main if i == 0 else compute, copy=False) for i, o in enumerate(outs)
        ]
        result = outs[0] if all(o is None for o in outs[1:]) else self.Outputs(*outs)
        if not save:
            return result, None
        shapes = tuple(None if o is None else o.shape for o in outs)
        ordered = [arguments[n] for n in self.signature.parameters]
        return result, self.Saved(*ordered, *intermediates, shapes)

    def _cast(self, given, chosen, main, compute):
        """The arrays whose dtype is not the one the backend computes in, converted."""
        first = compute if chosen != "gpu" else main
        cast = {}
        for name, array in given.items():
            wanted = first if name in self.inputs else compute
            if array.dtype != wanted:
                cast[name] = array.astype(wanted)
        return cast

    def _cotangents(self, dout, shapes):
        several = isinstance(dout, tuple)
        douts = tuple(dout) if several else (dout,)
        if not several:
            douts += (None,) * (len(shapes) - 1)
        if len(douts) != len(shapes):
            raise ValueError(
                f"{self.name}: dout must have {len(shapes)} parts like the output, got {len(douts)}"
            )
        for name, d, s in zip(self.outputs, douts, shapes):
            if d is None:
                continue
            if s is None:
                raise ValueError(f"{self.name}: there is a cotangent for {name}, which was not returned")
            if getattr(d, "shape", None) != s:
                raise ValueError(
                    f"{self.name}: the cotangent of {name} must have shape {tuple(s)}, "
                    f"got {tuple(d.shape) if hasattr(d, 'shape') else d!r}"
                )
            _checks.floating(self.name, f"the cotangent of {name}", d)
        if all(d is None for d in douts):
            raise ValueError(f"{self.name}: dout must hold at least one cotangent, got None")
        return douts


def compute_dtype(dtype):
    """The type that sums are carried in: float64 for float64, else float32."""
    return numpy.dtype(numpy.float64 if dtype == numpy.float64 else numpy.float32)
