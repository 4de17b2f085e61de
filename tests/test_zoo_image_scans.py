"""Vision mixers with selective scans: options, second forms, rejections."""

import dataclasses

import numpy
import pytest
from test_zoo_mlp import check_mixer

import mixers
from mixers import ops, orders, zoo
from mixers.zoo.ssm.lamamba import continuous_orders
from mixers.zoo.ssm.plain_mamba import moves

CASES = [
    (zoo.Vim(dim=3, d_state=2), (2, 5, 3)),
    (zoo.Vim(dim=3, d_state=2, bimamba_type="v1", divide_out=True, d_conv=1), (2, 5, 3)),
    (zoo.Vim(dim=2, d_state=1, divide_out=True, layer_scale=True, bias=True, conv_bias=False), (1, 4, 2)),
    (zoo.Ss2d(dim=3, d_state=2, ssm_ratio=1.0), (2, 3, 2, 3)),
    (zoo.Ss2d(dim=2, d_state=1, act="gelu", out_act=True, gate_act=False, bias=True), (1, 2, 3, 2)),
    (zoo.Ss2d(dim=2, d_state=1, d_conv=0, out_norm="none", scan_mode="bidi"), (1, 2, 3, 2)),
    (zoo.Ss2d(dim=2, d_state=1, scan_mode="unidi", gate=False), (1, 2, 3, 2)),
    (zoo.Es2d(dim=3, d_state=2, ssm_ratio=1.0, out_norm="sigmoid", gate_act=False), (2, 3, 5, 3)),
    (zoo.Es2d(dim=2, d_state=1, d_conv=1), (1, 1, 1, 2)),
    (zoo.Evss(dim=8, d_state=1, ssm_ratio=0.5, se_ratio=0.25, bias=True), (2, 3, 4, 8)),
    (zoo.PlainMamba(dim=3, d_state=2, conv_size=3), (2, 3, 2, 3)),
    (zoo.PlainMamba(dim=3, d_state=2, conv_size=3, permute_params=True, layer_scale=True), (2, 3, 4, 3)),
    (zoo.PlainMamba(dim=2, d_state=1, conv_size=1, conv_bias=False, bias=True), (1, 1, 3, 2)),
    (zoo.Lamamba(dim=4, grid=(4, 6), d_state=1, window_size=2, shift_size=1, num_heads=2), (2, 4, 6, 4)),
    (
        zoo.Lamamba(dim=4, grid=(2, 4), d_state=1, num_heads=1, qkv_bias=False, continuous_scan=False),
        (1, 2, 4, 4),
    ),
    (zoo.MambaYoloLs(dim=3), (2, 3, 4, 3)),
    (zoo.MambaYoloRg(dim=3, hidden=7), (2, 3, 4, 3)),
    (zoo.MambaYoloRg(dim=3), (2, 1, 1, 3)),
]


@pytest.mark.parametrize(("mixer", "shape"), CASES, ids=[f"{m.name}-{i}" for i, (m, _) in enumerate(CASES)])
def test_gradients(mixer, shape):
    trainable = all(spec.trainable for spec in mixer.parameters().values())
    if trainable:
        check_mixer(mixer, shape)
    else:
        # running statistics have no gradient: only the output is looked at here
        x = numpy.random.default_rng(0).standard_normal(shape)
        y, saved = mixer.forward(mixer.init(0, dtype="float64"), x)
        dparams, dx = mixer.backward(numpy.ones_like(y), saved)
        assert y.shape == dx.shape == shape
        assert all((dparams[n] is None) == (not s.trainable) for n, s in mixer.parameters().items())


def drawn(mixer, shape):
    rng = numpy.random.default_rng(0)
    params = {n: p + 0.1 * rng.standard_normal(p.shape) for n, p in mixer.init(rng, dtype="float64").items()}
    return params, rng.standard_normal(shape)


def test_vim_of_reversed_tokens_with_the_passes_exchanged():
    """Turning the tokens round and exchanging the parameters of the passes turns the output round."""
    mixer = zoo.Vim(dim=4, d_state=3)
    params, x = drawn(mixer, (2, 9, 4))
    swap = lambda n: (
        n.removesuffix("_rev") if n.endswith("_rev") else f"{n}_rev" if f"{n}_rev" in params else n
    )
    exchanged = {swap(n): p for n, p in params.items()}
    numpy.testing.assert_allclose(
        mixer(exchanged, x[:, ::-1])[:, ::-1], mixer(params, x), rtol=1e-11, atol=1e-13
    )


