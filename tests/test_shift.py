"""Shifts of channel groups, alone and before a product."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend

import mixers
from mixers import ops
from mixers.cpu import shift


def groups(*shifts):
    """One shift per channel, or such lists for several axes."""
    return numpy.array(shifts)


CYCLE = numpy.arange(33) % 3 - 1
SHIFTS = [
    ("sequence", (2, 9, 3), groups(1, 0, -1), 1),
    ("rows", (2, 5, 4, 33), CYCLE, 1),
    ("columns", (1, 4, 5, 33), CYCLE, 2),
    ("from-the-end", (2, 3, 4, 5), groups(2, 2, 0, -2, -2), -2),
    ("beyond-the-grid", (2, 3, 2, 4), groups(3, -4, 7, 0), 1),
    ("one-position", (2, 1, 3, 3), groups(1, 0, -1), 1),
    ("one-channel", (1, 31, 1), groups(-5), 1),
    ("wide", (1, 2, 3, 65), numpy.arange(65) // 13 - 2, 2),
    ("both-axes", (2, 4, 3, 33), numpy.stack([CYCLE, numpy.roll(CYCLE, 1) * 2]), (1, 2)),
    ("axes-by-groups", (2, 4, 5, 4), groups([1, -1, 0, 0], [0, 0, 1, -1]), (1, -2)),
    ("axes-apart", (2, 3, 2, 4, 5), groups([1, 0, -1, 2, 0], [0, 1, 2, -1, 0]), (3, 1)),
    ("no-tokens", (2, 0, 3), groups(1, 0, -1), 1),
    ("empty-batch", (0, 4, 3), groups(1, 0, -1), 1),
]


class TestChannelShift(OpSuite):
    op = ops.channel_shift
    cases = [
        Case(f"{mode}-{name}", {"x": shape}, {"shifts": shifts, "axis": axis, "mode": mode})
        for mode in ("zero", "clamp", "wrap")
        for name, shape, shifts, axis in SHIFTS
    ]


class TestShiftLinear(OpSuite):
    op = ops.shift_linear
    cases = [
        Case(
            f"{mode}-{name}",
            {"x": shape, "w": (shape[-1], 7), "b": (7,) if mode == "zero" else None},
            {"shifts": shifts, "axis": axis, "mode": mode},
        )
        for mode in ("zero", "clamp", "wrap")
        for name, shape, shifts, axis in SHIFTS[1:6] + SHIFTS[-5:]
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 7, 9, 40))),
    seed=st.integers(0, 99),
    reach=st.integers(0, 12),
    axis=st.sampled_from([1, 2, (1, 2), (2, 1), (1,)]),
    mode=st.sampled_from(["zero", "clamp", "wrap"]),
)
def test_any_shift(sizes, seed, reach, axis, mode):
    count = (len(axis),) if isinstance(axis, tuple) else ()
    shifts = numpy.random.default_rng(seed).integers(-reach, reach + 1, (*count, sizes[3]))
    options = {"shifts": shifts, "axis": axis, "mode": mode}
    check_backend(ops.channel_shift, Case("any", {"x": sizes}, options), "cpu", "float32")
    product = Case("any", {"x": sizes, "w": (sizes[3], 1 + seed % 50)}, options)
    check_backend(ops.shift_linear, product, "cpu", "float32")


def test_gradient_of_images_beyond_the_cache(monkeypatch):
    """Large images take another way back, to the same gradient."""
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4, 9)), rng.standard_normal((9, 6))
    shifts = numpy.stack([CYCLE[:9], 2 * CYCLE[1:10]])
    for mode in ("zero", "clamp", "wrap"):
        y, saved = ops.shift_linear.forward(x, w, shifts=shifts, axis=(1, 2), mode=mode)
        dy = rng.standard_normal(y.shape)
        want = ops.shift_linear.backward(dy, saved)
        with monkeypatch.context() as patch:
            patch.setattr(shift, "_CACHED", 0)
            got = ops.shift_linear.backward(dy, saved)
        numpy.testing.assert_allclose(got.dx, want.dx, rtol=1e-12, atol=1e-13)


def test_second_form_of_two_axes():
    """Axes are independent of each other: one after the other, in any order, gives the same."""
    x = numpy.random.default_rng(0).standard_normal((2, 6, 5, 4))
    rows, columns = groups(2, 0, -1, 7), groups(1, -2, 0, 3)
    with mixers.use_backend("reference"):
        for mode in ("zero", "clamp", "wrap"):
            got = ops.channel_shift(x, shifts=numpy.stack([rows, columns]), axis=(1, 2), mode=mode)
            first = ops.channel_shift(x, shifts=columns, axis=2, mode=mode)
            numpy.testing.assert_array_equal(got, ops.channel_shift(first, shifts=rows, axis=1, mode=mode))


def test_second_form():
    """wrap is numpy.roll per channel; zero and clamp are slices of a padded array."""
    x = numpy.random.default_rng(0).standard_normal((2, 6, 5, 4))
    shifts = groups(2, 0, -1, 7)
    with mixers.use_backend("reference"):
        got = {m: ops.channel_shift(x, shifts=shifts, axis=2, mode=m) for m in ("zero", "clamp", "wrap")}
    for c, s in enumerate(shifts):
        numpy.testing.assert_array_equal(got["wrap"][..., c], numpy.roll(x[..., c], s, axis=2))
        for mode, pad in (("zero", "constant"), ("clamp", "edge")):
            padded = numpy.pad(x[..., c], ((0, 0), (0, 0), (8, 8)), mode=pad)
            numpy.testing.assert_array_equal(got[mode][..., c], padded[:, :, 8 - s : 13 - s])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"shifts": groups(1)},
            ValueError,
            r"channel_shift: shifts must have shape \(c,\) = \(3,\), got \(1,\)",
        ),
        (
            {"shifts": [1, 2, 3]},
            TypeError,
            "channel_shift: shifts must be a NumPy array of integers, got list",
        ),
        (
            {"shifts": numpy.ones(3)},
            TypeError,
            "channel_shift: shifts must be a NumPy array of integers, got float64",
        ),
        ({"shifts": groups(1, 1, 1), "axis": 0}, ValueError, "channel_shift: axis must be a token axis of x"),
        ({"shifts": groups(1, 1, 1), "axis": 2}, ValueError, "channel_shift: axis must be a token axis of x"),
        (
            {"shifts": groups(1, 1, 1), "mode": "mirror"},
            ValueError,
            "channel_shift: mode must be one of 'zero', 'clamp', 'wrap', got 'mirror'",
        ),
        (
            {"shifts": groups(1, 1, 1), "axis": (1,)},
            ValueError,
            r"channel_shift: shifts must have shape \(a, c\) = \(1, 3\), got \(3,\)",
        ),
        (
            {"shifts": groups([1, 1, 1], [1, 1, 1]), "axis": (1, -2)},
            ValueError,
            r"channel_shift: axis must hold one or two different axes, got \(1, -2\)",
        ),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        ops.channel_shift(numpy.zeros((2, 5, 3)), **options)
