"""Activations by number, so that one kernel source serves them all.

Kernels come from a factory that captures the number, and ``activate(kind, x)`` is then the code of that
activation alone::

    def _kernel(kind):
        @kernel
        def apply(x, y, counter):
            ...store(y, i, activate(kind, load(x, i)))
        return apply
"""

from numba import types
from numba.extending import overload

from mixers.cpu import vector_math
from mixers.cpu.runner import INLINED
from mixers.cpu.simd import select, zeros
from mixers.cpu.vector_math import elementary, logistic, sincos, tanh


@elementary()
def _relu(x):
    return select(x < 0.0, 0.0, x)


@elementary()
def _step(x):
    return select(x > 0.0, 1.0, zeros(x))


@elementary()
def _sigmoid_derivative(x):
    return logistic(x)[1]


@elementary()
def _tanh_derivative(x):
    y = tanh(x)
    return 1.0 - y * y


@elementary()
def _sin(x):
    return sincos(x)[0]


@elementary()
def _cos(x):
    return sincos(x)[1]


@elementary()
def _absolute(x):
    return abs(x)


@elementary()
def _sign(x):
    # the last choice leaves zeros and NaN
    return select(x > 0.0, 1.0, select(x < 0.0, -1.0, x))


_FUNCTIONS = {
    "gelu": (vector_math.gelu, vector_math.gelu_derivative),
    "gelu_tanh": (vector_math.gelu_tanh, vector_math.gelu_tanh_derivative),
    "silu": (vector_math.silu, vector_math.silu_derivative),
    "relu": (_relu, _step),
    "sigmoid": (vector_math.sigmoid, _sigmoid_derivative),
    "tanh": (vector_math.tanh, _tanh_derivative),
    "softplus": (vector_math.softplus, vector_math.sigmoid),
    "sin": (_sin, _cos),
    "exp": (vector_math.exp, vector_math.exp),
    "absolute": (_absolute, _sign),
}
_BY_NUMBER = list(_FUNCTIONS.values())


def number(name):
    """The number that stands for an activation: "gelu", "gelu_tanh", "silu", "relu", "sigmoid", "tanh",
    "softplus", "sin", "exp" or "absolute"; -1, which activates nothing, for None.

    >>> number("gelu"), number(None)
    (0, -1)
    """
    return -1 if name is None else list(_FUNCTIONS).index(name)


def activate(kind, x):
    """The activation with this (constant) number of a vector or a number."""
    raise NotImplementedError("activate is for kernels")


def activate_derivative(kind, x):
    """The derivative of the activation with this (constant) number."""
    raise NotImplementedError("activate_derivative is for kernels")


@overload(activate, jit_options=INLINED, prefer_literal=True)
def _activate(kind, x):
    if not isinstance(kind, types.IntegerLiteral):
        return None
    if kind.literal_value < 0:
        return lambda kind, x: x
    function = _BY_NUMBER[kind.literal_value][0]
    return lambda kind, x: function(x)


@overload(activate_derivative, jit_options=INLINED, prefer_literal=True)
def _activate_derivative(kind, x):
    if not isinstance(kind, types.IntegerLiteral):
        return None
    function = _BY_NUMBER[kind.literal_value][1]
    return lambda kind, x: function(x)