def test_vim_v1_halves_nothing():
    mixer = zoo.Vim(dim=4, d_state=3, bimamba_type="v1")
    params, x = drawn(mixer, (2, 9, 4))
    halved = dataclasses.replace(mixer, divide_out=True)
    numpy.testing.assert_array_equal(halved(params, x), mixer(params, x))


def test_ss2d_of_a_transposed_image():
    """Transposing the grid exchanges the scans along rows and along columns."""
    mixer = zoo.Ss2d(dim=4, d_state=2)
    params, x = drawn(mixer, (2, 3, 5, 4))
    exchanged = {
        n: p[[1, 0, 3, 2]] if n in ("w_x", "w_dt", "dt_bias", "A_log", "D") else p for n, p in params.items()
    }
    exchanged["conv_w"] = params["conv_w"].swapaxes(0, 1)
    numpy.testing.assert_allclose(
        mixer(exchanged, x.swapaxes(1, 2)).swapaxes(1, 2), mixer(params, x), rtol=1e-11, atol=1e-12
    )


def test_es2d_quarters_do_not_meet():
    """Without the convolution a token reaches only tokens of its own quarter of the grid."""
    mixer = zoo.Es2d(dim=3, d_state=2, d_conv=1, out_norm="sigmoid")
    params, x = drawn(mixer, (1, 6, 7, 3))
    changed = x.copy()
    changed[0, 2, 3] += 1.0
    moved = numpy.abs(mixer(params, changed) - mixer(params, x)).max(axis=3)[0] > 0
    assert moved[2, 3]
    assert not moved[1::2].any()
    assert not moved[:, ::2].any()
    assert moved[2, 5]
    assert not moved[0].any()


def test_plain_mamba_moves():
    order = orders.snake_rows(3, 3)
    assert moves(order, 3).tolist() == [0, 1, 1, 4, 2, 2, 4, 1, 1]
    assert moves(orders.backwards(order), 3).tolist() == [0, 2, 2, 3, 1, 1, 3, 2, 2]


def test_plain_mamba_permuted_is_the_scan_in_order():
    """permute_params moves everything together: the same as a scan of arrays in that order."""
    mixer = zoo.PlainMamba(dim=3, d_state=2, conv_size=1, permute_params=True)
    params, x = drawn(mixer, (1, 3, 4, 3))
    p = params
    v, z = numpy.split(x @ p["w_in"], 2, axis=3)
    silu = lambda a: a / (1 + numpy.exp(-a))
    u = silu(v * p["conv_w"][0, 0] + p["conv_b"]).reshape(1, 12, -1)
    r, B, C = numpy.split(u @ p["w_x"], [1, 3], axis=2)
    delta = r @ p["w_dt"] + 2 * p["dt_bias"]
    total = numpy.zeros_like(u)
    snakes = [orders.snake_rows(3, 4), orders.snake_columns(3, 4)]
    for order in snakes + [o[::-1] for o in snakes]:
        turned = (B[:, order] + p["direction_B"][moves(order, 4)])[:, :, None]
        arrays = u[:, order], delta[:, order], -numpy.exp(p["A_log"]), turned, C[:, order][:, :, None], p["D"]
        total[:, order] += ops.selective_scan(*arrays, delta_softplus=True)
    want = (total.reshape(z.shape) * silu(z)) @ p["w_out"]
    numpy.testing.assert_allclose(mixer(params, x), want, rtol=1e-10, atol=1e-12)


def test_lamamba_orders_start_in_four_corners():
    h, w = 4, 6
    visits = continuous_orders(h, w)
    assert [o[0] for o in visits] == [0, (h - 1) * w, (h - 1) * w, h * w - 1]
    assert all(sorted(o) == list(range(h * w)) for o in visits)
    # the second goes to the right first, the third up
    assert visits[1][1] == (h - 1) * w + 1
    assert visits[2][1] == (h - 2) * w


