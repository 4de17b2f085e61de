"""Kernels of diagonal state-space models."""

import numpy
import pytest
from harness import Case, OpSuite

import mixers
from mixers import ops


def model(name, c, m, length, disc="zoh", imaginary=3.0, **options):
    arrays = {
        "log_dt": lambda rng: rng.uniform(-6, -2, c),
        "log_A_real": lambda rng: 0.5 * rng.standard_normal((c, m)),
        "A_imag": lambda rng: imaginary * rng.standard_normal((c, m)),
        "C_re": (c, m),
        "C_im": (c, m),
    }
    return Case(name, arrays, {"length": length, "disc": disc}, **options)


class TestS4dKernel(OpSuite):
    op = ops.s4d_kernel
    cases = [
        model("zoh", 6, 4, 32),
        model("bilinear", 5, 3, 21, "bilinear"),
        model("one-mode", 33, 1, 7),
        model("one-channel", 1, 8, 63, "bilinear"),
        model("one-token", 3, 2, 1),
        model("two-tokens", 3, 2, 2),
        model("real", 3, 2, 9, imaginary=0.0),
        model("65-tokens", 8, 5, 65),
        model("long", 3, 4, 1025, halves=False, differences=False),
        model("fast", 2, 3, 200, "bilinear", imaginary=10.0, halves=False, differences=False),
        model("no-tokens", 3, 2, 0),
        model("no-channels", 0, 2, 5),
        model("no-modes", 3, 0, 5),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_is_the_impulse_response(backend, disc):
    """Of the recurrence s <- lambda s + B u, with the textbook discretisations of a scalar state."""
    dt, A, C = 0.1, -0.7 + 2.0j, 0.3 - 1.1j
    if disc == "zoh":
        power, B = numpy.exp(dt * A), (numpy.exp(dt * A) - 1) / A
    else:
        power, B = (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)
    state, wanted = B, []
    for _ in range(50):
        wanted.append(2 * (C * state).real)
        state *= power
    full = lambda value: numpy.full((1, 1), value)
    parts = full(numpy.log(0.7)), full(2.0), full(0.3), full(-1.1)
    with mixers.use_backend(backend):
        k = ops.s4d_kernel(numpy.log([dt]), *parts, length=50, disc=disc)
    numpy.testing.assert_allclose(k[:, 0], wanted, rtol=1e-12, atol=1e-14)


def test_phases_do_not_drift():
    """At the end of a long kernel in float32, against exact powers; what remains is the rounding of the inputs."""
    length, c, m = 20_000, 3, 4
    arguments = model("drift", c, m, length).draw("float32")
    arguments["log_A_real"] -= 12
    wide = {n: a.astype("float64") if hasattr(a, "astype") else a for n, a in arguments.items()}
    k = ops.s4d_kernel(**arguments)
    A = -numpy.exp(wide["log_A_real"]) + 1j * wide["A_imag"]
    z = numpy.exp(wide["log_dt"])[:, None] * A
    C = wide["C_re"] + 1j * wide["C_im"]
    last = 2 * (C * numpy.expm1(z) / A * numpy.exp((length - 1) * z)).sum(axis=1).real
    assert numpy.abs(k[-1] - last).max() < 1e-5 * numpy.abs(k).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_dt": numpy.zeros(4)}, r"log_dt must have shape \(c,\) = \(3,\)"),
        ({"A_imag": numpy.zeros((3, 3))}, r"A_imag must have shape \(c, m\) = \(3, 2\)"),
        ({"C_re": numpy.zeros((2, 2))}, "C_re must have shape"),
        ({"C_im": numpy.zeros((2, 2))}, "C_im must have shape"),
        ({"length": -1}, "length must be an integer >= 0, got -1"),
        ({"disc": "euler"}, "disc must be one of 'zoh', 'bilinear', got 'euler'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=f"s4d_kernel: {message}"):
        ops.s4d_kernel(**{**model("errors", 3, 2, 5).draw(), **change})
