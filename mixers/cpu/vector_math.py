"""Elementary functions of vectors, and of single numbers, for use in kernels.

float32 is computed by polynomials; their errors stand in the docstrings, in units of the last place (ulp) of
the exact result, for results of at least 1.7e-38 (smaller ones may be 0). Processors without a fused
multiply-add have up to three times these errors. float64, and the few float32 arguments beyond the range of
a polynomial, go through the C library lane by lane, within 3 ulp. NaN gives NaN everywhere.
"""

import math

import numpy
from numba import types
from numba.extending import intrinsic, overload

from mixers.cpu.runner import INLINED, helper
from mixers.cpu.simd import (
    any_lane,
    bits,
    clamp,
    from_bits,
    lane,
    lanes,
    mul_add,
    select,
    single,
    with_lane,
)
from mixers.cpu.vector_type import Vector, as_vectors, call


def elementary(double=None):
    """Let kernels call the function: for float32 vectors as written, for float64 vectors `double` if given.

    A number is computed as a vector with one lane.
    """

    def define(function):
        @overload(function, jit_options=INLINED)
        def choose(x):
            if isinstance(x, types.Float):
                return lambda x: lane(function(single(x)), 0)
            if isinstance(x, Vector) and x.floating:
                return double if double and x.element == types.float64 else function
            return None

        return function

    return define


def polynomial(*coefficients):
    """A function of vectors for kernels: the polynomial with these coefficients, the constant first."""

    @intrinsic
    def evaluate(typing, x):
        if not isinstance(x, Vector) or not x.floating:
            return None

        def generate(context, builder, signature, args):
            constants = [context.get_constant(x.element, c) for c in coefficients]
            *terms, result = as_vectors(context, builder, x, [x.element] * len(constants), constants)
            for term in reversed(terms):
                result = call(builder, "llvm.fmuladd", x, [result, args[0], term])
            return result

        return x(x), generate

    return evaluate


_LOG2_E = math.log2(math.e)

# added to a float32 below 2^22 in size this rounds to a whole number, which then is in the last bits
_ROUND = 12582912.0

# 2^r on [-1/2, 1/2] to the rounding of float32, exactly 1 at 0
fraction_power = polynomial(
    1.0,
    0.6931472028550494,
    0.24022647913631054,
    0.05550332471151603,
    0.00961843735752832,
    0.0013398874405831096,
    0.00015353361925973807,
)


def _exp2_double(x):
    for i in range(lanes(x)):
        x = with_lane(x, i, numpy.exp2(lane(x, i)))
    return x


@elementary(_exp2_double)
def exp2(x):
    """2^x, within 1.0 ulp."""
    x = clamp(x, -126.0, 128.0)
    shifted = x + _ROUND
    power = fraction_power(x - (shifted - _ROUND))
    # with half the scale, which is finite wherever the result is
    return (power + power) * from_bits((bits(shifted) << 23) + 0x3F000000)


@elementary(_exp2_double)
def exp2_negative(x):
    """2^x for x <= 0 only, within 1.0 ulp; a little faster than :func:`exp2`."""
    x = select(x < -127.0, -127.0, x)
    shifted = x + _ROUND
    return fraction_power(x - (shifted - _ROUND)) * from_bits((bits(shifted) << 23) + 0x3F800000)


_exponential = polynomial(
    0.49999993451699276,
    0.1666652068982982,
    0.04166838736313139,
    0.008368709824434897,
    0.0013814613167815557,
)


def _exp_double(x):
    for i in range(lanes(x)):
        x = with_lane(x, i, math.exp(lane(x, i)))
    return x


@elementary(_exp_double)
def exp(x):
    """e^x, within 1.0 ulp."""
    x = clamp(x, -87.34, 88.73)
    shifted = mul_add(x, _LOG2_E, _ROUND)
    k = shifted - _ROUND
    # k ln 2 in two parts, of which the first is exact
    r = mul_add(k, 2.12194440e-4, mul_add(k, -0.693359375, x))
    power = mul_add(_exponential(r), r * r, r) + 1.0
    return (power + power) * from_bits((bits(shifted) << 23) + 0x3F000000)


@elementary()
def sigmoid(x):
    """1 / (1 + e^-x), within 2.5 ulp."""
    return 1.0 / (1.0 + exp(-x))


@elementary()
def silu(x):
    """x / (1 + e^-x), within 2.5 ulp; NaN at -inf."""
    return x / (1.0 + exp(-x))


@helper
def logistic(x):
    """The sigmoid s and its derivative s (1 - s), without cancellation."""
    e = exp(-abs(x))
    upper = 1.0 / (1.0 + e)
    lower = e * upper
    return select(x < 0.0, lower, upper), lower * upper


@elementary()
def silu_derivative(x):
    """s (1 + x (1 - s)) with s = sigmoid(x), within 2e-7; NaN at infinity."""
    s, ds = logistic(x)
    return mul_add(x, ds, s)


_tanh_small = polynomial(-0.333332819, 0.133314422, -0.0537397117, 0.0206390885, -0.005704987)


def _tanh_double(x):
    for i in range(lanes(x)):
        x = with_lane(x, i, math.tanh(lane(x, i)))
    return x


@elementary(_tanh_double)
def tanh(x):
    """Hyperbolic tangent, within 1.5 ulp."""
    a = abs(x)
    z = x * x
    small = mul_add(_tanh_small(z), z * x, x)
    large = 1.0 - 2.0 / (1.0 + exp(a + a))
    return select(a < 0.625, small, select(x < 0.0, -large, large))


