"""Mixers with generated long filters."""

import dataclasses

import numpy
import pytest
import scipy.special
import tolerances
from harness import check_differences
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


IMAGES = zoo.HyenaNd(dim=2, grid=(4, 4), filter_order=3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 4, "num_inner_mlps": 0},
        {"shift": 0.05, "fast_decay_pct": 0.2, "slow_decay_pct": 0.9, "target": 0.1, "emb_dim": 5, "w": 2.0},
        {"window": "no"},
        {"window": "learn", "order": 3},
        {"filter": "2d", "num_inner_mlps": 1},
        {"filter": "2d", "sqrt_decay": True, "shift": 0.1},
        {"filter": "2d", "window": "no"},
        {"filter": "2d", "window": "learn", "order": 3, "sqrt_decay": True},
        {"filter": "2d", "window": "symmetric"},
        {"filter": "direct", "order": 3},
        {"direction": "seq", "order": 3},
        {"direction": "4dir", "order": 3},
        {"direction": "4dirp"},
        {"grid": (1, 1)},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_gradients_of_images(options):
    mixer = dataclasses.replace(IMAGES, **options)
    check_mixer(mixer, (2, *mixer.grid, mixer.dim))


def convolved(u, h, D, n):
    y = D * u
    for i in range(n):
        for j in range(n):
            y[:, i:, j:] += h[i, j] / (2 * n) * u[:, : n - i, : n - j]
    return y


