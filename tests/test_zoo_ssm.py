"""State-space mixers and the orders of their scans."""

import dataclasses

import numpy
import pytest
from harness import BACKENDS, check_state_gradients, device_of
from test_zoo_mlp import check_mixer

from mixers import orders, zoo

SMALL = zoo.Mamba(dim=3, d_state=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "d_conv": 2},
        {"conv_bias": False, "d_conv": 1},
        {"expand": 1.5, "dt_rank": 2, "d_state": 1},
        {"dim": 1, "expand": 1},
        {"dt_init": "constant", "dt_scale": 0.5},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_gradients(options):
    mixer = dataclasses.replace(SMALL, **options)
    check_mixer(mixer, (2, 7, mixer.dim))


def test_gradients_through_the_states():
    check_state_gradients(SMALL, (2, 5, 3))


def unpack(mixer, params, x):
    """The equations once more, token by token and channel by channel."""
    p, e, k, n, rank = params, mixer._inner, mixer.d_conv, mixer.d_state, params["w_dt"].shape[0]
    projected = x @ p["w_in"] + p["b_in"]
    v, z = projected[..., :e], projected[..., e:]
    sigmoid = lambda a: 1 / (1 + numpy.exp(-a))
    y = numpy.zeros(x.shape)
    for item in range(len(x)):
        h = numpy.zeros((e, n))
        for t in range(x.shape[1]):
            u = p["conv_b"].copy()
            for i in range(k):
                if t - k + 1 + i >= 0:
                    u += p["conv_w"][i] * v[item, t - k + 1 + i]
            u *= sigmoid(u)
            r, B, C = numpy.split(u @ p["w_x"], [rank, rank + n])
            step = numpy.log1p(numpy.exp(r @ p["w_dt"] + p["dt_bias"]))
            for channel in range(e):
                decay = numpy.exp(-step[channel] * numpy.exp(p["A_log"][channel]))
                h[channel] = decay * h[channel] + step[channel] * u[channel] * B
            s = h @ C + p["D"] * u
            y[item, t] = (s * z[item, t] * sigmoid(z[item, t])) @ p["w_out"] + p["b_out"]
    return y


def test_against_the_equations_token_by_token():
    mixer = dataclasses.replace(SMALL, bias=True, dt_rank=2)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 6, 3))
    numpy.testing.assert_allclose(mixer(params, x), unpack(mixer, params, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
@pytest.mark.parametrize("options", [{}, {"bias": True, "d_conv": 1}, {"d_conv": 3, "conv_bias": False}])
def test_prefill_and_steps_are_the_whole(backend, options):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    mixer = dataclasses.replace(SMALL, **options)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 20, 3))
    with device_of(backend) as (to, back):
        params = {n: to(p) for n, p in params.items()}
        whole, last = mixer(params, to(x), return_state=True)
        parts = []
        y, state = mixer(params, to(x[:, :2]), return_state=True)
        parts.append(back(y))
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
    x = numpy.random.default_rng(1).standard_normal((2, 5, 3)).astype("float32")
    state = SMALL.initial_state(2)
    ys = []
    for t in range(5):
        y, state = SMALL.step(params, x[:, t], state)
        ys.append(y)
    numpy.testing.assert_allclose(numpy.stack(ys, axis=1), SMALL(params, x), rtol=1e-4, atol=1e-6)
    assert all(s.dtype == numpy.float32 for s in state)


def test_initial_steps_and_rates():
    """softplus(dt_bias) is spread between dt_min and dt_max; A is -1, ..., -n in every channel."""
    params = zoo.Mamba(dim=64, d_state=4, dt_min=1e-5, dt_max=1e-2, dt_init_floor=1e-4).init(0, "float64")
    steps = numpy.log1p(numpy.exp(params["dt_bias"]))
    assert numpy.isclose(steps.min(), 1e-4)
    assert 5e-3 < steps.max() < 1e-2
    numpy.testing.assert_allclose(numpy.exp(params["A_log"]), numpy.tile([1, 2, 3, 4], (128, 1)))
    assert numpy.abs(params["w_dt"]).max() <= 0.5


