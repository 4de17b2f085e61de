"""Gated MLPs."""

import numpy
import pytest
from harness import check_differences, outputs
from scipy import special

import mixers
from mixers import zoo


def draw(mixer, *shapes):
    """Parameters off special values (biases start at nearly zero), and inputs."""
    rng = numpy.random.default_rng(0)
    trainable = {n for n, spec in mixer.parameters().items() if spec.trainable}
    params = {
        n: a + 0.1 * rng.standard_normal(a.shape) if n in trainable else a
        for n, a in mixer.init(rng, dtype="float64").items()
    }
    return params, *(rng.standard_normal(shape) for shape in shapes)


def check_mixer(mixer, *shapes, training=False):
    """Gradients of parameters and inputs against central differences."""
    params, *inputs = draw(mixer, *shapes)
    trainable = [n for n, spec in mixer.parameters().items() if spec.trainable]
    names = [f"input {i}" for i in range(len(inputs))]
    arrays = {n: params[n] for n in trainable} | dict(zip(names, inputs))
    call = lambda arrays: ({n: arrays.get(n, a) for n, a in params.items()}, *(arrays[n] for n in names))

    def function(arrays):
        out = mixer(*call(arrays), training=training)
        return out[0] if training else out

    def backward(arrays, dout):
        _, saved = mixer.forward(*call(arrays), training=training)
        dparams, dinputs = mixer.backward(dout, saved)
        return dparams | dict(zip(names, dinputs if isinstance(dinputs, tuple) else (dinputs,)))

    with mixers.use_backend("reference"):
        assert all(numpy.isfinite(o).all() for o in outputs(function(arrays)))
        check_differences(function, backward, arrays)


WINDOWS = {"block_size": (2, 3), "grid_size": (4, 2)}
OPTIONS = {
    "gmlp-image": (zoo.Gmlp(dim=3, grid=(2, 3), hidden_dim=4), (2, 2, 3, 3)),
    "gmlp-no-bias": (zoo.Gmlp(dim=2, grid=(5,), in_bias=False, out_bias=False), (2, 5, 2)),
    "multi_axis_gmlp-no-bias": (
        zoo.MultiAxisGmlp(dim=6, **WINDOWS, use_bias=False, block_gmlp_factor=1),
        (2, 4, 6, 6),
    ),
    "multi_axis_gmlp-narrow": (
        zoo.MultiAxisGmlp(dim=4, **WINDOWS, input_proj_factor=1, grid_gmlp_factor=3, norm_eps=0.1),
        (1, 8, 6, 4),
    ),
    "cross_gating-no-bias": (
        zoo.CrossGating(dim=3, gate_dim=2, features=4, **WINDOWS, upsample_g=False, use_bias=False),
        (1, 4, 6, 3),
        (1, 4, 6, 2),
    ),
    "cross_gating-upsampled": (
        zoo.CrossGating(dim=3, gate_dim=4, features=5, **WINDOWS, use_bias=False, norm_eps=0.1),
        (2, 4, 6, 3),
        (2, 2, 3, 4),
    ),
    "nin_gate-image": (zoo.NinGate(dim=3, grid=(2, 3), token_dim=1, channel_dim=5), (2, 2, 3, 3)),
    "dfc_attention-cut": (
        zoo.DfcAttention(dim=3, out_dim=5, ratio=3, dw_size=1, relu=False),
        (2, 3, 5, 3),
    ),
    "dfc_attention-relu": (zoo.DfcAttention(dim=4, out_dim=3, ratio=2, dw_size=5), (2, 4, 4, 4)),
    "dfc_attention-smallest": (zoo.DfcAttention(dim=2, value="identity"), (1, 2, 2, 2)),
    "coordinate_local_attention-dense": (
        zoo.CoordinateLocalAttention(dim=6, kernel_size=3, conv_groups=1, norm_groups=2),
        (2, 4, 3, 6),
    ),
    "coordinate_local_attention-one-element": (
        zoo.CoordinateLocalAttention(dim=4, kernel_size=1, conv_groups=4, norm_groups=4),
        (2, 1, 3, 4),
    ),
}


@pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
def test_options(given):
    check_mixer(*given)