def unpack_image(mixer, params, x):
    """The equations once more, with flips instead of directions and a loop over the taps."""
    p, c, o, n = params, mixer.dim, mixer.order, mixer.grid[0]
    padded = numpy.pad(x @ p["w_in"] + p["b_in"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    short = p["b_short"] + sum(
        p["w_short"][i, j] * padded[:, i : i + n, j : j + n] for i in range(3) for j in range(3)
    )
    parts = [short[..., i * c : (i + 1) * c] for i in range(o + 1)]
    slow, fast = (numpy.log(mixer.target) / pct for pct in (mixer.slow_decay_pct, mixer.fast_decay_pct))
    decay = abs(numpy.linspace(slow, fast, c * (o - 1))).reshape(o - 1, c)
    t = numpy.arange(n) / (n - 1)

    def network(a, name):
        for i in range(mixer.num_inner_mlps + 1):
            a = numpy.sin(p["freq"] * (a @ p[f"w_filter_{name}{i}"] + p[f"b_filter_{name}{i}"]))
        return numpy.einsum("...f,fsc->...sc", a, p[f"w_filter_{name}out"])

    if mixer.filter == "direct":
        kernels = p["filter"].transpose(1, 2, 0, 3)
    elif mixer.filter == "product":
        lines = []
        for axis in "hw":
            rate, floor = decay, mixer.shift
            if mixer.window == "learn":
                rate, floor = abs(p[f"deltas_{axis}"]), p[f"shift_{axis}"]
            window = 1.0 if mixer.window == "no" else numpy.exp(-t[:, None, None] * rate) + floor
            lines.append(network(p["pos_emb"], f"{axis}_") * window)
        kernels = lines[0][:, None] * lines[1]
    else:
        pairs = [[numpy.concatenate([a, b]) for b in p["pos_emb"]] for a in p["pos_emb"]]
        kernels = network(numpy.array(pairs), "")
        i, j = numpy.indices((n, n))[..., None, None]
        floor = mixer.shift if mixer.window == "standard" else p.get("shift")
        if mixer.window == "standard":
            exponent = (i + j) / (n - 1) * decay
        elif mixer.window == "learn":
            exponent = i / (n - 1) * abs(p["deltas_h"]) + j / (n - 1) * abs(p["deltas_w"])
        elif mixer.window == "symmetric":
            exponent = (i + j) * abs(p["deltas"])
        if mixer.window != "no":
            window = numpy.exp(-exponent)
            kernels = kernels * ((window**0.5 if mixer.sqrt_decay else window) + floor)

    def run(axes):
        flip = lambda a: numpy.flip(a, axes)
        v = flip(parts[o])
        for s in range(o - 1):
            v = v * flip(parts[o - 1 - s])
            if mixer.direction == "seq" and s == 0:
                v = numpy.flip(convolved(numpy.flip(v, (1, 2)), kernels[:, :, s], p["D"][s], n), (1, 2))
            else:
                v = convolved(v, kernels[:, :, s], p["D"][s], n)
        return flip(v * flip(parts[0]))

    if mixer.direction in ("standard", "seq"):
        y = run(())
    else:
        runs = [run(axes) for axes in ((), (1, 2), (2,), (1,))]
        apply = (lambda r, w: r * w) if mixer.direction == "4dir" else (lambda r, w: r @ w)
        y = sum(apply(r, w) for r, w in zip(runs, p["w_mix"])) + p["b_mix"]
    return y @ p["w_out"] + p["b_out"]


@pytest.mark.parametrize("direction", ["standard", "seq", "4dir", "4dirp"])
@pytest.mark.parametrize(
    "options",
    [
        {"shift": 0.1, "emb_dim": 5},
        {"window": "learn"},
        {"window": "no"},
        {"filter": "2d", "sqrt_decay": True, "shift": 0.1},
        {"filter": "2d", "window": "learn"},
        {"filter": "2d", "window": "symmetric", "sqrt_decay": True},
        {"filter": "2d", "window": "no"},
        {"filter": "direct", "window": "learn"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_images_against_the_equations(options, direction):
    mixer = dataclasses.replace(IMAGES, order=3, direction=direction, **options)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 4, 4, 2))
    numpy.testing.assert_allclose(mixer(params, x), unpack_image(mixer, params, x), rtol=1e-11, atol=1e-13)


def test_parameters_of_images():
    mixer = zoo.HyenaNd(
        dim=4, grid=(6, 6), order=3, filter_order=7, num_inner_mlps=0, window="learn", direction="4dirp"
    )
    params = mixer.init(0, dtype="float64")
    assert {n: a.shape for n, a in params.items()} == {
        "w_in": (4, 16),
        "b_in": (16,),
        "w_short": (3, 3, 16),
        "b_short": (16,),
        "pos_emb": (6, 3),
        "freq": (7,),
        "w_filter_h_0": (3, 7),
        "b_filter_h_0": (7,),
        "w_filter_h_out": (7, 2, 4),
        "w_filter_w_0": (3, 7),
        "b_filter_w_0": (7,),
        "w_filter_w_out": (7, 2, 4),
        "deltas_h": (2, 4),
        "deltas_w": (2, 4),
        "shift_h": (2, 4),
        "shift_w": (2, 4),
        "D": (2, 4),
        "w_mix": (4, 4, 4),
        "b_mix": (4,),
        "w_out": (4, 4),
        "b_out": (4,),
    }
    line = numpy.linspace(numpy.log(1e-2) / 1.5, numpy.log(1e-2) / 0.3, 8).reshape(2, 4)
    numpy.testing.assert_allclose(params["deltas_h"], line)
    assert 0 <= params["shift_w"].min() and params["shift_w"].max() < 1
    free = dataclasses.replace(mixer, filter="direct", direction="4dir").init(0)
    assert free["filter"].shape == (2, 6, 6, 4)
    assert free["w_mix"].shape == (4,) and free["b_mix"].shape == (1,)
    assert not {"pos_emb", "freq", "deltas_h"} & set(free)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 9, 3)),
        ({"kernel_size": 1, "use_act": True}, (2, 5, 3)),
        ({"kernel_size": -1}, (2, 9, 3)),
        ({"kernel_size": -1, "use_act": True, "grid": (12,)}, (1, 7, 3)),
        ({"kernel_size": -1, "implicit": False}, (2, 6, 3)),
        ({"kernel_size": -1, "grid": (1,)}, (2, 1, 3)),
    ],
)
def test_gradients_of_base_conv(options, shape):
    check_mixer(zoo.BaseConv(**{"dim": 3, "grid": (9,)} | options), shape)


