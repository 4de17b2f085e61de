"""Explicit vectors in kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy
import pytest
from numpy.testing import assert_array_equal

from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import (
    BITS,
    bits,
    clamp,
    floor,
    from_bits,
    full,
    lane,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    minimum,
    mul_add,
    prefetch,
    scalar,
    select,
    single,
    sqrt,
    square_tile,
    store,
    store_first,
    sum_lanes,
    tile,
    to_float,
    to_integer,
    transpose,
    with_lane,
    zeros,
)

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
ROWS = 3


@kernel
def arithmetic(a, b, out, counter):
    for _ in tasks(counter):
        n = a.size
        for i in range(0, n, lanes(a)):
            x, y = load(a, i), load(b, i)
            z = x + y
            z += 1
            z -= 0.25 * y
            store(out, i, z)
            store(out, n + i, (x - 2) * y / (1 + y * y))
            store(out, 2 * n + i, -abs(x))
            store(out, 3 * n + i, mul_add(x, scalar(b, 1), y))
            store(out, 4 * n + i, mul_add(2, x, 0.5))
            store(out, 5 * n + i, sqrt(abs(x)) + floor(y))


@kernel
def choices(a, b, out, counter):
    for _ in tasks(counter):
        n = a.size
        for i in range(0, n, lanes(a)):
            x, y = load(a, i), load(b, i)
            store(out, i, minimum(x, y))
            store(out, n + i, maximum(x, y))
            store(out, 2 * n + i, clamp(x, -0.5, 0.5))
            store(out, 3 * n + i, select((x < y) & (x >= 0) | (y > 1), x, 9))
            store(out, 4 * n + i, select(~(x <= y), x, y))
            store(out, 5 * n + i, select((x == x) ^ (y != y), 1, zeros(x)))
            store(out, 6 * n + i, maximum(x, 0))


@kernel
def reductions(a, out, counter):
    for _ in tasks(counter):
        v = load(a, 0)
        out[0] = sum_lanes(v)
        out[1] = max_lanes(v)
        out[2] = lane(v, 1)
        out[3] = lane(with_lane(v, 1, 7), 1)
        out[4] = lane(sqrt(single(scalar(a, 3))), 0)
        out[5] = sum_lanes(full(a, 0.5))


@kernel
def asks_ahead(a, counter):
    for _ in tasks(counter):
        for offset in (0, a.size, -(1 << 40), 1 << 40):
            prefetch(a, offset)


@kernel
def patterns(a, out, counter):
    for _ in tasks(counter):
        n, v = lanes(a), load(a, 0)
        store(out, 0, from_bits(((bits(v) >> 3) << 3) ^ 1))
        store(out, n, to_float(to_integer(v) + 1))
        store(out, 2 * n, to_float((to_integer(v) & 3) | 8))


@kernel
def parts(a, out, sums, counter):
    for _ in tasks(counter):
        for m in range(lanes(a) + 1):
            v = load_first(a, a.size - m, m)
            sums[m] = sum_lanes(v)
            store_first(out, (m + 1) * lanes(a) - m, full(a, m), m)


@kernel
def row_sums(a, out, columns, counter):
    for task in tasks(counter):
        total = tile(a, ROWS)
        for r in range(ROWS):
            total[r] = zeros(a)
        for i in range(0, columns, lanes(a)):
            for r in range(ROWS):
                total[r] = total[r] + load(a, (task * ROWS + r) * columns + i)
        for r in range(ROWS):
            out[task * ROWS + r] = sum_lanes(total[r])


@kernel
def transposed(a, out, counter):
    for _ in tasks(counter):
        n = lanes(a)
        square = square_tile(a)
        for i in range(n):
            square[i] = load(a, i * n)
        transpose(square)
        for i in range(n):
            store(out, i * n, square[i])


@kernel
def unfit(a, out, counter):
    store(out, 0, load(a, 0))


def pair(dtype, seed=0):
    generator = numpy.random.default_rng(seed)
    return generator.standard_normal((2, 4 * BITS // 32)).astype(dtype)


@dtypes
def test_arithmetic(dtype):
    a, b = pair(dtype)
    out = numpy.empty((6, a.size), dtype)
    run(arithmetic, 1, a, b, out)
    x, y = a.astype("float64"), b.astype("float64")
    expected = [
        x + y + 1 - y / 4,
        (x - 2) * y / (1 + y * y),
        -abs(x),
        x * y[1] + y,
        2 * x + 0.5,
        numpy.sqrt(abs(x)) + numpy.floor(y),
    ]
    assert out.dtype == dtype
    numpy.testing.assert_allclose(out, expected, rtol=4 * numpy.finfo(dtype).eps, atol=numpy.finfo(dtype).eps)


@dtypes
def test_choices(dtype):
    a, b = pair(dtype, seed=1)
    a[:4] = numpy.nan, 1, numpy.nan, numpy.inf
    b[:4] = 1, numpy.nan, numpy.nan, -numpy.inf
    out = numpy.empty((7, a.size), dtype)
    run(choices, 1, a, b, out)
    expected = [
        numpy.minimum(a, b),
        numpy.maximum(a, b),
        numpy.clip(a, -0.5, 0.5),
        numpy.where((a < b) & (a >= 0) | (b > 1), a, 9),
        numpy.where(~(a <= b), a, b),
        numpy.where((a == a) ^ (b != b), 1, 0),
        numpy.maximum(a, 0),
    ]
    for got, wanted in zip(out, expected, strict=True):
        assert_array_equal(got, wanted)


@dtypes
def test_lanes_and_their_reductions(dtype):
    a = numpy.arange(1, 65, dtype=dtype)
    n = lanes(a)
    assert n == BITS // (8 * a.itemsize)
    out = numpy.zeros(6, dtype)
    run(reductions, 1, a, out)
    assert_array_equal(out, [n * (n + 1) / 2, n, 2, 7, 2, n / 2])
    a[1] = numpy.nan
    run(reductions, 1, a, out)
    assert_array_equal(numpy.isnan(out), [True, True, True, False, False, False])


@dtypes
def test_bit_patterns(dtype):
    a = numpy.linspace(-9.7, 9.7, BITS // (32 if dtype == "float32" else 64)).astype(dtype)
    out = numpy.zeros((3, a.size), dtype)
    run(patterns, 1, a, out)
    unsigned = "uint32" if dtype == "float32" else "uint64"
    assert_array_equal(out[0].view(unsigned), a.view(unsigned) & ~numpy.array(7, unsigned) ^ 1)
    whole = numpy.trunc(a).astype(int)
    assert_array_equal(out[1], whole + 1)
    assert_array_equal(out[2], (whole & 3) | 8)


@dtypes
def test_parts_of_a_vector_touch_nothing_else(dtype):
    n = BITS // (32 if dtype == "float32" else 64)
    a = numpy.arange(1, n + 1, dtype=dtype)
    out, sums = numpy.zeros((n + 1, n), dtype), numpy.zeros(n + 1, dtype)
    run(parts, 1, a, out, sums)
    assert_array_equal(sums, [a[n - m :].sum() for m in range(n + 1)])
    assert_array_equal(out, [[0] * (n - m) + [m] * m for m in range(n + 1)])


@dtypes
def test_tile(dtype):
    a = numpy.random.default_rng(0).integers(-9, 9, (4 * ROWS, 128)).astype(dtype)
    out = numpy.zeros(4 * ROWS, dtype)
    run(row_sums, 4, a, out, 128)
    assert_array_equal(out, a.sum(1))


@dtypes
def test_prefetch_changes_nothing(dtype):
    a = numpy.arange(64, dtype=dtype)
    run(asks_ahead, 1, a)
    assert_array_equal(a, numpy.arange(64))


@dtypes
def test_transpose(dtype):
    n = BITS // (32 if dtype == "float32" else 64)
    a = numpy.arange(n * n, dtype=dtype).reshape(n, n)
    out = numpy.zeros_like(a)
    run(transposed, 1, a, out)
    assert_array_equal(out, a.T)


def test_strided_and_read_only_arrays_do_not_compile():
    a = numpy.zeros(64)
    fixed = a.copy()
    fixed.flags.writeable = False
    for source, target in ((a[::2], a), (a, a[::2]), (a, fixed)):
        with pytest.raises(numba.TypingError):
            run(unfit, 1, source, target)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["haswell", "x86-64"])
def test_on_other_processors(processor):
    # the files whose kernels depend on the width of the registers, compiled for narrower ones
    here = Path(__file__).parent
    files = [f"test_cpu_{name}.py" for name in ("simd", "vector_math", "matrix", "fft", "fft_filter")]
    chosen = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not other_processors", *files],
        cwd=here,
        env={**os.environ, **chosen},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