@pytest.mark.parametrize(
    "mixer",
    [zoo.DfcAttention(dim=3, out_dim=5, ratio=2), zoo.DfcAttention(dim=3, value="identity")],
    ids=["ghost", "identity"],
)
def test_training_of_dfc_attention(mixer):
    """Statistics of the batch: gradients by difference quotients, and running statistics a tenth of the way."""
    check_mixer(mixer, (3, 4, 5, 3), training=True)
    params, x = draw(mixer, (3, 4, 5, 3))
    y, updates = mixer(params, x, training=True)
    assert set(updates) == {n for n, spec in mixer.parameters().items() if not spec.trainable}
    assert not numpy.allclose(y, mixer(params, x))
    pooled = x[:, :, :4].reshape(3, 2, 2, 2, 2, 3).mean(axis=(2, 4)) @ params["w_gate"]
    numpy.testing.assert_allclose(updates["gate_norm1_mean"], 0.1 * pooled.mean(axis=(0, 1, 2)))
    unbiased = pooled.reshape(-1, mixer.out_dim).var(axis=0, ddof=1)
    numpy.testing.assert_allclose(updates["gate_norm1_var"], 0.9 + 0.1 * unbiased)


def test_gmlp_gate_starts_as_the_identity():
    """With its initial values the gate is 1, and the mixer an MLP of the first half of the hidden layer."""
    mixer = zoo.Gmlp(dim=3, grid=(7,), hidden_dim=8)
    p = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 7, 3))
    hidden = x @ p["w_in"] + p["b_in"]
    plain = (hidden * special.ndtr(hidden))[..., :4] @ p["w_out"] + p["b_out"]
    numpy.testing.assert_allclose(mixer(p, x), plain, rtol=1e-3, atol=1e-4)


def test_multi_axis_gmlp_mixes_windows_and_lattices():
    """A token reaches those of its window, and those at its place in the windows of the grid branch."""
    mixer = zoo.MultiAxisGmlp(dim=6, **WINDOWS)
    p, x = draw(mixer, (1, 4, 6, 6))
    other = x.copy()
    other[0, 0, 1, 0] += 1.0
    changed = numpy.abs(mixer(p, other) - mixer(p, x)).max(axis=(0, 3)) > 1e-9
    want = numpy.zeros((4, 6), bool)
    want[0:2, 0:3] = True
    # 4 x 2 windows of 1 x 3 tokens: every row, every third column
    want[:, 1::3] = True
    numpy.testing.assert_array_equal(changed, want)


def test_cross_gating_adds_the_gated_signal():
    """With closed gates both streams are projections: g_out = g0 and y = x0 + g0."""
    mixer = zoo.CrossGating(dim=3, gate_dim=2, features=4, **WINDOWS, upsample_g=False)
    p, x, g = draw(mixer, (2, 4, 6, 3), (2, 4, 6, 2))
    for s in ("x", "g"):
        p[f"{s}_gate_w_out"][...] = p[f"{s}_gate_b_out"][...] = p[f"{s}_b_out"][...] = 0.0
    y, g_out = mixer(p, x, g)
    g0 = g @ p["w_g"] + p["b_g"]
    numpy.testing.assert_allclose(g_out, g0, rtol=1e-12, atol=1e-14)
    numpy.testing.assert_allclose(y, x @ p["w_x"] + p["b_x"] + g0, rtol=1e-12, atol=1e-13)


def test_cross_gating_without_one_cotangent():
    """The signal's gradient counts both outputs, through y alone as well."""
    mixer = zoo.CrossGating(dim=2, gate_dim=2, features=2, **WINDOWS, upsample_g=False)
    p, x, g = draw(mixer, (1, 4, 6, 2), (1, 4, 6, 2))
    gradients = []
    for keep in ((True, True), (True, False), (False, True)):
        out, saved = mixer.forward(p, x, g)
        gradients.append(
            mixer.backward([numpy.ones_like(o) if k else None for o, k in zip(out, keep)], saved)[1]
        )
    for whole, y_only, g_only in zip(*gradients):
        numpy.testing.assert_allclose(whole, y_only + g_only, rtol=1e-9, atol=1e-11)


