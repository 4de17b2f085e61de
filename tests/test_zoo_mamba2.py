"""Mamba-2, and what it shares with Mamba: states, packed sequences, padding."""

import dataclasses

import numpy
import pytest
from harness import BACKENDS, check_differences, check_state_gradients, device_of
from test_zoo_mlp import check_mixer

import mixers
from mixers import sequences, zoo

SMALL = zoo.Mamba2(dim=4, d_state=3, headdim=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "d_conv": 2, "conv_bias": False},
        {"ngroups": 2, "D_has_headdim": True},
        {"ngroups": 2, "norm_per_group": False, "norm_before_gate": True},
        {"ngroups": 4, "norm_before_gate": True},
        {"rmsnorm": False, "d_conv": 1},
        {"d_ssm": 4, "learnable_init_states": True, "dt_limit": (0.0, 0.05)},
        {"d_ssm": 2, "headdim": 1, "expand": 1.5, "chunk_size": 3},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_gradients(options):
    check_mixer(dataclasses.replace(SMALL, **options), (2, 7, SMALL.dim))


def test_against_the_equations_token_by_token():
    """With a gated MLP beside the scan, groups and the norm first."""
    mixer = dataclasses.replace(SMALL, d_ssm=4, ngroups=2, norm_before_gate=True, bias=True)
    p = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((1, 6, 4))
    sigmoid = lambda a: 1 / (1 + numpy.exp(-a))
    e = x[0] @ p["w_in"] + p["b_in"]
    z0, x0, z, v, dt = numpy.split(e, numpy.cumsum([4, 4, 4, 4 + 12]), axis=1)
    want, S = numpy.empty((6, 4)), numpy.zeros((2, 2, 3))
    for t in range(6):
        u = p["conv_b"] + sum(p["conv_w"][i] * v[t - 3 + i] for i in range(4) if t - 3 + i >= 0)
        u *= sigmoid(u)
        heads, B, C = u[:4].reshape(2, 2), u[4:10].reshape(2, 3), u[10:].reshape(2, 3)
        step = numpy.log1p(numpy.exp(dt[t] + p["dt_bias"]))
        decay = numpy.exp(-step * numpy.exp(p["A_log"]))
        S = decay[:, None, None] * S + (step[:, None] * heads)[..., None] * B[:, None]
        Y = (S * C[:, None]).sum(axis=-1) + p["D"][:, None] * heads
        Y = Y / numpy.sqrt((Y**2).mean(axis=1, keepdims=True) + 1e-5)
        Y = Y.ravel() * p["norm_scale"] * z[t] * sigmoid(z[t])
        both = numpy.concatenate([z0[t] * sigmoid(z0[t]) * x0[t], Y])
        want[t] = both @ p["w_out"] + p["b_out"]
    numpy.testing.assert_allclose(mixer(p, x)[0], want, rtol=1e-11, atol=1e-13)


def test_gradients_through_the_states():
    check_state_gradients(SMALL, (2, 5, 4))


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize(
    "options", [{}, {"rmsnorm": False, "d_conv": 1}, {"d_ssm": 4, "dt_limit": (0.0, 0.05)}]
)
def test_prefill_and_steps_are_the_whole(backend, options):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    mixer = dataclasses.replace(SMALL, chunk_size=8, **options)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 20, 4))
    with device_of(backend) as (to, back):
        params = {n: to(p) for n, p in params.items()}
        whole, last = mixer(params, to(x), return_state=True)
        y, state = mixer(params, to(x[:, :2]), return_state=True)
        parts = [back(y)]
        y, state = mixer(params, to(x[:, 2:17]), state=state, return_state=True)
        parts.append(back(y))
        for t in range(17, 20):
            y, state = mixer.step(params, to(x[:, t]), state)
            parts.append(back(y)[:, None])
        numpy.testing.assert_allclose(numpy.concatenate(parts, axis=1), back(whole), rtol=1e-11, atol=1e-13)
        for got, want in zip(state, last):
            numpy.testing.assert_allclose(back(got), back(want), rtol=1e-11, atol=1e-13)


def test_steps_from_the_initial_state():
    params = SMALL.init(0)
    x = numpy.random.default_rng(1).standard_normal((2, 5, 4)).astype("float32")
    state = SMALL.initial_state(2)
    ys = []
    for t in range(5):
        y, state = SMALL.step(params, x[:, t], state)
        ys.append(y)
    numpy.testing.assert_allclose(numpy.stack(ys, axis=1), SMALL(params, x), rtol=1e-4, atol=1e-5)


