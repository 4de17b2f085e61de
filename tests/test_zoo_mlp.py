"""Pooling and MLP token mixers."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import zoo


def draw(mixer, shape):
    """Parameters off special values (biases start at nearly zero), and an input."""
    rng = numpy.random.default_rng(0)
    trainable = {n for n, spec in mixer.parameters().items() if spec.trainable}
    params = {
        n: a + 0.1 * rng.standard_normal(a.shape) if n in trainable else a
        for n, a in mixer.init(rng, dtype="float64").items()
    }
    return params, rng.standard_normal(shape)


def check_mixer(mixer, shape, training=False):
    """Gradients of parameters and input against central differences, on a grid."""
    params, x = draw(mixer, shape)
    trainable = [n for n, spec in mixer.parameters().items() if spec.trainable]
    arrays = {n: params[n] for n in trainable} | {"x": x}
    merged = lambda arrays: {n: arrays.get(n, a) for n, a in params.items()}
    first = lambda out: out[0] if training else out

    def function(arrays):
        return first(mixer(merged(arrays), arrays["x"], training=training))

    def backward(arrays, dout):
        _, saved = mixer.forward(merged(arrays), arrays["x"], training=training)
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        assert function(arrays).shape == (*shape[:-1], getattr(mixer, "out_dim", shape[-1]))
        check_differences(function, backward, arrays)


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 5, 4, 3)])
@pytest.mark.parametrize("pool_size", [1, 3, 5])
def test_pool(shape, pool_size):
    check_mixer(zoo.Pool(dim=3, pool_size=pool_size), shape)


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (zoo.MlpMixer(dim=3, grid=(7,), hidden=5), (2, 7, 3)),
        (zoo.MlpMixer(dim=3, grid=(2, 4), hidden=9), (2, 2, 4, 3)),
        (zoo.MlpMixer(dim=2, grid=(6,), hidden=1, activation="gelu_tanh"), (1, 6, 2)),
        (zoo.MlpMixer(dim=4, grid=(3, 3), hidden=4, bias=False), (2, 3, 3, 4)),
        (zoo.MlpMixer(dim=1, grid=(1,), hidden=2), (3, 1, 1)),
    ],
    ids=["sequence", "image", "gelu_tanh", "no-bias", "one-of-each"],
)
def test_mlp_mixer(mixer, shape):
    check_mixer(mixer, shape)


def test_pool_of_a_constant_is_zero():
    """Only tokens inside the grid are counted, so nothing is lost at the border."""
    y = zoo.Pool(dim=2, pool_size=5)({}, numpy.ones((1, 4, 6, 2)))
    numpy.testing.assert_allclose(y, 0.0, atol=1e-15)


def test_mlp_mixer_reads_images_row_by_row():
    """A sequence and an image with as many tokens give the same, whatever grid the mixer was made for."""
    mixer = zoo.MlpMixer(dim=3, grid=(2, 4), hidden=5)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 2, 4, 3))
    y = mixer(params, x)
    numpy.testing.assert_array_equal(mixer(params, x.reshape(2, 8, 3)), y.reshape(2, 8, 3))


def test_mlp_mixer_treats_channels_alike():
    mixer = zoo.MlpMixer(dim=3, grid=(8,), hidden=5)
    params = mixer.init(0, dtype="float64")
    x = numpy.random.default_rng(1).standard_normal((2, 8, 3))
    swapped = mixer(params, numpy.ascontiguousarray(x[:, :, ::-1]))
    numpy.testing.assert_allclose(swapped[:, :, ::-1], mixer(params, x), rtol=1e-12, atol=1e-15)


def test_mlp_mixer_parameters():
    mixer = mixers.create("mlp_mixer", dim=3, grid=[4, 4], hidden=5)
    params = mixer.init(0)
    assert {n: a.shape for n, a in params.items()} == {
        "w_in": (5, 16),
        "b_in": (5,),
        "w_out": (16, 5),
        "b_out": (16,),
    }
    bound = (6 / 21) ** 0.5
    assert 0.9 * bound < numpy.abs(params["w_in"]).max() <= bound
    assert 0 < numpy.abs(params["b_out"]).max() < 1e-5
    assert mixer.parameter_count == 2 * 5 * 16 + 5 + 16
    assert list(zoo.MlpMixer(dim=3, grid=(4,), hidden=5, bias=False).parameters()) == ["w_in", "w_out"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": 0}, "mlp_mixer: hidden must be an integer >= 1, got 0"),
        ({"grid": ()}, r"mlp_mixer: grid must be \(l,\) or \(h, w\), got \(\)"),
        ({"grid": (2, 0)}, "mlp_mixer: grid size must be an integer >= 1, got 0"),
        ({"activation": "relu"}, "mlp_mixer: activation must be one of 'gelu', 'gelu_tanh', got 'relu'"),
        ({"dim": 0}, "mlp_mixer: dim must be an integer >= 1, got 0"),
    ],
)
def test_mlp_mixer_rejects_options(config, message):
    with pytest.raises(ValueError, match=message):
        zoo.MlpMixer(**{"dim": 3, "grid": (4,), "hidden": 2} | config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"grid": 4}, r"mlp_mixer: grid must be \(l,\) or \(h, w\), got 4"),
        ({"hidden": 2.0}, r"mlp_mixer: hidden must be an integer >= 1, got 2\.0"),
        ({"bias": 1}, "mlp_mixer: bias must be True or False, got 1"),
    ],
)
def test_mlp_mixer_rejects_types(config, message):
    with pytest.raises(TypeError, match=message):
        zoo.MlpMixer(**{"dim": 3, "grid": (4,), "hidden": 2} | config)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 5, 3),
            r"mlp_mixer: x must have the token grid \(4,\) .* got \(5,\); create the mixer with grid=\(5,\)",
        ),
        ((2, 2, 3, 3), r"mlp_mixer: x must have the token grid \(4,\) .* got \(2, 3\)"),
        (
            (2, 4, 4),
            r"mlp_mixer: x must have shape \(b, l, c\) or \(b, h, w, c\) with c = 3, got \(2, 4, 4\)",
        ),
    ],
)
def test_mlp_mixer_rejects_inputs(shape, message):
    mixer = zoo.MlpMixer(dim=3, grid=(4,), hidden=2)
    with pytest.raises(ValueError, match=message):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))


@pytest.mark.parametrize("pool_size", [0, 2, -3])
def test_pool_rejects_sizes(pool_size):
    with pytest.raises(ValueError, match=f"pool: pool_size must be an odd integer >= 1, got {pool_size}"):
        zoo.Pool(dim=3, pool_size=pool_size)


def test_pool_rejects_inputs():
    with pytest.raises(ValueError, match=r"pool: x must have shape .* with c = 3, got \(2, 3\)"):
        zoo.Pool(dim=3)({}, numpy.zeros((2, 3)))


OPTIONS = {
    "res_mlp-image": (zoo.ResMlp(dim=3, grid=(2, 3)), (2, 2, 3, 3)),
    "res_mlp-no-bias": (zoo.ResMlp(dim=2, grid=(5,), affine=True, bias=False), (2, 5, 2)),
    "raft_layer-one": (zoo.RaftLayer(dim=3, grid=(4, 3), axis="h", raft_size=1, expansion=1), (2, 4, 3, 3)),
    "raft_layer-all": (zoo.RaftLayer(dim=3, grid=(2, 3), axis="w", raft_size=3, expansion=3), (2, 2, 3, 3)),
    "raft_mlp-wide": (zoo.RaftMlp(dim=6, grid=(2, 5), raft_size=3, expansion=1), (1, 2, 5, 6)),
    "strip_layer-one-group": (
        zoo.StripLayer(dim=4, grid=(3, 5), axis="h", groups=1, strip_width=5),
        (2, 3, 5, 4),
    ),
    "strip_layer-no-bias": (
        zoo.StripLayer(dim=6, grid=(3, 4), axis="w", groups=6, strip_width=1, bias=False),
        (2, 3, 4, 6),
    ),
    "strip_cgsmm": (zoo.StripCgsmm(dim=4, grid=(2, 5), groups=1, strip_width=5, eps=0.1), (2, 2, 5, 4)),
    "strip_lsmm": (zoo.StripLsmm(dim=3, kernel=3, strip_width=1), (2, 4, 3, 3)),
    "strip_lsmm-points": (zoo.StripLsmm(dim=2, kernel=1, strip_width=1), (1, 2, 3, 2)),
    "strip_mlp": (zoo.StripMlp(dim=6, grid=(3, 2), groups=3, strip_width=1, kernel=5), (2, 3, 2, 6)),
    "mix_shift-beyond": (zoo.MixShift(dim=5, shifts=[7, 0, -9], kernels=[5, 1, 3]), (2, 3, 4, 5)),
    "mix_shift-one": (zoo.MixShift(dim=3, shifts=(1,), kernels=(3,)), (2, 4, 3, 3)),
    "axial_shift-none": (zoo.AxialShift(dim=3, shift_size=1, bias=False), (2, 3, 4, 3)),
    "axial_shift-few": (zoo.AxialShift(dim=4, shift_size=7, eps=0.1), (2, 5, 3, 4)),
    "spatial_shift-one": (zoo.SpatialShift(dim=1), (2, 3, 2, 1)),
    "spatial_shift-line": (zoo.SpatialShift(dim=6), (2, 1, 4, 6)),
    "spatial_shift_v2-three": (zoo.SpatialShiftV2(dim=3), (2, 3, 4, 3)),
    "spatial_shift_v2-line": (zoo.SpatialShiftV2(dim=5), (1, 4, 1, 5)),
    "cycle_fc-wider": (zoo.CycleFc(dim=5, axis="h", kernel=5, out_dim=7, bias=False), (2, 4, 3, 5)),
    "cycle_fc-narrower": (zoo.CycleFc(dim=4, axis="w", kernel=1, out_dim=2), (2, 4, 3, 4)),
    "cycle_mlp": (zoo.CycleMlp(dim=5, kernel=5, bias_c=True), (2, 4, 3, 5)),
}


@pytest.mark.parametrize(("mixer", "shape"), OPTIONS.values(), ids=OPTIONS)
def test_options(mixer, shape):
    check_mixer(mixer, shape)


@pytest.mark.parametrize("name", ["strip_cgsmm", "strip_mlp"])
def test_training(name):
    """Statistics of the batch: gradients by difference quotients, and running statistics a tenth of the way."""
    mixer = mixers.create(name, dim=4, grid=(2, 3), groups=2)
    shape = (3, 2, 3, 4)
    check_mixer(mixer, shape, training=True)
    params, x = draw(mixer, shape)
    y, updates = mixer(params, x, training=True)
    running = {n for n, spec in mixer.parameters().items() if not spec.trainable}
    assert set(updates) == running
    assert y.shape == shape
    assert not numpy.allclose(y, mixer(params, x))
    if name == "strip_mlp":
        numpy.testing.assert_allclose(updates["bn_in_mean"], 0.1 * x.mean(axis=(0, 1, 2)))
        want = 0.9 + 0.1 * x.reshape(-1, 4).var(axis=0, ddof=1)
        numpy.testing.assert_allclose(updates["bn_in_var"], want)
        assert updates["cg_bn_mean"].shape == (2,)


def test_res_mlp_folds_into_one_product():
    """post pre (w x) + post (pre_bias sum(w) + b), which is how a trained layer can be deployed."""
    mixer = zoo.ResMlp(dim=3, grid=(5,), affine=True)
    p, x = draw(mixer, (2, 5, 3))
    folded = p["post_scale"] * p["pre_scale"] * (p["w"] @ x)
    folded += p["post_scale"] * (p["pre_bias"] * p["w"].sum(axis=1)[:, None] + p["b"][:, None])
    numpy.testing.assert_allclose(mixer(p, x), folded, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("axis", ["h", "w"])
def test_raft_layer_second_form(axis):
    """Vector by vector: channels a C / r + m of one line, the raft index slower than the position."""
    mixer = zoo.RaftLayer(dim=6, grid=(3, 4), axis=axis, raft_size=2, expansion=2)
    p, x = draw(mixer, (2, 3, 4, 6))
    want = numpy.empty_like(x)
    lines = 4 if axis == "h" else 3
    for b in range(2):
        for line in range(lines):
            for m in range(3):
                at = (b, slice(None), line) if axis == "h" else (b, line)
                vector = numpy.concatenate([x[at][:, a * 3 + m] for a in range(2)])
                with mixers.use_backend("reference"):
                    hidden = mixers.ops.gelu(p["w_in"] @ vector + p["b_in"])
                y = p["w_out"] @ hidden + p["b_out"]
                for a, part in enumerate(numpy.split(y, 2)):
                    want[at][:, a * 3 + m] = part
    numpy.testing.assert_allclose(mixer(p, x), want, rtol=1e-11, atol=1e-13)


def test_raft_mlp_residual_adds_the_input():
    plain = zoo.RaftMlp(dim=4, grid=(2, 3), raft_size=2)
    p, x = draw(plain, (2, 2, 3, 4))
    whole = zoo.RaftMlp(dim=4, grid=(2, 3), raft_size=2, residual=True)
    numpy.testing.assert_allclose(whole(p, x), plain(p, x) + x, rtol=1e-12, atol=1e-14)


def test_spatial_shift_second_form():
    """All groups move at once, and the line that nothing moves into keeps its values."""
    mixer = zoo.SpatialShift(dim=10)
    p, x = draw(mixer, (2, 4, 3, 10))
    with mixers.use_backend("reference"):
        a = mixers.ops.gelu(x @ p["w_in"] + p["b_in"])
        z = a.copy()
        z[:, 1:, :, :2] = a[:, :-1, :, :2]
        z[:, :-1, :, 2:5] = a[:, 1:, :, 2:5]
        z[:, :, 1:, 5:7] = a[:, :, :-1, 5:7]
        z[:, :, :-1, 7:] = a[:, :, 1:, 7:]
        numpy.testing.assert_allclose(mixer(p, x), z @ p["w_out"] + p["b_out"], rtol=1e-12, atol=1e-14)


def test_mix_shift_second_form():
    """Roll, pad with zeros, correlate."""
    mixer = zoo.MixShift(dim=3, shifts=(2, -1), kernels=(3, 1))
    p, x = draw(mixer, (1, 4, 3, 3))
    want = numpy.zeros_like(x)
    for j, (channels, k) in enumerate((((0, 1), 3), ((2,), 1))):
        for way, axis in (("lr", 2), ("td", 1)):
            rolled = numpy.roll(x, mixer.shifts[j], axis=axis)
            padded = numpy.pad(rolled, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
            for i, c in enumerate(channels):
                want[..., c] += p[f"b_{way}_{j}"][i]
                for r in range(k):
                    for s in range(k):
                        want[..., c] += p[f"w_{way}_{j}"][r, s, i] * padded[:, r : r + 4, s : s + 3, c]
    numpy.testing.assert_allclose(mixer(p, x), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("dim", "size", "shifts"),
    [
        (10, 5, [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2]),
        (7, 3, [-1, -1, -1, 0, 0, 0, 1]),
        # two channels to a group: three groups of five, which start at -2 all the same
        (6, 5, [-2, -2, -1, -1, 0, 0]),
        (2, 7, [-3, -2]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_axial_shift_displacements(dim, size, shifts):
    """A channel's content moves by its displacement: seen through linear maps that are the identity."""
    mixer = zoo.AxialShift(dim=dim, shift_size=size)
    numpy.testing.assert_array_equal(mixer._shifts, shifts)


