"""Mixers with generated long filters."""

import dataclasses

import numpy
import pytest
import tolerances
from test_zoo_mlp import check_mixer

import mixers
from mixers import zoo

SMALL = zoo.Hyena(dim=3, grid=(9,), filter_order=4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 4},
        {"order": 3, "num_inner_mlps": 0, "emb_dim": 5},
        {"num_inner_mlps": 3, "w": 2.0},
        {"short_filter_order": 1},
        {"modulate": False},
        {"shift": 0.05, "fast_decay_pct": 0.2, "slow_decay_pct": 0.9, "target": 0.1},
        {"normalized": True, "order": 3},
        {"normalized": True, "modulate": False},
        {"filter_bias": False},
        {"activation": "gelu"},
        {"activation": "silu", "dim": 1},
        {"grid": (1,)},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_gradients(options):
    mixer = dataclasses.replace(SMALL, **options)
    check_mixer(mixer, (2, *mixer.grid, mixer.dim))


def test_gradients_of_a_short_input():
    check_mixer(SMALL, (2, 5, 3))


def unpack(mixer, params, x):
    """The equations once more, token by token."""
    p = params
    c, o, length = mixer.dim, mixer.order, x.shape[1]
    projected = x @ p["w_in"] + p["b_in"]
    padded = numpy.pad(projected, ((0, 0), (mixer.short_filter_order - 1, 0), (0, 0)))
    short = p["b_short"] + sum(p["w_short"][j] * padded[:, j : j + length] for j in range(len(p["w_short"])))
    parts = [short[..., i * c : (i + 1) * c] for i in range(o + 1)]
    a = p["pos_emb"][:length]
    for i in range(mixer.num_inner_mlps + 1):
        a = numpy.sin(p["freq"] * (a @ p[f"w_filter_{i}"] + p[f"b_filter_{i}"]))
    h = numpy.einsum("lf,fsc->lsc", a, p["w_filter_out"])
    slow, fast = (numpy.log(mixer.target) / pct for pct in (mixer.slow_decay_pct, mixer.fast_decay_pct))
    line = numpy.linspace(slow, fast, c * (o - 1))
    for s in range(o - 1):
        for i in range(c):
            t = numpy.arange(length) / (mixer.grid[0] - 1)
            h[:, s, i] *= numpy.exp(-t * abs(line[i * (o - 1) + s])) + mixer.shift
    if mixer.normalized:
        h /= numpy.abs(h).sum(axis=(1, 2), keepdims=True)
    v = parts[o]
    for s in range(o - 1):
        u = v * parts[o - 1 - s]
        v = p["D"][s] * u
        for n in range(length):
            for j in range(n + 1):
                v[:, n] += h[j, s] * u[:, n - j]
    return (v * parts[0]) @ p["w_out"] + p["b_out"]


@pytest.mark.parametrize("options", [{}, {"order": 3, "shift": 0.1, "normalized": True, "emb_dim": 5}])
def test_against_the_equations_token_by_token(options):
    mixer = dataclasses.replace(SMALL, **options)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 7, 3))
    numpy.testing.assert_allclose(mixer(params, x), unpack(mixer, params, x), rtol=1e-12, atol=1e-13)


def test_a_short_input_is_a_prefix():
    """Positions are measured against the longest sequence, so a prefix gives a prefix."""
    params = SMALL.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((1, 9, 3))
    numpy.testing.assert_allclose(SMALL(params, x[:, :4]), SMALL(params, x)[:, :4], rtol=1e-12, atol=1e-14)


def test_unused_rows_and_switched_off_skip_have_zero_gradients():
    mixer = dataclasses.replace(SMALL, filter_bias=False)
    params = mixer.init(0, dtype="float64")
    y, saved = mixer.forward(params, numpy.ones((1, 4, 3)))
    dparams, _ = mixer.backward(numpy.ones_like(y), saved)
    assert not dparams["D"].any()
    assert not dparams["pos_emb"][4:].any()
    assert dparams["pos_emb"][:4].all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_causality_of_a_long_sequence(dtype):
    """The transforms leak rounding into the past, in proportion to the change."""
    mixer = zoo.Hyena(dim=4, grid=(2000,), filter_order=8)
    params = mixer.init(0, dtype=dtype)
    x = numpy.random.default_rng(1).standard_normal((2, 2000, 4)).astype(dtype)
    later = x.copy()
    later[:, 1200] += 10.0
    change = numpy.abs(mixer(params, later) - mixer(params, x))
    assert change[:, :1200].max() <= tolerances.CAUSALITY_LEAK[dtype] * max(change.max(), 10.0)
    assert change[:, 1200:].max() > 0.1


