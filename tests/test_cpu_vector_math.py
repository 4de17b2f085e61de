"""Elementary functions of vectors: errors against extended precision, limits, and use in kernels."""

import platform
import subprocess
import sys

import numba
import numpy
import pytest
import scipy.special
from numpy.testing import assert_array_equal

from mixers.cpu import vector_math
from mixers.cpu.simd import BITS, lanes, load, store

exact = numpy.longdouble

# x86 registers of 128 bits come without a fused multiply-add
SLACK = 3 if BITS == 128 and platform.machine() in ("x86_64", "AMD64") else 1


def over_array(function):
    @numba.njit(error_model="numpy")
    def apply(x, y):
        for i in range(0, x.size, lanes(x)):
            store(y, i, function(load(x, i)))

    return apply


def one_by_one(function):
    @numba.njit(error_model="numpy")
    def apply(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return apply


def sine(x):
    return vector_math.sincos(x)[0]


def cosine(x):
    return vector_math.sincos(x)[1]


def near_sine(x):
    return vector_math.sincos_near(x)[0]


def near_cosine(x):
    return vector_math.sincos_near(x)[1]


def compute(function, x):
    """Apply a function of vectors to an array."""
    if function in (sine, cosine, near_sine, near_cosine):
        function = numba.njit(function)
    padded = numpy.append(x, numpy.zeros(-x.size % 16, x.dtype))
    y = numpy.empty_like(padded)
    over_array(function)(padded, y)
    return y[: x.size]


def normal_cdf(x):
    # twice the working precision of the float32 functions; the same as the float64 ones
    return scipy.special.ndtr(x.astype(float)).astype(exact)


def density(x):
    return numpy.exp(-x * x / 2) / numpy.sqrt(2 * exact(numpy.pi))


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def gelu_tanh_argument(x):
    return numpy.sqrt(2 / exact(numpy.pi)) * (x + exact("0.044715") * x**3)


def gelu_tanh_derivative(x):
    s = sigmoid(2 * gelu_tanh_argument(x))
    return s + x * s * (1 - s) * 2 * numpy.sqrt(2 / exact(numpy.pi)) * (1 + 3 * exact("0.044715") * x * x)


# function, exact form, interval, greatest error: relative (in ulp) for float32 and float64, or absolute
RELATIVE = [
    ("exp2", numpy.exp2, -125, 127.999, 1.0, 2),
    ("exp2_negative", numpy.exp2, -125, 0, 1.0, 2),
    ("exp", numpy.exp, -86.9, 88.7228, 1.0, 2),
    ("sigmoid", sigmoid, -86, 100, 2.5, 3),
    ("silu", lambda x: x * sigmoid(x), -86, 100, 2.5, 3),
    ("tanh", numpy.tanh, -20, 20, 1.5, 3),
    ("softplus", lambda x: numpy.log1p(numpy.exp(-abs(x))) + numpy.maximum(x, 0), -80, 100, 3, 3),
    ("sine", numpy.sin, -30, 30, 1.6, 2),
    ("cosine", numpy.cos, -30, 30, 1.6, 2),
]
ABSOLUTE = [
    ("normal_cdf", normal_cdf, -40, 40, 1e-7, 3e-16),
    ("gelu", lambda x: x * normal_cdf(x), -4, 8, 4e-7, 2e-15),
    ("gelu_derivative", lambda x: normal_cdf(x) + x * density(x), -40, 40, 2e-7, 1e-15),
    ("gelu_tanh", lambda x: x * sigmoid(2 * gelu_tanh_argument(x)), -4, 8, 6e-7, 2e-15),
    ("gelu_tanh_derivative", gelu_tanh_derivative, -30, 30, 3e-7, 2e-15),
    ("silu_derivative", lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), -80, 80, 2e-7, 1e-15),
    ("sine", numpy.sin, -2e4, 2e4, 1e-7, 2e-16),
    ("cosine", numpy.cos, -2e4, 2e4, 1e-7, 2e-16),
    ("sine", numpy.sin, 2e4, 1e6, 1e-7, 2e-16),
]


def function_named(name):
    return {"sine": sine, "cosine": cosine}.get(name) or getattr(vector_math, name)


def grid(low, high, dtype):
    points = numpy.linspace(low, high, 400_000)
    small = numpy.geomspace(1e-30, 1, 20_000)
    points = numpy.concatenate([points, small, -small]).astype(dtype)
    return points[(points >= low) & (points <= high)]


def measured(name, form, low, high, dtype):
    x = grid(low, high, dtype)
    return compute(function_named(name), x), form(x.astype(exact))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, form, low, high, single, double", RELATIVE, ids=[row[0] for row in RELATIVE])
