"""Elementwise ops on the CPU: activations, and arithmetic with broadcasting."""

import functools

import numpy

from mixers.cpu import activations, aligned
from mixers.cpu.activations import activate, activate_derivative
from mixers.cpu.reduction import sum_to_shape
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, store, store_first

# values per task, a multiple of every number of lanes
_TASK = 1 << 14


@functools.cache
def _kernels(kind):
    """The forward and the backward kernel of one activation."""

    @kernel
    def forward(x, y, counter):
        for task in tasks(counter):
            begin, end = task * _TASK, min((task + 1) * _TASK, x.size)
            for i in range(begin, end - lanes(x) + 1, lanes(x)):
                store(y, i, activate(kind, load(x, i)))
            rest = (end - begin) % lanes(x)
            if rest:
                i = end - rest
                store_first(y, i, activate(kind, load_first(x, i, rest)), rest)

    @kernel
    def backward(x, dy, dx, counter):
        for task in tasks(counter):
            begin, end = task * _TASK, min((task + 1) * _TASK, x.size)
            for i in range(begin, end - lanes(x) + 1, lanes(x)):
                store(dx, i, load(dy, i) * activate_derivative(kind, load(x, i)))
            rest = (end - begin) % lanes(x)
            if rest:
                i = end - rest
                value = load_first(dy, i, rest) * activate_derivative(kind, load_first(x, i, rest))
                store_first(dx, i, value, rest)

    return forward, backward


def _define(name):
    kind = activations.number(name)

    def forward(x, save=True):
        y = aligned.empty(x.shape, x.dtype)
        run(_kernels(kind)[0], -(-x.size // _TASK), aligned.flat(x), y.reshape(-1), work=3 * x.size)
        return y, ()

    def backward(dout, saved):
        dx = aligned.empty(dout.shape, dout.dtype)
        arrays = aligned.flat(saved.x), aligned.flat(dout), dx.reshape(-1)
        run(_kernels(kind)[1], -(-dx.size // _TASK), *arrays, work=4 * dx.size)
        return (dx,)

    return forward, backward


gelu_forward, gelu_backward = _define("gelu")
gelu_tanh_forward, gelu_tanh_backward = _define("gelu_tanh")
silu_forward, silu_backward = _define("silu")
relu_forward, relu_backward = _define("relu")
sigmoid_forward, sigmoid_backward = _define("sigmoid")
tanh_forward, tanh_backward = _define("tanh")
softplus_forward, softplus_backward = _define("softplus")
sin_forward, sin_backward = _define("sin")
exp_forward, exp_backward = _define("exp")
absolute_forward, absolute_backward = _define("absolute")


_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE = range(4)
_IN_NUMPY = (numpy.add, numpy.subtract, numpy.multiply, numpy.divide)


@helper
def _combine(operation, a, b):
    # the operation is a constant, so that one of these remains
    if operation == _ADD:
        return a + b
    if operation == _SUBTRACT:
        return a - b
    if operation == _MULTIPLY:
        return a * b
    return a / b


@functools.cache
def _combination(operation):
    @kernel
    def combine(a, b, y, block, counter):
        """y[i, j] = a[i, j] o b[j], with a task for each block of rows and columns."""
        width = b.size
        rows, columns = block
        across = -(-width // columns)
        for task in tasks(counter):
            row, begin = task // across * rows, task % across * columns
            end = min(begin + columns, width)
            rest = (end - begin) % lanes(a)
            for start in range(row * width, min((row + rows) * width, a.size), width):
                for j in range(begin, end - rest, lanes(a)):
                    store(y, start + j, _combine(operation, load(a, start + j), load(b, j)))
                if rest:
                    j = end - rest
                    value = _combine(operation, load_first(a, start + j, rest), load_first(b, j, rest))
                    store_first(y, start + j, value, rest)

    return combine


def _apply(operation, a, b):
    """a o b with NumPy's broadcasting; by a kernel if b has the shape of a or of its last axes."""
    y = aligned.empty(numpy.broadcast_shapes(a.shape, b.shape), a.dtype)
    inner = b.shape[next((i for i, n in enumerate(b.shape) if n != 1), b.ndim) :]
    if y.shape != a.shape or a.shape[a.ndim - len(inner) :] != inner or b.size == 1:
        return _IN_NUMPY[operation](a, b, out=y)
    if y.size:
        block = max(1, _TASK // b.size), min(b.size, _TASK)
        count = -(-y.size // b.size // block[0]) * -(-b.size // block[1])
        args = aligned.flat(a), aligned.flat(b), y.reshape(-1), block
        run(_combination(operation), count, *args, work=2 * y.size)
    return y


def add_forward(a, b, save=True):
    """y = a + b."""
    return _apply(_ADD, a, b), ()


def add_backward(dout, saved):
    """da = dy, db = dy."""
    return sum_to_shape(dout, saved.a.shape), sum_to_shape(dout, saved.b.shape)


def sub_forward(a, b, save=True):
    """y = a - b."""
    return _apply(_SUBTRACT, a, b), ()


def sub_backward(dout, saved):
    """da = dy, db = -dy."""
    db = sum_to_shape(dout, saved.b.shape)
    return sum_to_shape(dout, saved.a.shape), numpy.negative(db, out=db)


def mul_forward(a, b, save=True):
    """y = a b."""
    return _apply(_MULTIPLY, a, b), ()


def mul_backward(dout, saved):
    """da = b dy, db = a dy."""
    a, b = saved.a, saved.b
    return (
        sum_to_shape(_apply(_MULTIPLY, dout, b), a.shape),
        sum_to_shape(_apply(_MULTIPLY, dout, a), b.shape),
    )


def div_forward(a, b, save=True):
    """y = a / b."""
    return _apply(_DIVIDE, a, b), ()


def div_backward(dout, saved):
    """da = dy / b, db = -a dy / b^2."""
    a, b = saved.a, saved.b
    quotient = _apply(_DIVIDE, dout, b)
    db = _apply(_MULTIPLY, quotient, _apply(_DIVIDE, a, b))
    return sum_to_shape(quotient, a.shape), sum_to_shape(numpy.negative(db, out=db), b.shape)