def test_filters_stay_accurate_in_half_precision():
    """Filters are generated in float32 whatever the dtype of the parameters."""
    mixer = zoo.Hyena(dim=4, grid=(64,), filter_order=8, w=10.0)
    params = mixer.init(0, dtype="bfloat16")
    wide = {n: a.astype("float64") for n, a in params.items()}
    with mixers.use_backend("reference"):
        [h] = mixer.filters(mixers.mixer.Params(params), 64)
        [want] = mixer.filters(mixers.mixer.Params(wide), 64)
    assert h.dtype == numpy.float32
    assert numpy.abs(h - want).max() < 1e-5 * numpy.abs(want).max()


def test_wider_parameters_leave_the_dtype_alone():
    params = SMALL.init(0, dtype="float32")
    x = numpy.ones((1, 4, 3), numpy.float16)
    y, saved = SMALL.forward(params, x)
    dparams, dx = SMALL.backward(y, saved)
    assert SMALL(params, x).dtype == y.dtype == dx.dtype == numpy.float16
    assert {d.dtype for d in dparams.values()} == {numpy.dtype("float32")}


def test_positions_at_the_start():
    table = zoo.Hyena(dim=1, grid=(5,), emb_dim=5).init(0, dtype="float64")["pos_emb"]
    n = numpy.arange(5)
    for column, frequency in ((1, 1e-4), (2, 1.0)):
        numpy.testing.assert_allclose(table[:, column], numpy.cos(frequency * 2 * numpy.pi * n / 5))
        numpy.testing.assert_allclose(
            table[:, column + 2], -numpy.sin(frequency * 2 * numpy.pi * n / 5), atol=1e-15
        )
    numpy.testing.assert_allclose(table[:, 0], n / 4)
    assert zoo.Hyena(dim=1, grid=(1,)).init(0)["pos_emb"].tolist() == [[0.0, 1.0, 0.0]]


def test_parameters():
    mixer = mixers.create("hyena", dim=4, order=3, num_inner_mlps=1, emb_dim=5, filter_order=7, w=10.0)
    params = mixer.init(0)
    assert {n: a.shape for n, a in params.items()} == {
        "w_in": (4, 16),
        "b_in": (16,),
        "w_short": (3, 16),
        "b_short": (16,),
        "pos_emb": (1024, 5),
        "w_filter_0": (5, 7),
        "b_filter_0": (7,),
        "w_filter_1": (7, 7),
        "b_filter_1": (7,),
        "w_filter_out": (7, 2, 4),
        "freq": (7,),
        "D": (2, 4),
        "w_out": (4, 4),
        "b_out": (4,),
    }
    assert (params["freq"] == 10.0).all()
    assert 0.4 < numpy.abs(params["w_in"]).max() <= 0.5


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dim must be an integer >= 1, got 0"),
        ({"grid": (2, 3)}, ValueError, r"grid must be \(l,\), got \(2, 3\)"),
        ({"order": 1}, ValueError, "order must be an integer >= 2, got 1"),
        ({"filter_order": 0}, ValueError, "filter_order must be an integer >= 1, got 0"),
        ({"emb_dim": 4}, ValueError, "emb_dim must be an odd integer >= 3, got 4"),
        ({"emb_dim": 1}, ValueError, "emb_dim must be an odd integer >= 3, got 1"),
        ({"num_inner_mlps": -1}, ValueError, "num_inner_mlps must be an integer >= 0, got -1"),
        ({"short_filter_order": 0}, ValueError, "short_filter_order must be an integer >= 1, got 0"),
        ({"fast_decay_pct": 0.0}, ValueError, r"fast_decay_pct must be > 0, got 0\.0"),
        ({"slow_decay_pct": -1}, ValueError, "slow_decay_pct must be > 0, got -1"),
        ({"target": 1.0}, ValueError, r"target must be < 1, got 1\.0"),
        ({"target": 0}, ValueError, "target must be > 0, got 0"),
        ({"activation": "relu"}, ValueError, "activation must be one of 'id', 'gelu', 'silu', got 'relu'"),
        ({"w": "1"}, TypeError, "w must be a number, got '1'"),
        ({"shift": None}, TypeError, "shift must be a number, got None"),
        ({"normalized": 1}, TypeError, "normalized must be True or False, got 1"),
        ({"num_heads": 2}, TypeError, "has no option 'num_heads'"),
    ],
)
def test_rejected_options(config, error, message):
    with pytest.raises(error, match=f"hyena: {message}"):
        mixers.create("hyena", **{"dim": 3} | config)


def test_rejected_length():
    with pytest.raises(ValueError, match=r"hyena: x must have .* got \(10,\)"):
        SMALL(SMALL.init(0), numpy.zeros((1, 10, 3), numpy.float32))
