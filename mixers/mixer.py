"""The base of all mixers: a frozen dataclass of configuration, parameters by name, equations in ``mix``.

A subclass states its fields, ``parameters()`` (the only source of names and shapes) and ``mix(p, x, ...)``
written with ops; everything else is here and the same for every mixer.
"""

import dataclasses
import functools
import inspect
import math
from typing import NamedTuple

import numpy

from mixers import _checks, backend, graph
from mixers.graph import Tape, Value


class Parameter(NamedTuple):
    """Shape, initialiser ``(rng, shape) -> array``, whether a gradient is wanted and training keeps the value.

    A size of None is one that the configuration leaves open: parameters are taken as they come, not drawn.
    """

    shape: tuple
    init: object
    trainable: bool = True
    frozen: bool = False  # has a gradient, but an optimizer leaves it as it is


class Metadata(NamedTuple):
    """What the registry knows of a mixer; the command line's table and the docs come from it."""

    name: str
    family: str
    paper: str
    year: int
    arxiv: str
    ranks: tuple  # token axes that x may have: (1,) sequences, (2,) images
    causal: bool
    recurrent: bool  # has step() and a state
    grid_tied: bool  # parameters depend on the resolution
    cost: str  # in L tokens, C channels and the paper's own sizes


class MixerSaved(NamedTuple):
    """What the forward keeps for the backward of a mixer."""

    tape: Tape
    params: dict
    inputs: tuple
    outputs: tuple


class Params(dict):
    """A mixer's parameters inside ``mix``: ``p.w_in`` is ``p["w_in"]``, None where a flag turned it off.

    With ``p.training`` the batch norms use batch statistics and put the updated running ones in `updates`.
    """

    training = False

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