def test_error_in_ulp(name, form, low, high, single, double, dtype):
    got, wanted = measured(name, form, low, high, dtype)
    step = numpy.spacing(numpy.maximum(abs(wanted), numpy.finfo(dtype).tiny).astype(dtype)).astype(exact)
    assert (abs(got - wanted) / step).max() <= (single * SLACK if dtype == "float32" else double)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, form, low, high, single, double", ABSOLUTE, ids=[row[0] for row in ABSOLUTE])
def test_absolute_error(name, form, low, high, single, double, dtype):
    got, wanted = measured(name, form, low, high, dtype)
    assert abs(got - wanted).max() <= (single * SLACK if dtype == "float32" else double)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("near, full", [(near_sine, sine), (near_cosine, cosine)])
def test_sines_without_the_test_for_large_values(near, full, dtype):
    x = numpy.append(grid(-2e4, 2e4, dtype), numpy.array([2e4, -2e4, numpy.nan], dtype))
    assert_array_equal(compute(near, x), compute(full, x))


inf, nan = numpy.inf, numpy.nan
LIMITS = [
    ("exp2", [-inf, -1000, 0, 1, 10, 129, inf, nan], [0, 0, 1, 2, 1024, inf, inf, nan]),
    ("exp2_negative", [-inf, -1e30, -2000, -1, 0, nan], [0, 0, 0, 0.5, 1, nan]),
    ("exp", [-inf, -1e30, 0, 90, 1e30, inf, nan], [0, 0, 1, inf, inf, inf, nan]),
    ("sigmoid", [-inf, -1e30, 0, 1e30, inf, nan], [0, 0, 0.5, 1, 1, nan]),
    ("silu", [-1e30, 0, 1e30, inf, -inf, nan], [-0.0, 0, 1e30, inf, nan, nan]),
    ("tanh", [-inf, -1e30, 0, 1e30, inf, nan], [-1, -1, 0, 1, 1, nan]),
    ("normal_cdf", [-inf, -1e30, 0, 1e30, inf, nan], [0, 0, 0.5, 1, 1, nan]),
    ("gelu", [-1e30, 0, 1e30, inf, -inf, nan], [-0.0, 0, 1e30, inf, nan, nan]),
    ("gelu_derivative", [-1e30, 0, 1e30, nan], [0, 0.5, 1, nan]),
    ("gelu_tanh", [-1e30, 0, 1e30, inf, -inf, nan], [-0.0, 0, 1e30, inf, nan, nan]),
    ("gelu_tanh_derivative", [0, 1e30, inf, nan], [0.5, 1, 1, nan]),
    ("softplus", [-inf, -1e30, 1e30, inf, nan], [0, 0, 1e30, inf, nan]),
    ("sine", [0, -inf, inf, nan], [0, nan, nan, nan]),
    ("cosine", [0, -inf, inf, nan], [1, nan, nan, nan]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, points, values", LIMITS, ids=[row[0] for row in LIMITS])
def test_limits(name, points, values, dtype):
    if name == "exp" and dtype == "float64":
        points = [710 if p == 90 else p for p in points]
    if name == "exp2" and dtype == "float64":
        points = [p * 8 if abs(p) > 100 else p for p in points]
    got = compute(function_named(name), numpy.array(points, dtype))
    assert_array_equal(got, numpy.array(values, dtype))
    # a vector may hold ordinary values beside these
    mixed = compute(function_named(name), numpy.append(points, [0.5]).astype(dtype))
    assert_array_equal(mixed[-1:], compute(function_named(name), numpy.array([0.5], dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp2", "exp", "sigmoid", "silu", "tanh", "gelu", "softplus"])
def test_numbers_give_what_vectors_give(name, dtype):
    function = getattr(vector_math, name)
    x = numpy.linspace(-30, 30, 1001).astype(dtype)
    y = numpy.empty_like(x)
    one_by_one(function)(x, y)
    step = 2 * numpy.finfo(dtype).eps
    numpy.testing.assert_allclose(y, compute(function, x), rtol=step, atol=0)


def test_kernels_that_use_them_are_kept(tmp_path):
    source = """
import numpy
from mixers.cpu.runner import kernel
from mixers.cpu.simd import load, store
from mixers.cpu.vector_math import gelu

@kernel
def work(x, counter):
    store(x, 0, gelu(load(x, 0)))

if __name__ == "__main__":
    work(numpy.zeros(16, "float32"), numpy.zeros(24, numpy.int64))
    print(sum(work.stats.cache_hits.values()))
"""
    (tmp_path / "module.py").write_text(source)
    run = [sys.executable, str(tmp_path / "module.py")]
    hits = [subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert hits == ["0", "1"]
