"""Depthwise convolutions of rolled images."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops
from mixers.ops.rolled_conv import group_sizes


def rolled(name, shape, shifts, kernels, bias=True, **options):
    """A case with the flat kernels that fit the groups."""
    c = shape[-1]
    size = sum(k * k * n for k, n in zip(kernels, group_sizes(c, len(shifts))))
    arrays = {"x": shape, "w_lr": (size,), "w_td": (size,), "b": (c,) if bias else None}
    return Case(name, arrays, {"shifts": shifts, "kernels": kernels}, **options)


class TestRolledConv(OpSuite):
    op = ops.rolled_conv2d
    cases = [
        rolled("groups", (2, 5, 4, 7), (-1, 0, 2), (3, 1, 5)),
        rolled("one-group", (1, 4, 6, 33), (1,), (3,), bias=False),
        rolled("beyond-the-grid", (3, 2, 3, 4), (7, -9), (5, 3)),
        rolled("one-pixel", (2, 1, 1, 3), (1, 2), (3, 1)),
        rolled("large-kernels", (1, 3, 4, 4), (1, -1), (9, 11)),
        rolled("a-row", (1, 1, 17, 8), (3,), (3,)),
        rolled(
            "fourteen", (2, 14, 14, 40), (-2, -1, 0, 1, 2), (1, 1, 3, 5, 7), emulated=False, differences=False
        ),
        rolled("tall", (1, 65, 16, 5), (2, 1), (3, 5), emulated=False, differences=False),
        rolled("empty-batch", (0, 3, 4, 4), (1, -1), (1, 3)),
        rolled("no-rows", (2, 0, 4, 4), (1, -1), (1, 3)),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 20, 33))),
    channels=st.integers(1, 40),
    groups=st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 2)), min_size=1, max_size=3),
)
def test_any_groups(sizes, channels, groups):
    hypothesis.assume(len(group_sizes(channels, len(groups))) == len(groups))
    shifts, reaches = zip(*groups)
    kernels = tuple(2 * r + 1 for r in reaches)
    check_backend(ops.rolled_conv2d, rolled("any", (*sizes, channels), shifts, kernels), "cpu", "float32")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_second_form(backend):
    """The same as shifting, convolving and adding up."""
    case = rolled("form", (2, 6, 5, 7), (-1, 8, 2), (3, 1, 5))
    a = case.draw()
    x, shifts = a["x"], numpy.repeat(a["shifts"], group_sizes(7, 3))
    want, place, first = numpy.zeros_like(x), 0, 0
    with mixers.use_backend(backend):
        got = ops.rolled_conv2d(**a)
        for k, n in zip(a["kernels"], group_sizes(7, 3)):
            for name, axis in (("w_lr", 2), ("w_td", 1)):
                w = a[name][place : place + k * k * n].reshape(k, k, n)
                moved = ops.channel_shift(x, shifts=shifts, axis=axis, mode="wrap")[..., first : first + n]
                want[..., first : first + n] += ops.depthwise_conv2d(moved, w)
            place, first = place + k * k * n, first + n
    numpy.testing.assert_allclose(got, want + a["b"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shifts": (1, 2)}, "rolled_conv2d: kernels must be as many as shifts = 2, got 3"),
        ({"kernels": (1, 2, 3)}, "rolled_conv2d: each of kernels must be an odd integer >= 1, got 2"),
        ({"shifts": []}, r"rolled_conv2d: shifts must be a tuple of at least one integer, got \[\]"),
        ({"kernels": (3, 3, 3)}, r"rolled_conv2d: w_lr must have shape \(size,\) = \(63,\), got \(31,\)"),
        (
            {"shifts": (1,) * 5, "kernels": (1,) * 5},
            r"rolled_conv2d: x must have channels for 5 groups, got shape \(1, 4, 4, 7\)",
        ),
    ],
)
def test_errors(options, message):
    given = {"shifts": (1, 0, 1), "kernels": (1, 3, 1)} | options
    with pytest.raises(ValueError, match=message):
        ops.rolled_conv2d(numpy.zeros((1, 4, 4, 7)), numpy.zeros(31), numpy.zeros(31), **given)