@dataclasses.dataclass(frozen=True)
class Mixer:
    """Configuration of a token mixer; call it with parameters and arrays.

    ``y = mixer(params, x)``; ``y, saved = mixer.forward(params, x)``; ``dparams, dx = mixer.backward(dy, saved)``.
    Arrays are channels-last: (b, l, c) or (b, h, w, c).
    """

    metadata = None  # set by registry.register

    def parameters(self):
        """Name -> Parameter, in a fixed order."""
        return {}

    def mix(self, p, x):
        """The equations, written with ops; run on arrays and on traced values alike."""
        raise NotImplementedError

    def init(self, rng, dtype="float32"):
        """Draw parameters with the paper's initialisation.

        Parameters
        ----------
        rng : numpy.random.Generator or int
            An int is a seed. The same generator state gives the same parameters on every machine.
        dtype : dtype
            float32, float64, float16 or bfloat16 (ml_dtypes).

        Returns
        -------
        dict of str to numpy.ndarray
            Save it with numpy.savez or safetensors.
        """
        rng = numpy.random.default_rng(rng)
        return {
            name: numpy.asarray(spec.init(rng, spec.shape)).astype(as_dtype(dtype))
            for name, spec in self._sized_parameters().items()
        }

    def _sized_parameters(self):
        """The parameters of a configuration that leaves no size open."""
        specs = self.parameters()
        if any(None in spec.shape for spec in specs.values()):
            raise ValueError(f"{self.name}: grid must be given to draw or count parameters")
        return specs

    @property
    def parameter_count(self):
        """Number of trainable values."""
        return sum(
            math.prod(s.shape) for s in self._sized_parameters().values() if s.trainable and not s.frozen
        )

    def __call__(self, params, *inputs, training=False, **options):
        """Compute without keeping anything: the output, or ``(output, state)`` with ``return_state=True``.

        With ``training=True`` batch norms use batch statistics, and the result is
        ``(output, updates)`` with the updated running statistics by name.
        """
        self._check_call(params, inputs, options)
        p = self._params(params, training)
        out = self.mix(p, *inputs, **options)
        return (out, p.updates) if training else out

    def forward(self, params, *inputs, training=False, **options):
        """Compute and keep what :meth:`backward` needs.

        Returns
        -------
        output : array, NamedTuple or ``(output, state)``
            As from calling the mixer.
        saved : MixerSaved
        """
        self._check_call(params, inputs, options)
        tape = Tape()
        specs = _specs(self)
        traced = {n: tape.value(a) if specs[n].trainable else a for n, a in params.items()}
        values = tuple(tape.value(x) for x in inputs)
        if options.get("state") is not None:
            state = options["state"]
            options["state"] = type(state)(*(tape.value(s) for s in state))
        p = self._params(traced, training)
        out = self.mix(p, *values, **options)
        flat = _flatten(out)
        if options.get("state") is not None:
            values += (options["state"],)
        saved = MixerSaved(tape, traced, values, out)
        plain = _map(graph.stop_gradient, out) if len(flat) > 1 else graph.stop_gradient(out)
        return ((plain, p.updates) if training else plain), saved

    def backward(self, dy, saved, dstate=None, keep=False):
        """Gradients of ``sum(y * dy)`` (plus ``sum(state * dstate)``).

        Parameters
        ----------
        dy : array, or the structure of the outputs
            Cotangent; None for an output that took no part.
        saved : MixerSaved
            From :meth:`forward`. Used once: each saved value is freed as the sweep passes it.
        dstate : NamedTuple, optional
            Cotangent of the returned state (``return_state=True``).
        keep : bool
            Keep the saved values for another backward.

        Returns
        -------
        dparams : dict
            The keys of params; None for running statistics.
        dx : array or tuple
            One gradient per input, in order; a state that was given counts as the last input.
        """
        tape, params, inputs, out = saved
        if _is_state_pair(out):
            y, state = out
            pairs = self._pairs(y, dy) + (self._pairs(state, dstate) if dstate is not None else [])
        else:
            pairs = self._pairs(out, dy)
        traced = [v for v in params.values() if isinstance(v, Value)]
        targets = traced + _flatten(inputs)
        gradients = tape.backward(pairs, targets, keep=keep)
        gradients = [
            graph.zeros_like(t.array, t.shape) if g is None else g.astype(t.dtype, copy=False)
            for t, g in zip(targets, gradients)
        ]
        found = iter(gradients)
        dparams = {n: next(found) if isinstance(v, Value) else None for n, v in params.items()}
        dinputs = tuple(_map(lambda _: next(found), value) for value in inputs)
        return dparams, dinputs[0] if len(dinputs) == 1 else dinputs

    def initial_state(self, batch, dtype="float32", params=None):
        """The state before the first token (recurrent mixers): a NamedTuple of zeros, or of what params say."""
        raise NotImplementedError(f"{self.name}: has no state; recurrent mixers are those with step()")

    def step(self, params, x, state):
        """One token (b, c) and the state in, one token and the new state out (recurrent mixers)."""
        raise NotImplementedError(f"{self.name}: has no state; recurrent mixers are those with step()")

    @property
    def name(self):
        """The registered name, for messages."""
        return self.metadata.name if self.metadata else type(self).__name__

    def check_input(self, x, *others):
        """Check x against dim, the number of token axes and, where parameters are tied to it, the grid.

        A mixer with further inputs, or with other demands on the grid, extends this.
        """
        ranks = self.metadata.ranks if self.metadata else (1, 2)
        letters = {1: "(b, l, c)", 2: "(b, h, w, c)"}
        shape = tuple(x.shape)
        wanted = " or ".join(letters[r] for r in ranks)
        if len(shape) - 2 not in ranks or shape[-1] != self.dim:
            raise ValueError(f"{self.name}: x must have shape {wanted} with c = {self.dim}, got {shape}")
        grid = getattr(self, "grid", None)
        if grid is not None and not self.accepts_grid(shape[1:-1]):
            raise ValueError(
                f"{self.name}: x must have the token grid {tuple(grid)} that its parameters are made for, "
                f"got {shape[1:-1]}; create the mixer with grid={shape[1:-1]}"
            )

    def accepts_grid(self, grid):
        """Whether x may have this token grid; by default exactly ``self.grid``."""
        return tuple(grid) == tuple(self.grid)

    def _check_call(self, params, inputs, options):
        specs = _specs(self)
        names = input_names(type(self))
        if not len(required_inputs(type(self))) <= len(inputs) <= len(names):
            raise TypeError(f"{self.name}: expects the inputs {', '.join(names)}, got {len(inputs)} arrays")
        for name, x in zip(names, inputs):
            if not hasattr(x, "shape") or not hasattr(x, "dtype"):
                raise TypeError(f"{self.name}: {name} must be an array, got {type(x).__name__}")
            _checks.floating(self.name, name, x)
        missing = [n for n in specs if n not in params]
        surplus = [n for n in params if n not in specs]
        if missing or surplus:
            parts = [
                f"{what} {', '.join(ns)}" for what, ns in (("missing", missing), ("surplus", surplus)) if ns
            ]
            raise ValueError(
                f"{self.name}: params must have the keys {', '.join(specs) or '(none)'}; {'; '.join(parts)}"
            )
        for name, spec in specs.items():
            got = getattr(params[name], "shape", None)
            if (
                got is None
                or len(got) != len(spec.shape)
                or any(s not in (None, g) for s, g in zip(spec.shape, got))
            ):
                raise ValueError(
                    f"{self.name}: params[{name!r}] must have shape {tuple(spec.shape)}, "
                    f"got {got if got is not None else type(params[name]).__name__}"
                )
            _checks.floating(self.name, f"params[{name!r}]", params[name])
        known = _option_names(type(self))
        for name in options:
            if name not in known:
                raise TypeError(f"{self.name}: has no option {name!r}; known: {', '.join(known) or '(none)'}")
        backend.select(self.name, {**dict(zip(names, inputs)), **params})
        self.check_input(*inputs)

    def _params(self, params, training):
        p = Params(params)
        p.training, p.updates = training, {}
        return p

    def _pairs(self, out, dout):
        outs = _flatten(out)
        douts = list(dout) if isinstance(dout, tuple | list) else [dout] + [None] * (len(outs) - 1)
        if len(douts) != len(outs):
            raise ValueError(f"{self.name}: dy must have {len(outs)} parts like the output, got {len(douts)}")
        for o, d in zip(outs, douts):
            if d is not None and tuple(getattr(d, "shape", ())) != tuple(o.shape):
                raise ValueError(
                    f"{self.name}: dy must have the shape of the output {tuple(o.shape)}, "
                    f"got {tuple(d.shape) if hasattr(d, 'shape') else d!r}"
                )
        return [(o, d) for o, d in zip(outs, douts) if isinstance(o, Value)]