def test_half_inputs_with_wider_parameters():
    """Whatever the parameters' dtype, outputs have that of the inputs."""
    mixer = zoo.CrossGating(dim=3, gate_dim=4, features=2, **WINDOWS)
    p, x, g = draw(mixer, (1, 4, 6, 3), (1, 2, 3, 4))
    p = {n: a.astype("float32") for n, a in p.items()}
    for out in mixer(p, x.astype("float16"), g.astype("float16")):
        assert out.dtype == numpy.float16


def test_dfc_attention_drops_the_last_odd_row_of_the_gate():
    """An odd last row or column is not pooled, so it cannot change the gate of the others."""
    mixer = zoo.DfcAttention(dim=2, value="identity")
    p, x = draw(mixer, (1, 5, 5, 2))
    other = x.copy()
    other[:, 4], other[:, :, 4] = 3.0, -2.0
    numpy.testing.assert_array_equal(mixer(p, other)[:, :4, :4], mixer(p, x)[:, :4, :4])


def test_coordinate_local_attention_of_a_single_element_per_group():
    """Its normalised value is 0, so the gate is the sigmoid of the bias."""
    mixer = zoo.CoordinateLocalAttention(dim=4, conv_groups=4, norm_groups=4, kernel_size=3)
    p, x = draw(mixer, (2, 1, 1, 4))
    gate = special.expit(p["norm_bias"])
    numpy.testing.assert_allclose(mixer(p, x), x * gate * gate, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "config", "laws"),
    [
        ("gmlp", {"grid": (8,)}, {"b_token": 1.0, "norm_scale": 1.0, "norm_bias": 0.0}),
        ("multi_axis_gmlp", {}, {"b_in": 0.0, "grid_b_token": 0.0, "block_norm_scale": 1.0, "w_in": (0.02,)}),
        (
            "cross_gating",
            {"gate_dim": 16, "features": 16},
            {
                "x_gate_b_grid": 1.0,
                "g_gate_b_block": 1.0,
                "b_x": 0.0,
                "x_gate_w_grid": (0.02,),
                "w_x": (16**-0.5,),
                "g_gate_w_out": (32**-0.5,),
            },
        ),
        ("nin_gate", {"grid": (8,), "token_dim": 9, "channel_dim": 25}, {"token_norm_scale": 1.0}),
        ("dfc_attention", {}, {"gate_norm1_var": 1.0, "gate_norm2_mean": 0.0, "cheap_norm_scale": 1.0}),
        ("coordinate_local_attention", {}, {"norm_scale": 1.0, "norm_bias": 0.0}),
    ],
)
def test_initial_values(name, config, laws):
    """A number is a constant, a tuple the deviation of a normal law."""
    params = mixers.create(name, dim=16, **config).init(0, dtype="float64")
    for parameter, law in laws.items():
        values = params[parameter]
        if isinstance(law, tuple):
            assert abs(values.std() / law[0] - 1) < 0.25, parameter
        else:
            numpy.testing.assert_array_equal(values, law, err_msg=parameter)


@pytest.mark.parametrize(
    ("name", "config", "fan_in"),
    [
        ("nin_gate", {"grid": (8,), "token_dim": 9, "channel_dim": 25}, {"w_token_in": 8, "w_token_out": 9}),
        (
            "nin_gate",
            {"grid": (8,), "token_dim": 9, "channel_dim": 25},
            {"b_channel_in": 16, "w_channel_out": 25},
        ),
        ("dfc_attention", {}, {"w_gate": 16, "w_gate_h": 5, "w_primary": 16, "w_cheap": 9}),
        ("coordinate_local_attention", {"conv_groups": 2, "kernel_size": 5}, {"w_conv": 40}),
    ],
)
def test_initial_bounds(name, config, fan_in):
    """U(+-1/sqrt(fan_in)), the default of PyTorch's linears and convolutions."""
    params = mixers.create(name, dim=16, **config).init(0, dtype="float64")
    for parameter, count in fan_in.items():
        assert 0.7 * count**-0.5 < numpy.abs(params[parameter]).max() <= count**-0.5, parameter