def test_the_initial_state_of_params():
    """With learnt states before the first token it is those, and of the array type of the parameters."""
    mixer = dataclasses.replace(SMALL, learnable_init_states=True)
    params = mixer.init(0, dtype="float64")
    params["init_states"] = numpy.random.default_rng(0).standard_normal(params["init_states"].shape)
    x = numpy.random.default_rng(1).standard_normal((2, 5, 4))
    state = mixer.initial_state(2, dtype="float64", params=params)
    numpy.testing.assert_allclose(mixer(params, x, state=state), mixer(params, x), rtol=1e-12)
    if "emulated" in BACKENDS:
        with device_of("emulated") as (to, back):
            params = {n: to(p) for n, p in params.items()}
            y, _ = mixer.step(params, to(x[:, 0]), mixer.initial_state(2, "float64", params))
            numpy.testing.assert_allclose(back(y), back(mixer(params, to(x)))[:, 0], rtol=1e-11)


@pytest.mark.parametrize("mixer", [SMALL, zoo.Mamba(dim=4, d_state=3)], ids=["mamba2", "mamba"])
@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_packed_sequences_and_padding(mixer, backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((1, 12, 4))
    starts = sequences.starts_from_lengths([5, 7])
    mask = numpy.ones((1, 12), bool)
    mask[0, [0, 7, 11]] = False
    with device_of(backend) as (to, back):
        params = {n: to(p) for n, p in params.items()}
        packed, state = mixer(params, to(x), sequence_starts=starts, return_state=True)
        for part in (slice(0, 5), slice(5, 12)):
            want, last = mixer(params, to(x[:, part]), return_state=True)
            numpy.testing.assert_allclose(back(packed)[:, part], back(want), rtol=1e-10, atol=1e-12)
        # steps go on with the last sequence
        for got, wanted in zip(state, last):
            numpy.testing.assert_allclose(back(got), back(wanted), rtol=1e-10, atol=1e-12)
        y, state = mixer(params, to(x), mask=mask, return_state=True)
        want, want_state = mixer(params, to(x[:, mask[0]]), return_state=True)
        numpy.testing.assert_allclose(back(y)[mask], back(want)[0], rtol=1e-10, atol=1e-12)
        for got, wanted in zip(state, want_state):
            numpy.testing.assert_allclose(back(got), back(wanted), rtol=1e-10, atol=1e-12)


def test_gradients_of_packed_sequences():
    params = SMALL.init(0, dtype="float64")
    starts, mask = sequences.starts_from_lengths([3, 4]), numpy.ones((1, 7), bool)
    mask[0, [4, 6]] = False

    def forward(arrays):
        return SMALL.forward(params, arrays["x"], sequence_starts=starts, mask=mask)

    with mixers.use_backend("reference"):
        check_differences(
            lambda arrays: forward(arrays)[0],
            lambda arrays, dout: {"x": SMALL.backward(dout, forward(arrays)[1])[1]},
            {"x": numpy.random.default_rng(1).standard_normal((1, 7, 4))},
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headdim": 3}, "headdim must divide d_ssm = 8, got 3"),
        ({"ngroups": 3}, "ngroups must divide the number of heads = 4, got 3"),
        ({"d_ssm": 10}, "d_ssm must be at most the inner channels 8, got 10"),
        ({"d_ssm": 0}, "d_ssm must be an integer >= 1"),
        ({"expand": 0.1}, "expand must give at least one inner channel"),
        ({"dt_limit": (0.5, 0.1)}, r"dt_limit \(high\) must be >= 0.5"),
        ({"chunk_size": 0}, "chunk_size must be an integer >= 1"),
        ({"dt_min": 0.5}, "dt_max must be >= 0.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"mamba2: {message}"):
        dataclasses.replace(SMALL, **options)


def test_step_errors():
    params, state = SMALL.init(0), SMALL.initial_state(2)
    with pytest.raises(ValueError, match=r"mamba2: x must have shape \(b, c\) with c = 4, got \(2, 1, 4\)"):
        SMALL.step(params, numpy.zeros((2, 1, 4), "float32"), state)


def test_initial_values():
    params = zoo.Mamba2(dim=64, headdim=16).init(0, dtype="float64")
    steps = numpy.log1p(numpy.exp(params["dt_bias"]))
    assert (steps >= 1e-4).all()
    assert (steps <= 0.1 + 1e-12).all()
    rates = numpy.exp(params["A_log"])
    assert rates.min() >= 1.0
    assert rates.max() <= 16.0
    assert (params["D"] == 1).all()
    assert (params["norm_scale"] == 1).all()