def test_lamamba_with_a_condition_starts_at_zero():
    mixer = zoo.Lamamba(dim=4, grid=(4, 4), window_size=2, num_heads=2, cond_dim=3)
    rng = numpy.random.default_rng(0)
    x, cond = rng.standard_normal((2, 4, 4, 4)), rng.standard_normal((2, 3))
    assert (mixer(mixer.init(0, dtype="float64"), x, cond) == 0).all()


def test_lamamba_window_of_a_small_grid():
    mixer = zoo.Lamamba(dim=4, grid=(3, 6), window_size=4, shift_size=2, num_heads=2)
    assert mixer.parameters()["rel_pos_bias"].shape == (25, 2)
    params, x = drawn(mixer, (1, 3, 6, 4))
    assert mixer(params, x).shape == x.shape


def test_lamamba_condition_goes_with_cond_dim():
    rng = numpy.random.default_rng(0)
    x, cond = rng.standard_normal((2, 4, 4, 4)), rng.standard_normal((2, 3))
    plain = zoo.Lamamba(dim=4, grid=(4, 4), window_size=2, num_heads=2)
    conditioned = dataclasses.replace(plain, cond_dim=3)
    with pytest.raises(ValueError, match="cond must be given if and only if cond_dim is, got a cond"):
        plain(plain.init(0, dtype="float64"), x, cond)
    with pytest.raises(ValueError, match="cond must be given if and only if cond_dim is, got no cond"):
        conditioned(conditioned.init(0, dtype="float64"), x)
    with pytest.raises(ValueError, match=r"cond must have shape \(b, cond_dim\) = \(2, 3\)"):
        conditioned(conditioned.init(0, dtype="float64"), x, cond[:, :2])


@pytest.mark.parametrize("name", ["v1", "v2", "mamba_yolo"])
def test_ss2d_initial_values(name):
    params = zoo.Ss2d(dim=16, initialisation=name).init(0, dtype="float64")
    assert (params["D"] == 1).all()
    spread = {"v1": 0.1, "v2": 0.1 / 12**0.5, "mamba_yolo": 1.0}[name]
    assert abs(params["dt_bias"].std() / spread - 1) < 0.3
    if name == "v1":
        assert 0.8 < params["A_log"].std() < 1.2
    else:
        assert (params["A_log"] == 0).all()


def test_layer_scale_starts_where_asked():
    for cls in (zoo.Vim, zoo.PlainMamba):
        assert (cls(dim=4, layer_scale=True, layer_scale_init=0.25).init(0)["gamma"] == 0.25).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vim", {"bimamba_type": "v3"}, "bimamba_type must be one of 'v2', 'v1'"),
        ("ss2d", {"d_conv": 4}, "d_conv must be an odd integer"),
        ("ss2d", {"scan_mode": "cascade2d"}, "scan_mode must be one of"),
        ("ss2d", {"out_norm": "softmax"}, "out_norm must be one of"),
        ("ss2d", {"act": "relu"}, "act must be one of"),
        ("ss2d", {"ssm_ratio": 0.01}, "ssm_ratio must give at least one inner channel"),
        ("ss2d", {"initialisation": "v3"}, "initialisation must be one of"),
        ("es2d", {"step_size": 3}, "step_size must be one of 2"),
        ("es2d", {"out_norm": "none"}, "out_norm must be one of 'layernorm', 'sigmoid'"),
        ("evss", {"dim": 7}, "se_ratio must leave at least one of 7 channels"),
        ("plain_mamba", {"conv_size": 4}, "conv_size must be an odd integer"),
        ("mamba_yolo_rg", {"hidden": 1}, "hidden must be at least 2"),
        ("lamamba", {"grid": (8, 9), "window_size": 4}, "window_size must divide w = 9, got 4"),
        (
            "lamamba",
            {"grid": (8, 8), "window_size": 4, "shift_size": 4},
            "shift_size must be below window_size",
        ),
        ("lamamba", {"grid": (8, 8), "num_heads": 3}, "num_heads must divide dim = 8, got 3"),
        (
            "lamamba",
            {"grid": (8, 8), "cond_dim": 5, "cond_proj": False},
            "cond_dim must be dim = 8 without cond_proj, got 5",
        ),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        mixers.create(name, **{"dim": 8, **options})