@functools.lru_cache(maxsize=1024)
def _specs(mixer):
    # a mixer is frozen, so its parameters never change
    return mixer.parameters()


@functools.cache
def input_names(cls):
    """The arrays that ``mix`` of a mixer class takes besides the parameters, with their defaults."""
    parameters = list(inspect.signature(cls.mix).parameters.values())[2:]
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def required_inputs(cls):
    """Those of :func:`input_names` that must be given."""
    return [name for name, default in input_names(cls).items() if default is inspect.Parameter.empty]


@functools.cache
def _option_names(cls):
    return [p.name for p in inspect.signature(cls.mix).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _is_state_pair(out):
    """(output, state): a plain tuple whose second part is a NamedTuple."""
    return type(out) is tuple and len(out) == 2 and hasattr(out[1], "_fields")


def _flatten(value):
    return [leaf for part in value for leaf in _flatten(part)] if isinstance(value, tuple) else [value]


def _map(function, value):
    if not isinstance(value, tuple):
        return function(value)
    parts = [_map(function, part) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def as_dtype(dtype):
    """The NumPy dtype of a name, bfloat16 included."""
    if dtype == "bfloat16":
        import ml_dtypes

        return numpy.dtype(ml_dtypes.bfloat16)
    return numpy.dtype(dtype)
