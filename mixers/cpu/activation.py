"""Activations with parameters or with a second factor on the CPU: one pass over memory each."""

import functools

from mixers.cpu import activations, aligned
from mixers.cpu.activations import activate, activate_derivative
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import helper, kernel, run, tasks
from mixers.cpu.simd import lanes, load, load_first, select, store, store_first, sum_lanes, zeros

# values per task, and per sum within a task: multiples of every number of lanes
_TASK = 1 << 14
_PART = 1 << 10


@helper
def _rectified(x):
    # a comparison leaves NaN
    return select(x < 0.0, 0.0, x)


@kernel
def _star_relu_tasks(x, y, scale, bias, counter):
    for task in tasks(counter):
        begin, end = task * _TASK, min((task + 1) * _TASK, x.size)
        rest = (end - begin) % lanes(x)
        for i in range(begin, end - rest, lanes(x)):
            r = _rectified(load(x, i))
            store(y, i, scale * (r * r) + bias)
        if rest:
            r = _rectified(load_first(x, end - rest, rest))
            store_first(y, end - rest, scale * (r * r) + bias, rest)


@kernel
def _star_relu_backward_tasks(x, dy, dx, sums, scale, counter):
    """dx, and per task the sums of dy r^2 and dy."""
    for task in tasks(counter):
        squares, total = zeros(x), zeros(x)
        end = min((task + 1) * _TASK, x.size)
        # sums of sums keep their rounding small
        for begin in range(task * _TASK, end, _PART):
            stop = min(begin + _PART, end)
            rest = (stop - begin) % lanes(x)
            part_squares, part_total = zeros(x), zeros(x)
            for i in range(begin, stop - rest, lanes(x)):
                r, d = _rectified(load(x, i)), load(dy, i)
                store(dx, i, (scale + scale) * (r * d))
                part_squares = part_squares + d * (r * r)
                part_total = part_total + d
            if rest:
                r, d = _rectified(load_first(x, stop - rest, rest)), load_first(dy, stop - rest, rest)
                store_first(dx, stop - rest, (scale + scale) * (r * d), rest)
                part_squares = part_squares + d * (r * r)
                part_total = part_total + d
            squares, total = squares + part_squares, total + part_total
        sums[2 * task], sums[2 * task + 1] = sum_lanes(squares), sum_lanes(total)


def star_relu_forward(x, scale=None, bias=None, save=True):
    """One read, one write."""
    y = aligned.empty(x.shape, x.dtype)
    numbers = _number(scale, x, 1.0), _number(bias, x, 0.0)
    run(_star_relu_tasks, -(-x.size // _TASK), aligned.flat(x), y.reshape(-1), *numbers, work=3 * x.size)
    return y, ()


def star_relu_backward(dout, saved):
    """dx and both sums in one pass; the tasks' sums are added in a fixed order."""
    x, scale, bias = saved.x, saved.scale, saved.bias
    count = -(-x.size // _TASK)
    dx, sums = aligned.empty(x.shape, x.dtype), aligned.empty((count, 2), x.dtype)
    arrays = aligned.flat(x), aligned.flat(dout), dx.reshape(-1), sums.reshape(-1)
    run(_star_relu_backward_tasks, count, *arrays, _number(scale, x, 1.0), work=4 * x.size)
    dscale, dbias = sum_rows(sums).reshape(2, 1)
    return dx, None if scale is None else dscale.copy(), None if bias is None else dbias.copy()


def _number(array, x, default):
    """The value of an array of one element, of the dtype of x."""
    return x.dtype.type(default if array is None else array[0])


@functools.cache
def _gate_kernels(kind):
    """The forward and the backward kernel with one activation; -1 is none.

    Arrays are rows of `layout` = (values in a row, from row to row of each array but the results, rows per task,
    values in all). A last row may be shorter.
    """

    @kernel
    def forward(x, z, y, layout, counter):
        c, x_row, z_row, rows, size = layout
        for task in tasks(counter):
            for row in range(task * rows, min((task + 1) * rows, -(-size // c))):
                count = min(c, size - row * c)
                rest = count % lanes(x)
                for j in range(0, count - rest, lanes(x)):
                    value = activate(kind, load(x, row * x_row + j))
                    store(y, row * c + j, value * load(z, row * z_row + j))
                if rest:
                    j = count - rest
                    value = activate(kind, load_first(x, row * x_row + j, rest))
                    store_first(y, row * c + j, value * load_first(z, row * z_row + j, rest), rest)

    @helper
    def pull(x, z, d):
        if kind < 0:
            return d * z, d * x
        return d * z * activate_derivative(kind, x), d * activate(kind, x)

    @kernel
    def backward(x, z, dy, dx, dz, layout, counter):
        c, x_row, z_row, dy_row, rows, size = layout
        for task in tasks(counter):
            for row in range(task * rows, min((task + 1) * rows, -(-size // c))):
                count = min(c, size - row * c)
                rest = count % lanes(x)
                for j in range(0, count - rest, lanes(x)):
                    d = load(dy, row * dy_row + j)
                    of_x, of_z = pull(load(x, row * x_row + j), load(z, row * z_row + j), d)
                    store(dx, row * c + j, of_x)
                    store(dz, row * c + j, of_z)
                if rest:
                    j = count - rest
                    d = load_first(dy, row * dy_row + j, rest)
                    of_x, of_z = pull(
                        load_first(x, row * x_row + j, rest), load_first(z, row * z_row + j, rest), d
                    )
                    store_first(dx, row * c + j, of_x, rest)
                    store_first(dz, row * c + j, of_z, rest)

    return forward, backward


def gate_forward(x, z, activation="gelu", save=True):
    """Two reads, one write."""
    y = aligned.empty(x.shape, x.dtype)
    arrays, layout, count = _rows(x, z)
    forward, _ = _gate_kernels(_kind(activation))
    run(forward, count, *arrays, y.reshape(-1), layout, work=4 * x.size)
    return y, ()


def gate_backward(dout, saved):
    """Both gradients in one pass: the activation is computed once more, not saved."""
    x = saved.x
    dx, dz = (aligned.empty(x.shape, x.dtype) for _ in range(2))
    arrays, layout, count = _rows(x, saved.z, dout)
    _, backward = _gate_kernels(_kind(saved.activation))
    run(backward, count, *arrays, dx.reshape(-1), dz.reshape(-1), layout, work=6 * x.size)
    return dx, dz


def _kind(activation):
    return activations.number(None if activation == "none" else activation)


def _rows(*arrays):
    """The arrays as the kernels take them, the layout, and the number of tasks."""
    size = arrays[0].size
    if size == 0 or all(a.flags.c_contiguous for a in arrays):
        # one long row, cut into parts
        layout = (_TASK, *(_TASK for _ in arrays), 1, size)
        return [aligned.flat(a) for a in arrays], layout, -(-size // _TASK)
    c = arrays[0].shape[-1]
    rows = max(1, _TASK // c)
    flat, steps = zip(*map(aligned.strided_rows, arrays))
    return flat, (c, *steps, rows, size), -(-size // (rows * c))