def test_rates_of_half_precision_parameters_are_exact():
    """exp(A_log) is not rounded to the parameters' type."""
    mixer = zoo.Mamba(dim=2, d_state=8)
    params = mixer.init(0, dtype="float16")
    x = numpy.random.default_rng(1).standard_normal((1, 30, 2)).astype("float16")
    wide = {n: p.astype("float32") for n, p in params.items()}
    numpy.testing.assert_allclose(mixer(params, x), mixer(wide, x.astype("float32")), rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "mamba: d_state must be an integer >= 1, got 0"),
        ({"expand": 0.1}, "mamba: expand must give at least one inner channel, got 0.1"),
        ({"dt_init": "zero"}, "mamba: dt_init must be one of 'random', 'constant', got 'zero'"),
        ({"dt_max": 1e-5}, "mamba: dt_max must be >= 0.001, got 1e-05"),
        ({"dt_rank": 0}, "mamba: dt_rank must be an integer >= 1, got 0"),
    ],
)
def test_option_errors(options, message):
    with pytest.raises(ValueError, match=message):
        zoo.Mamba(dim=3, **options)


def test_step_errors():
    params, state = SMALL.init(0), SMALL.initial_state(2)
    with pytest.raises(ValueError, match=r"mamba: x must have shape \(b, c\) with c = 3, got \(2, 1, 3\)"):
        SMALL.step(params, numpy.zeros((2, 1, 3), "float32"), state)
    with pytest.raises(ValueError, match="state must have shape"):
        SMALL.step(params, numpy.zeros((4, 3), "float32"), state)


GRIDS = [(1, 1), (1, 5), (4, 1), (3, 4), (4, 3), (5, 5)]


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_orders_by_their_definition(h, w):
    cells = {
        "raster": [(i, j) for i in range(h) for j in range(w)],
        "column": [(i, j) for j in range(w) for i in range(h)],
        "snake_rows": [(i, j if i % 2 == 0 else w - 1 - j) for i in range(h) for j in range(w)],
        "snake_columns": [(i if j % 2 == 0 else h - 1 - i, j) for j in range(w) for i in range(h)],
    }
    for name, wanted in cells.items():
        order = getattr(orders, name)(h, w)
        assert order.tolist() == [i * w + j for i, j in wanted], name
        assert orders.backwards(order).tolist() == order.tolist()[::-1]
        assert orders.flip_rows(order, h, w).tolist() == [(h - 1 - i) * w + j for i, j in wanted]
        assert orders.flip_both(order, h, w).tolist() == [(h - 1 - i) * w + w - 1 - j for i, j in wanted]


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_snakes_move_by_one_token(h, w):
    for order in (orders.snake_rows(h, w), orders.snake_columns(h, w)):
        moves = abs(numpy.diff(order // w)) + abs(numpy.diff(order % w))
        assert (moves == 1).all()


@pytest.mark.parametrize(("h", "w"), GRIDS)
@pytest.mark.parametrize("by_columns", [False, True])
def test_atrous_orders_share_the_padded_grid(h, w, by_columns):
    parts = [orders.atrous(h, w, row, column, by_columns) for row in (0, 1) for column in (0, 1)]
    even = w + w % 2
    assert sorted(numpy.concatenate(parts)) == list(range((h + h % 2) * even))
    assert all((p % even % 2 == column).all() for p, column in zip(parts, (0, 1, 0, 1)))


def test_atrous_orders_by_rows_and_by_columns():
    assert orders.atrous(3, 5, 0, 1).tolist() == [1, 3, 5, 13, 15, 17]
    assert orders.atrous(3, 5, 0, 1, by_columns=True).tolist() == [1, 13, 3, 15, 5, 17]