def test_cycle_fc_reads_at_offsets():
    """Channel 0 at its own place, 1 one further, 2 one before, and so on."""
    mixer = zoo.CycleFc(dim=4, axis="w", kernel=3)
    x = numpy.random.default_rng(0).standard_normal((1, 2, 5, 4))
    y = mixer({"w": numpy.eye(4), "b": numpy.zeros(4)}, x)
    padded = numpy.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for c, offset in enumerate((0, 1, -1, 0)):
        numpy.testing.assert_array_equal(y[..., c], padded[:, :, 1 + offset : 6 + offset, c])


@pytest.mark.parametrize(
    ("name", "weights", "laws"),
    [
        (
            "res_mlp",
            {"affine": True, "grid": (12,)},
            {"w": 0.02, "post_scale": 0.1, "pre_scale": 1.0, "b": 0.0},
        ),
        ("raft_layer", {"grid": (6, 4), "axis": "h"}, {"w_in": (24, 48), "b_in": (24,), "w_out": (48,)}),
        ("strip_layer", {"grid": (6, 4), "axis": "w"}, {"w": (12,), "b": (12,)}),
        ("strip_lsmm", {}, {"w_wide": (21,), "w_tall": (21,), "w_in": (16,), "w_out": (8,), "b_out": (8,)}),
        (
            "strip_cgsmm",
            {"grid": (6, 4)},
            {"pos_row": 0.02, "w_fuse_row": (32,), "bn_scale": 1.0, "bn_var": 1.0},
        ),
        ("mix_shift", {"dim": 15}, {"w_lr_4": (49,), "w_td_3": (25,)}),
        ("axial_shift", {}, {"w_in": (16,), "b_td": (16,), "norm1_scale": 1.0}),
        ("spatial_shift_v2", {}, {"w_in": (16,), "b_in": (16,), "w_att_out": (16,)}),
        ("cycle_mlp", {}, {"w_row": 0.02, "b_row": 0.0, "b_att_out": 0.0, "w_out": 0.02}),
    ],
)
def test_initial_values(name, weights, laws):
    """A tuple is the fan-in of U(+-1/sqrt(fan_in)); 0.02 the deviation of a normal law, others a constant."""
    params = mixers.create(name, **{"dim": 16} | weights).init(0, dtype="float64")
    for parameter, law in laws.items():
        values = params[parameter]
        if isinstance(law, tuple):
            bound = law[0] ** -0.5
            assert 0.6 * bound < numpy.abs(values).max() <= bound, parameter
        elif law == 0.02:
            assert abs(values.std() / 0.02 - 1) < 0.35, parameter
        else:
            numpy.testing.assert_array_equal(values, law, err_msg=parameter)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("raft_layer", {"grid": (4, 4), "axis": "h", "raft_size": 3}, "raft_size must divide dim = 8, got 3"),
        (
            "raft_layer",
            {"grid": (4, 4), "axis": "h", "raft_size": 0},
            "raft_size must be an integer >= 1, got 0",
        ),
        (
            "raft_layer",
            {"grid": (4, 4), "axis": "h", "expansion": 0},
            "expansion must be an integer >= 1, got 0",
        ),
        ("raft_layer", {"grid": (4, 4), "axis": "x"}, "axis must be one of 'h', 'w', got 'x'"),
        ("raft_layer", {"grid": (4,), "axis": "h"}, r"grid must be \(h, w\), got \(4,\)"),
        ("raft_mlp", {"grid": (4, 4), "raft_size": 5}, "raft_size must divide dim = 8, got 5"),
        ("raft_mlp", {"grid": (4, 4), "eps": -1.0}, "eps must be >= 0.0, got -1.0"),
        ("strip_layer", {"grid": (4, 4), "axis": "w", "groups": 3}, "groups must divide dim = 8, got 3"),
        (
            "strip_layer",
            {"grid": (4, 4), "axis": "w", "strip_width": 2},
            "strip_width must be an odd integer >= 1",
        ),
        ("strip_layer", {"grid": (4, 4), "axis": "v"}, "axis must be one of 'w', 'h', got 'v'"),
        ("strip_cgsmm", {"grid": (4, 4), "groups": 5}, "groups must divide dim = 8, got 5"),
        ("strip_cgsmm", {"grid": (4, 4), "strip_width": 4}, "strip_width must be an odd integer >= 1, got 4"),
        ("strip_lsmm", {"dim": 1}, "dim must be >= 2, got 1"),
        ("strip_lsmm", {"kernel": 6}, "kernel must be an odd integer >= 1, got 6"),
        ("strip_lsmm", {"strip_width": 2}, "strip_width must be an odd integer >= 1, got 2"),
        ("strip_mlp", {"grid": (4, 4), "dim": 7}, "dim must be even and >= 4, got 7"),
        ("strip_mlp", {"grid": (4, 4), "groups": 8}, "groups must divide dim / 2 = 4, got 8"),
        ("strip_mlp", {"grid": (4, 4), "kernel": 2}, "kernel must be an odd integer >= 1, got 2"),
        ("mix_shift", {"dim": 6}, "dim must fill 5 groups of 2 channels, got 6, which fills 3"),
        ("mix_shift", {"kernels": (1, 2, 3, 5, 7)}, "each of kernels must be an odd integer >= 1, got 2"),
        ("mix_shift", {"kernels": (1, 3)}, "kernels must be as many as shifts = 5, got 2"),
        ("mix_shift", {"shifts": ()}, r"shifts must be a sequence of at least one integer, got \(\)"),
        ("axial_shift", {"shift_size": 4}, "shift_size must be an odd integer >= 1, got 4"),
        ("spatial_shift", {"dim": 0}, "dim must be an integer >= 1, got 0"),
        ("spatial_shift_v2", {"dim": 0}, "dim must be an integer >= 1, got 0"),
        ("cycle_fc", {"axis": "w", "kernel": 4}, "kernel must be an odd integer >= 1, got 4"),
        ("cycle_fc", {"axis": "d"}, "axis must be one of 'w', 'h', got 'd'"),
        ("cycle_fc", {"axis": "w", "out_dim": 0}, "out_dim must be an integer >= 1, got 0"),
        ("cycle_mlp", {"dim": 3}, "dim must be >= 4, got 3"),
        ("cycle_mlp", {"kernel": 2}, "kernel must be an odd integer >= 1, got 2"),
    ],
)
def test_rejected_options(name, config, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        mixers.create(name, **{"dim": 8} | config)


@pytest.mark.parametrize("name", ["raft_layer", "raft_mlp", "strip_layer", "strip_cgsmm", "strip_mlp"])
def test_images_of_another_grid_are_rejected(name):
    """Nothing is interpolated."""
    axis = {"axis": "w"} if name in ("raft_layer", "strip_layer") else {}
    mixer = mixers.create(name, dim=8, grid=(3, 4), **axis)
    with pytest.raises(ValueError, match=rf"{name}: x must have the token grid \(3, 4\) .* got \(4, 3\)"):
        mixer(mixer.init(0), numpy.zeros((1, 4, 3, 8), numpy.float32))


@pytest.mark.parametrize("name", ["raft_layer", "strip_layer"])
def test_only_the_mixed_axis_is_tied(name):
    mixer = mixers.create(name, dim=8, grid=(3, 4), axis="w")
    params, x = draw(mixer, (1, 7, 4, 8))
    assert mixer(params, x).shape == x.shape