@pytest.mark.parametrize("use_act", [False, True])
@pytest.mark.parametrize("kind", ["short", "implicit", "explicit"])
def test_base_conv_token_by_token(kind, use_act):
    mixer = zoo.BaseConv(
        dim=3,
        grid=(10,),
        kernel_size=2 if kind == "short" else -1,
        implicit=kind != "explicit",
        use_act=use_act,
    )
    p = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 7, 3))
    if kind == "short":
        h, s = p["w_conv"][::-1], p["b_conv"] + numpy.zeros_like(x)
    else:
        angle = 1e-4 * 2 * numpy.pi * numpy.arange(10) / 10
        e = numpy.stack([numpy.arange(10) / 9, numpy.cos(angle), -numpy.sin(angle)], axis=1)
        h, s = p.get("filter"), x.copy()
        if kind == "implicit":
            h = numpy.maximum(e @ p["w_filter_0"] + p["b_filter_0"], 0) @ p["w_filter_1"] + p["b_filter_1"]
    for n in range(7):
        for j in range(min(n + 1, len(h))):
            s[:, n] += h[j] * x[:, n - j]
    act = (lambda a: a / (1 + numpy.exp(-a))) if use_act else (lambda a: a)
    wanted = act(s) * act(x @ p["w"] + p["b"]) + x
    numpy.testing.assert_allclose(mixer(p, x), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{}, {"disc": "bilinear"}, {"a_init": "inv", "d_state": 2}, {"a_init": "real", "dt_max": 1.0}]
)
def test_gradients_of_s4d(options):
    check_mixer(zoo.S4d(**{"dim": 3, "d_state": 6} | options), (2, 11, 3))


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_s4d_is_a_recurrence(disc):
    mixer = zoo.S4d(dim=2, d_state=4, disc=disc, dt_min=0.05, dt_max=0.5)
    p = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((1, 40, 2))
    A = -numpy.exp(p["log_A_real"]) + 1j * p["A_imag"]
    dt = numpy.exp(p["log_dt"])[:, None]
    if disc == "zoh":
        power, phi = numpy.exp(dt * A), (numpy.exp(dt * A) - 1) / A
    else:
        power, phi = (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)
    state, v = numpy.zeros((2, 2), complex), numpy.empty((40, 2))
    for n in range(40):
        state = power * state + x[0, n, :, None]
        v[n] = 2 * ((p["C_re"] + 1j * p["C_im"]) * phi * state).sum(axis=1).real + p["D"] * x[0, n]
    a, b = numpy.split(v * scipy.special.ndtr(v) @ p["w_out"] + p["b_out"], 2, axis=1)
    numpy.testing.assert_allclose(mixer(p, x)[0], a * scipy.special.expit(b), rtol=1e-11, atol=1e-13)


def test_initial_poles_of_s4d():
    n = numpy.arange(4)
    for a_init, real, imaginary in (
        ("lin", 0.5 + 0 * n, numpy.pi * n),
        ("inv", 0.5 + 0 * n, 8 / numpy.pi * (8 / (2 * n + 1) - 1)),
        ("real", n + 1.0, 0 * n),
    ):
        p = zoo.S4d(dim=300, d_state=8, a_init=a_init).init(0, dtype="float64")
        numpy.testing.assert_allclose(numpy.exp(p["log_A_real"]), numpy.tile(real, (300, 1)))
        numpy.testing.assert_allclose(p["A_imag"], numpy.tile(imaginary, (300, 1)))
    assert 1e-3 <= numpy.exp(p["log_dt"]).min() < 2e-3
    assert 0.05 < numpy.exp(p["log_dt"]).max() <= 0.1
    assert 0.66 < p["C_re"].std() < 0.75


GLOBAL = zoo.HyperZzw(dim=3, kernel_size=4, hidden=4, num_layers=2, omega_0=0.3)
LOCAL = zoo.HyperZzw(dim=3, mode="local", kernel_size=3, hidden=4, num_layers=2, omega_0=0.3)


@pytest.mark.parametrize("layers", [1, 3])
def test_gradients_of_global_hyper_zzw(layers):
    check_mixer(dataclasses.replace(GLOBAL, num_layers=layers), (2, 4, 4, 3))


@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (1, 2, 7, 3), (2, 3, 3, 3)])
def test_gradients_of_local_hyper_zzw(shape):
    """Without the term that nothing flows back through; golden vectors have it."""
    params = LOCAL.init(0, dtype="float64")
    params = {n: a + 0.1 * numpy.random.default_rng(1).standard_normal(a.shape) for n, a in params.items()}
    fixed = {"renorm_alpha": numpy.zeros_like(params["renorm_alpha"])}
    arrays = {n: a for n, a in params.items() if n not in fixed}
    arrays["x"] = numpy.random.default_rng(2).standard_normal(shape)

    def function(arrays):
        return LOCAL({n: fixed.get(n, arrays.get(n)) for n in params}, arrays["x"])

    def backward(arrays, dout):
        _, saved = LOCAL.forward({n: fixed.get(n, arrays.get(n)) for n in params}, arrays["x"])
        dparams, dx = LOCAL.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        check_differences(function, backward, arrays)