def test_variants_of_coordinate_local_attention():
    """The default is the paper's L: kernel 7, C / 8 convolution groups, 16 norm groups."""
    mixer = zoo.CoordinateLocalAttention(dim=64)
    assert (mixer.kernel_size, mixer.conv_groups, mixer.norm_groups) == (7, 8, 16)
    assert mixer.parameters()["w_conv"].shape == (7, 8, 64)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gmlp", {"grid": (4,), "hidden_dim": 7}, "hidden_dim must be even, got 7"),
        ("gmlp", {"grid": (4,), "hidden_dim": 0}, "hidden_dim must be an integer >= 2, got 0"),
        (
            "multi_axis_gmlp",
            {"dim": 3, "input_proj_factor": 1},
            "input_proj_factor must make dim . factor even",
        ),
        (
            "multi_axis_gmlp",
            {"dim": 3, "block_gmlp_factor": 1},
            "block_gmlp_factor must make 3 . factor even",
        ),
        ("multi_axis_gmlp", {"block_size": (8,)}, r"block_size must be a pair of integers, got \(8,\)"),
        ("cross_gating", {"gate_dim": 0, "features": 4}, "gate_dim must be an integer >= 1, got 0"),
        ("cross_gating", {"gate_dim": 4, "features": 0}, "features must be an integer >= 1, got 0"),
        (
            "nin_gate",
            {"grid": (4,), "token_dim": 0, "channel_dim": 4},
            "token_dim must be an integer >= 1, got 0",
        ),
        (
            "nin_gate",
            {"grid": (4,), "token_dim": 4, "channel_dim": 0},
            "channel_dim must be an integer >= 1, got 0",
        ),
        ("dfc_attention", {"value": "gate"}, "value must be one of 'ghost', 'identity', got 'gate'"),
        (
            "dfc_attention",
            {"value": "identity", "out_dim": 4},
            "out_dim must be dim = 8 with value 'identity'",
        ),
        ("dfc_attention", {"ratio": 1}, "ratio must be an integer >= 2, got 1"),
        ("dfc_attention", {"dw_size": 2}, "dw_size must be an odd integer >= 1, got 2"),
        ("coordinate_local_attention", {"kernel_size": 4}, "kernel_size must be an odd integer >= 1, got 4"),
        ("coordinate_local_attention", {"conv_groups": 3}, "conv_groups must divide dim = 8, got 3"),
        ("coordinate_local_attention", {"norm_groups": 16}, "norm_groups must divide dim = 8, got 16"),
    ],
)
def test_rejected_options(name, config, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        mixers.create(name, **{"dim": 8} | config)


@pytest.mark.parametrize(
    ("mixer", "shapes", "message"),
    [
        (
            zoo.MultiAxisGmlp(dim=2, **WINDOWS),
            [(1, 5, 6, 2)],
            r"multi_axis_gmlp: x must have a token grid that block_size = \(2, 3\) divides, got \(5, 6\)",
        ),
        (
            zoo.MultiAxisGmlp(dim=2, **WINDOWS),
            [(1, 6, 6, 2)],
            r"multi_axis_gmlp: x must have a token grid that grid_size = \(4, 2\) divides, got \(6, 6\)",
        ),
        (
            zoo.CrossGating(dim=2, gate_dim=3, features=2, **WINDOWS, upsample_g=False),
            [(1, 4, 6, 2), (1, 2, 3, 3)],
            r"cross_gating: g must have shape \(b, h, w, c\) = \(1, 4, 6, 3\), got \(1, 2, 3, 3\)",
        ),
        (
            zoo.CrossGating(dim=2, gate_dim=3, features=2, **WINDOWS),
            [(1, 4, 6, 2), (1, 4, 6, 3)],
            r"cross_gating: g must have shape \(b, h, w, c\) = \(1, 2, 3, 3\), got \(1, 4, 6, 3\)",
        ),
        (
            zoo.CrossGating(dim=2, gate_dim=3, features=2, block_size=(2, 3), grid_size=(2, 3)),
            [(1, 4, 3, 2), (1, 2, 1, 3)],
            r"cross_gating: x must have an even grid with upsample_g=True, got \(4, 3\)",
        ),
        (
            zoo.DfcAttention(dim=2),
            [(1, 1, 4, 2)],
            r"dfc_attention: x must have h, w >= 2, got \(1, 1, 4, 2\)",
        ),
    ],
)
def test_rejected_inputs(mixer, shapes, message):
    with pytest.raises(ValueError, match=message):
        mixer(mixer.init(0), *(numpy.zeros(shape, numpy.float32) for shape in shapes))