# log2 of the normal distribution's left tail, fitted on [0, 9] and falling beyond
_tail_exponent = polynomial(
    -1.0,
    -1.1511049595698533,
    -0.45921232076670876,
    -0.052473866368318606,
    0.007007913690001819,
    -6.378676945809205e-5,
    -2.403866607878869e-4,
    6.212174822160571e-5,
    -7.973294709744816e-6,
    5.335138128343897e-7,
    -1.4681674524336829e-8,
)


def _normal_cdf_double(x):
    for i in range(lanes(x)):
        x = with_lane(x, i, 0.5 * math.erfc(lane(x, i) * -math.sqrt(0.5)))
    return x


@elementary(_normal_cdf_double)
def normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2, within 1e-7."""
    tail = exp2_negative(_tail_exponent(abs(x)))
    return select(x < 0.0, tail, 1.0 - tail)


@elementary()
def gelu(x):
    """x Phi(x), within 4e-7 on [-4, 8]; NaN at -inf."""
    return x * normal_cdf(x)


_HALF_LOG2_E = 0.5 * _LOG2_E
_NORMAL_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


@elementary()
def gelu_derivative(x):
    """Phi(x) + x phi(x), within 2e-7; NaN at infinity."""
    density = _NORMAL_DENSITY_AT_0 * exp2_negative(x * x * -_HALF_LOG2_E)
    return mul_add(x, density, normal_cdf(x))


_GELU_SCALE = 2 * math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


@elementary()
def gelu_tanh(x):
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, within 6e-7 on [-4, 8]; NaN at -inf."""
    return x * sigmoid(_GELU_SCALE * x * mul_add(x * x, _GELU_CUBE, 1.0))


@elementary()
def gelu_tanh_derivative(x):
    """Derivative of :func:`gelu_tanh`, within 3e-7."""
    # beyond, it is 0 or 1, and the cube could overflow
    x = clamp(x, -10.0, 10.0)
    z = x * x
    s, ds = logistic(_GELU_SCALE * x * mul_add(z, _GELU_CUBE, 1.0))
    return mul_add(x * _GELU_SCALE * mul_add(z, 3 * _GELU_CUBE, 1.0), ds, s)


# log(1 + u) / u on [0, 1]
_log1p_ratio = polynomial(
    0.9999999698795502,
    -0.4999949314036455,
    0.3331909680527967,
    -0.24842982196120963,
    0.1910600669303247,
    -0.1366324565197771,
    0.07822595020221373,
    -0.02950523775094456,
    0.005232694008525815,
)


def _softplus_double(x):
    for i in range(lanes(x)):
        value = lane(x, i)
        x = with_lane(x, i, (value if value > 0.0 else 0.0) + math.log1p(math.exp(-abs(value))))
    return x


@elementary(_softplus_double)
def softplus(x):
    """log(1 + e^x), within 3 ulp."""
    u = exp(-abs(x))
    return mul_add(u, _log1p_ratio(u), select(x > 0.0, x, 0.0))


_sine = polynomial(-0.16666654609542816, 0.008332160761588972, -1.9515283162735778e-4)
_cosine = polynomial(0.041666645682973014, -0.0013887316254249282, 2.443315704713997e-5)


@helper
def _sincos_lanes(x):
    sines = cosines = x
    for i in range(lanes(x)):
        sines = with_lane(sines, i, math.sin(lane(x, i)))
        cosines = with_lane(cosines, i, math.cos(lane(x, i)))
    return sines, cosines


@helper
def _sincos_near(x):
    shifted = mul_add(x, 2 / math.pi, _ROUND)
    k = shifted - _ROUND
    # k pi / 2 in three parts, of which the first two are exact
    r = mul_add(k, -7.549789948768648e-8, mul_add(k, -4.837512969970703e-4, mul_add(k, -1.5703125, x)))
    z = r * r
    sine = mul_add(r * z, _sine(z), r)
    cosine = mul_add(z * z, _cosine(z), mul_add(z, -0.5, 1.0))
    # the quarter turn swaps the two and sets the signs
    quarter = bits(shifted)
    odd = (quarter & 1) != 0
    sines = bits(select(odd, cosine, sine)) ^ ((quarter & 2) << 30)
    cosines = bits(select(odd, sine, cosine)) ^ (((quarter + 1) & 2) << 30)
    return from_bits(sines), from_bits(cosines)


def _sincos_single(x):
    return _sincos_lanes(x) if any_lane(far(x)) else _sincos_near(x)


@helper
def far(x):
    """Mask of the lanes that are too large for :func:`sincos_near`."""
    return abs(x) > 2e4


def sincos(x):
    """Sine and cosine of a vector as a pair, within 1e-7; within 1.6 ulp on [-30, 30]."""
    raise NotImplementedError("sincos is for kernels")


@overload(sincos, jit_options=INLINED)
def _sincos(x):
    if not isinstance(x, Vector) or not x.floating:
        return None
    return _sincos_single if x.element == types.float32 else _sincos_lanes.py_func


def sincos_near(x):
    """:func:`sincos` without its test for lanes that are :func:`far`, which takes as long as the rest."""
    raise NotImplementedError("sincos_near is for kernels")


@overload(sincos_near, jit_options=INLINED)
def _sincos_of_near(x):
    if not isinstance(x, Vector) or not x.floating:
        return None
    return _sincos_near.py_func if x.element == types.float32 else _sincos_lanes.py_func