def test_local_kernels_of_hyper_zzw_entry_by_entry():
    """The network on every entry of the kernel, with cells of the image averaged in loops."""
    mixer, k = LOCAL, 3
    p = mixer.init(0, dtype="float64")
    rng = numpy.random.default_rng(1)
    p = {n: a + 0.2 * rng.standard_normal(a.shape) for n, a in p.items()}
    x = rng.standard_normal((2, 5, 7, 3))
    q = numpy.stack(numpy.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), axis=-1)
    sines = [numpy.sin(q @ p[f"w_sin_{i}"] + p[f"b_sin_{i}"]) for i in range(3)]
    pooled = numpy.empty((2, k, k, 3))
    for i in range(k):
        for j in range(k):
            rows = slice(i * 5 // k, -(-(i + 1) * 5 // k))
            columns = slice(j * 7 // k, -(-(j + 1) * 7 // k))
            pooled[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    r = (pooled @ p["w_reduce"] + p["b_reduce"]).mean(axis=0) @ p["w_ctx"] + p["b_ctx"]
    e, a = r * scipy.special.ndtr(r), sines[0]
    for i in range(2):
        u = sines[i + 1] * (a @ p[f"w_lin_{i}"] + p[f"b_lin_{i}"]) + p["bias_p"][..., None]
        norm = numpy.sqrt((u**2).sum(axis=(0, 1)))
        u = p["renorm_alpha"][i] * u + p["renorm_beta"][i] * u / norm
        a = u * (e @ p[f"w_gate_{i}"] + p[f"b_gate_{i}"])
    wanted = a @ p["w_kernel"] + p["b_kernel"]
    numpy.testing.assert_allclose(mixer.kernel(mixers.mixer.Params(p), x), wanted, rtol=1e-12, atol=1e-13)


def test_local_hyper_zzw_couples_the_batch_and_global_does_not():
    x = numpy.random.default_rng(0).standard_normal((2, 4, 4, 3))
    for mixer, couples in ((GLOBAL, False), (LOCAL, True)):
        params = mixer.init(0, dtype="float64")
        alone, together = mixer(params, x[:1]), mixer(params, x)[:1]
        assert numpy.allclose(alone, together, rtol=1e-12) is not couples


def test_initial_values_of_hyper_zzw():
    mixer = zoo.HyperZzw(dim=32, mode="local", kernel_size=5, hidden=64, num_layers=2, omega_0=2.0)
    specs, p = mixer.parameters(), mixer.init(0, dtype="float64")
    assert {
        n: p[n].shape for n in ("w_sin_2", "w_lin_1", "bias_p", "w_kernel", "w_mix", "w_reduce", "w_gate_1")
    } == {
        "w_sin_2": (2, 64),
        "w_lin_1": (64, 64),
        "bias_p": (5, 5),
        "w_kernel": (64, 32),
        "w_mix": (32, 32),
        "w_reduce": (32, 64),
        "w_gate_1": (64, 64),
    }
    assert {"w_sin_3", "w_lin_2", "w_gate_2"}.isdisjoint(p)
    bound = (3 / 64) ** 0.5
    assert 0.95 * bound < numpy.abs(p["w_lin_0"]).max() <= bound
    assert 0.95 * bound / 5 < numpy.abs(p["w_kernel"]).max() <= bound / 5
    assert 0.8 < p["w_mix"].std() / (2 / 32) ** 0.5 < 1.2
    # a uniform variable times 4 pi times a Gamma variable of shape 6 / (i + 1)
    for i, shape in enumerate((6.0, 3.0, 2.0)):
        std = 4 * numpy.pi * (0.5 / 3 * (shape + shape**2)) ** 0.5
        assert 0.7 < p[f"w_sin_{i}"].std() / std < 1.4
    assert (p["b_lin_0"] == 1).all() and (p["b_gate_1"] == 1).all() and (p["renorm_alpha"] == 1).all()
    assert (p["renorm_beta"] == 0.1).all() and not p["b_out"].any() and not p["bias_p"].any()
    assert [n for n, spec in specs.items() if spec.frozen] == ["renorm_alpha", "renorm_beta"]


@pytest.mark.parametrize(
    ("name", "config", "error", "message"),
    [
        ("hyena_nd", {"grid": (4, 5)}, ValueError, r"grid must be square, got \(4, 5\)"),
        ("hyena_nd", {"grid": (4,)}, ValueError, r"grid must be \(h, w\), got \(4,\)"),
        ("hyena_nd", {"order": 1}, ValueError, "order must be an integer >= 2, got 1"),
        ("hyena_nd", {"emb_dim": 4}, ValueError, "emb_dim must be an odd integer >= 3, got 4"),
        (
            "hyena_nd",
            {"filter": "free"},
            ValueError,
            "filter must be one of 'product', '2d', 'direct', got 'free'",
        ),
        ("hyena_nd", {"window": "hann"}, ValueError, "window must be one of 'standard', .* got 'hann'"),
        ("hyena_nd", {"direction": "parallel"}, ValueError, "direction must be one of .* got 'parallel'"),
        ("hyena_nd", {"window": "symmetric"}, ValueError, 'window "symmetric" needs filter "2d", got filter'),
        ("hyena_nd", {"sqrt_decay": 1}, TypeError, "sqrt_decay must be True or False, got 1"),
        ("hyena_nd", {"target": 1}, ValueError, "target must be < 1, got 1"),
        ("base_conv", {"grid": (4, 4)}, ValueError, r"grid must be \(l,\), got \(4, 4\)"),
        (
            "base_conv",
            {"kernel_size": 0},
            ValueError,
            "kernel_size must be >= 1, or -1 for a long filter, got 0",
        ),
        (
            "base_conv",
            {"kernel_size": -2},
            ValueError,
            "kernel_size must be >= 1, or -1 for a long filter, got -2",
        ),
        ("base_conv", {"implicit": 1}, TypeError, "implicit must be True or False, got 1"),
        ("base_conv", {"use_act": "silu"}, TypeError, "use_act must be True or False, got 'silu'"),
        ("s4d", {"d_state": 5}, ValueError, "d_state must be even, got 5"),
        ("s4d", {"d_state": 0}, ValueError, "d_state must be an integer >= 2, got 0"),
        ("s4d", {"disc": "euler"}, ValueError, "disc must be one of 'zoh', 'bilinear', got 'euler'"),
        ("s4d", {"a_init": "legs"}, ValueError, "a_init must be one of 'lin', 'inv', 'real', got 'legs'"),
        ("s4d", {"dt_min": 0}, ValueError, "dt_min must be > 0, got 0"),
        ("s4d", {"dt_max": 1e-4}, ValueError, r"dt_max must be >= 0\.001, got 0\.0001"),
        ("hyper_zzw", {"mode": "both"}, ValueError, "mode must be one of 'global', 'local', got 'both'"),
        ("hyper_zzw", {"kernel_size": 1}, ValueError, "kernel_size must be an integer >= 2, got 1"),
        (
            "hyper_zzw",
            {"mode": "local", "kernel_size": 4},
            ValueError,
            "kernel_size must be odd in local mode, got 4",
        ),
        ("hyper_zzw", {"hidden": 0}, ValueError, "hidden must be an integer >= 1, got 0"),
        ("hyper_zzw", {"num_layers": 0}, ValueError, "num_layers must be an integer >= 1, got 0"),
        ("hyper_zzw", {"alpha": 0}, ValueError, "alpha must be > 0, got 0"),
        ("hyper_zzw", {"beta": -1.0}, ValueError, r"beta must be > 0, got -1\.0"),
        ("hyper_zzw", {"omega_0": None}, TypeError, "omega_0 must be a number, got None"),
    ],
)
def test_rejected_options_of_the_others(name, config, error, message):
    needed = {"hyena_nd": {"grid": (4, 4)}, "base_conv": {"grid": (4,)}}.get(name, {})
    with pytest.raises(error, match=f"{name}: {message}"):
        mixers.create(name, **{"dim": 3} | needed | config)


@pytest.mark.parametrize(
    ("mixer", "shape", "message"),
    [
        (IMAGES, (1, 3, 3, 2), r"hyena_nd: x must have the token grid \(4, 4\)"),
        (IMAGES, (1, 16, 2), r"hyena_nd: x must have shape \(b, h, w, c\)"),
        (zoo.BaseConv(dim=3, grid=(4,)), (1, 5, 3), r"base_conv: x must have the token grid \(4,\)"),
        (
            GLOBAL,
            (1, 4, 5, 3),
            r"hyper_zzw: x must have the token grid \(4, 4\) of the kernel in global mode",
        ),
        (zoo.S4d(dim=3), (1, 4, 4, 3), r"s4d: x must have shape \(b, l, c\)"),
    ],
    ids=["hyena_nd-size", "hyena_nd-rank", "base_conv", "hyper_zzw", "s4d"],
)
def test_rejected_inputs(mixer, shape, message):
    with pytest.raises(ValueError, match=message):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))
