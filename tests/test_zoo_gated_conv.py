"""Gated and plain convolutional mixers."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import ops, samples, zoo
from mixers.mixer import as_dtype
from mixers.zoo.gated_conv.gated import resized


def drawn(mixer, rng):
    """Parameters away from their start, where zeros and ones would hide mistakes."""
    params = mixer.init(rng, dtype="float64")
    noise = {n: 0.3 * rng.standard_normal(a.shape) for n, a in params.items()}
    return {n: a + (abs(noise[n]) if n.endswith("_var") else noise[n]) for n, a in params.items()}


def check_mixer(mixer, x, training=False):
    """Gradients of all trained parameters and of x against difference quotients."""
    params = drawn(mixer, numpy.random.default_rng(0))
    names = [n for n, spec in mixer.parameters().items() if spec.trainable]
    first = lambda out: out[0] if training else out

    def function(arrays):
        return first(mixer(params | {n: arrays[n] for n in names}, arrays["x"], training=training))

    def backward(arrays, dout):
        given = params | {n: arrays[n] for n in names}
        _, saved = mixer.forward(given, arrays["x"], training=training)
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        check_differences(function, backward, {n: params[n] for n in names} | {"x": x})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gated_cnn", {"dim": 6, "kernel_size": 3}),
        ("gated_cnn", {"dim": 6, "kernel_size": 1, "expansion_ratio": 1.0}),
        ("gated_cnn", {"dim": 4, "kernel_size": 5, "expansion_ratio": 2.0, "conv_ratio": 0.5}),
        ("gnconv", {"dim": 3, "order": 1, "kernel_size": 3}),
        ("gnconv", {"dim": 8, "order": 4, "kernel_size": 5, "scale": 0.7}),
        ("gnconv", {"dim": 4, "order": 1, "filter": "gf", "filter_h": 4, "filter_w": 2}),
        ("gnconv", {"dim": 8, "order": 3, "filter": "gf", "filter_h": 2, "filter_w": 5, "scale": -0.5}),
        ("gnconv", {"dim": 4, "order": 2, "filter": "gf", "filter_h": 1, "filter_w": 1}),
        ("lka", {"dim": 3, "local_kernel": 3, "dilated_kernel": 5, "dilation": 2}),
        ("lka", {"dim": 3, "projections": False, "local_kernel": 1, "dilated_kernel": 3, "dilation": 1}),
        ("ffnified_attention", {"dim": 3, "key_kernel": 3, "value_kernel": 3}),
        ("ffnified_attention", {"dim": 3, "norm": "none", "activation": "relu", "in_bias": True}),
        ("ffnified_attention", {"dim": 3, "key_kernel": 3, "key_reparam": True, "norm": "layer"}),
        ("ffnified_attention", {"dim": 3, "value_reparam": False, "in_bias": True}),
        ("catm", {"dim": 5, "qkv_bias": True}),
        ("separable_conv", {"dim": 3, "kernel_size": 5, "act1": "identity", "act2": "star_relu"}),
        ("separable_conv", {"dim": 3, "kernel_size": 3, "act1": "squared_relu", "act2": "gelu"}),
        ("separable_conv", {"dim": 3, "act1": "gelu", "act2": "relu", "bias": True, "expansion_ratio": 1.5}),
        ("conv_mixer", {"dim": 3, "kernel_size": 4}),
        ("conv_mixer", {"dim": 3, "kernel_size": 1}),
    ],
)
def test_gradients(name, config):
    x = numpy.random.default_rng(1).standard_normal((2, 4, 3, config["dim"]))
    check_mixer(mixers.create(name, **config), x)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ffnified_attention", {"key_kernel": 3, "key_reparam": True}),
        ("catm", {}),
        ("conv_mixer", {"kernel_size": 3}),
    ],
)
def test_training_takes_statistics_of_the_batch(name, config):
    mixer = mixers.create(name, dim=3, **config)
    x = 2.0 + numpy.random.default_rng(1).standard_normal((2, 4, 3, 3))
    check_mixer(mixer, x, training=True)
    params = drawn(mixer, numpy.random.default_rng(0))
    running = [n for n, spec in mixer.parameters().items() if not spec.trainable]
    with mixers.use_backend("reference"):
        trained, updates = mixer(params, x, training=True)
        fixed = mixer(params, x)
        # other running statistics change the result with fixed ones, and only there
        other = params | {n: params[n] + 0.5 for n in running}
        assert set(updates) == set(running)
        assert not numpy.allclose(mixer(other, x), fixed)
        numpy.testing.assert_array_equal(mixer(other, x, training=True)[0], trained)
    for n in running:
        assert not numpy.allclose(updates[n], params[n])


def test_conv_mixer_updates():
    """The running statistics move a tenth of the way, towards the unbiased variance."""
    mixer = zoo.ConvMixer(dim=2, kernel_size=3)
    params = drawn(mixer, numpy.random.default_rng(0))
    x = numpy.random.default_rng(1).standard_normal((2, 5, 4, 2))
    with mixers.use_backend("reference"):
        _, updates = mixer(params, x, training=True)
        c = ops.gelu(ops.depthwise_conv2d(x, params["w_dw"], params["b_dw"])).reshape(-1, 2)
    want = 0.9 * params["norm_mean"] + 0.1 * c.mean(axis=0)
    numpy.testing.assert_allclose(updates["norm_mean"], want, rtol=1e-12)
    want = 0.9 * params["norm_var"] + 0.1 * c.var(axis=0, ddof=1)
    numpy.testing.assert_allclose(updates["norm_var"], want, rtol=1e-12)


@pytest.mark.parametrize("k", [3, 7, 11])
def test_ffnified_attention_folds_its_norms(k):
    """With fixed statistics one convolution stands for two and their norms."""
    mixer = zoo.FfnifiedAttention(dim=3, key_kernel=k, value_kernel=1, key_reparam=True)
    p = drawn(mixer, numpy.random.default_rng(0))
    x = numpy.random.default_rng(1).standard_normal((2, 9, 6, 3))
    norm = lambda name, z: ops.batch_norm(
        z, *(p[f"{name}_{part}"] for part in ("scale", "bias", "mean", "var"))
    )
    with mixers.use_backend("reference"):
        q = norm("norm", ops.linear(x, p["w_in"]))
        a = norm("key_norm", ops.depthwise_conv2d(q, p["w_key"]))
        a = a + norm("key_small_norm", ops.depthwise_conv2d(q, p["w_key_small"]))
        want = ops.depthwise_conv2d(ops.gelu(a), p["w_value"], p["b_value"])
        numpy.testing.assert_allclose(mixer(p, x), want, rtol=1e-11, atol=1e-13)


def test_ffnified_attention_forms():
    """Two branches by default for kernels of 7 only."""
    assert zoo.FfnifiedAttention(dim=3).key_reparam is True
    mixed = zoo.FfnifiedAttention(dim=3, key_kernel=5, norm="none")
    assert (mixed.key_reparam, mixed.value_reparam) == (False, True)
    assert [n for n in mixed.parameters() if "norm" not in n] == [
        "w_in",
        "w_key",
        "b_key",
        "w_value",
        "w_value_small",
    ]


def test_gnconv_of_order_one_is_a_gated_convolution():
    mixer = zoo.Gnconv(dim=3, order=1, scale=0.5, kernel_size=3)
    p = drawn(mixer, numpy.random.default_rng(0))
    x = numpy.random.default_rng(1).standard_normal((1, 4, 5, 3))
    with mixers.use_backend("reference"):
        f = ops.linear(x, p["w_in"], p["b_in"])
        m = 0.5 * ops.depthwise_conv2d(f[..., 3:], p["w_dw"], p["b_dw"])
        want = ops.linear(f[..., :3] * m, p["w_out"], p["b_out"])
        numpy.testing.assert_allclose(mixer(p, x), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new"), [((4, 3), (7, 5)), ((7, 5), (4, 3)), ((5, 1), (1, 4)), ((3, 3), (3, 3))]
)
def test_tables_are_resized_between_aligned_corners(old, new):
    """A function that is linear along each axis stays the same function; other values by their two neighbours."""
    places = lambda n: numpy.linspace(0.0, 1.0, n) if n > 1 else numpy.zeros(1)
    linear = lambda grid: (2.0 + places(grid[0]))[:, None, None] * (3.0 - places(grid[1]))[None, :, None]
    table = linear(old)
    with mixers.use_backend("reference"):
        if old[1] > 1:
            numpy.testing.assert_allclose(resized(table, new), linear(new), rtol=1e-12)
        table = numpy.random.default_rng(0).standard_normal((*old, 2))
        got = resized(table, new)
    for p in range(new[0]):
        for q in range(new[1]):
            value = 0.0
            for i, j, weight in _neighbours(p, q, old, new):
                value = value + weight * table[i, j]
            numpy.testing.assert_allclose(got[p, q], value, rtol=1e-10, atol=1e-12)


def _neighbours(p, q, old, new):
    """Cells and weights of bilinear interpolation, as the equations have it."""
    corners = []
    for at, n, m in zip((p, q), old, new, strict=True):
        position = at * (n - 1) / (m - 1) if m > 1 else 0.0
        low = min(int(position + 1e-12), n - 1)
        corners.append(((low, 1.0 - (position - low)), (min(low + 1, n - 1), position - low)))
    return [(i, j, a * b) for i, a in corners[0] for j, b in corners[1]]


def test_lka_without_projections_is_the_inner_part():
    whole, inner = zoo.Lka(dim=3), zoo.Lka(dim=3, projections=False)
    p = drawn(whole, numpy.random.default_rng(0))
    x = numpy.random.default_rng(1).standard_normal((1, 6, 5, 3))
    own = {n: p[n] for n in inner.parameters()}
    with mixers.use_backend("reference"):
        u = ops.gelu(ops.linear(x, p["w_in"], p["b_in"]))
        want = ops.linear(inner(own, u), p["w_out"], p["b_out"]) + x
        numpy.testing.assert_allclose(whole(p, x), want, rtol=1e-12)


def test_random_mixing_is_frozen():
    for trainable in (False, True):
        mixer = zoo.RandomMixing(dim=4, grid=(3, 2), trainable=trainable)
        params = mixer.init(0, dtype="float64")
        numpy.testing.assert_allclose(params["w"].sum(axis=1), 1.0, rtol=1e-12)
        assert mixer.parameter_count == (36 if trainable else 0)
        assert mixer.parameters()["w"].frozen is not trainable
        x = numpy.random.default_rng(1).standard_normal((2, 3, 2, 4))
        y, saved = mixer.forward(params, x)
        # the gradient is there all the same
        assert mixer.backward(y, saved)[0]["w"].shape == (6, 6)
        as_sequence = mixer(params, x.reshape(2, 6, 4))
        numpy.testing.assert_array_equal(as_sequence.reshape(y.shape), y)


def test_training_leaves_frozen_parameters():
    from mixers import training

    mixer = zoo.RandomMixing(dim=4, grid=(6,))
    params = mixer.init(0)
    before = params["w"].copy()
    optimizer = training.AdamW(params, weight_decay=0.1)
    cost = lambda y: (float((y * y).sum()), 2.0 * y)
    training.step(mixer, params, optimizer, numpy.ones((1, 6, 4), "float32"), cost, 0.1)
    numpy.testing.assert_array_equal(params["w"], before)
    mixer = zoo.RandomMixing(dim=4, grid=(6,), trainable=True)
    training.step(mixer, params, optimizer, numpy.ones((1, 6, 4), "float32"), cost, 0.1)
    assert (params["w"] != before).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_identity_mixing_copies(dtype):
    mixer = zoo.IdentityMixing(dim=3)
    x = numpy.array([[[-0.0, numpy.inf, numpy.nan]]]).astype(as_dtype(dtype))
    y, saved = mixer.forward({}, x)
    _, dx = mixer.backward(y, saved)
    for got in (y, dx, mixer({}, x)):
        assert got.tobytes() == x.tobytes()
        assert got.dtype == x.dtype
        assert not numpy.shares_memory(got, x)


@pytest.mark.parametrize(
    ("dim", "ratio", "hidden"), [(12, 8 / 3, 32), (10, 8 / 3, 26), (96, 8 / 3, 256), (8, 1.5, 12)]
)
def test_gated_cnn_widths(dim, ratio, hidden):
    """The width is the truncated product in double precision, as the released weights have it."""
    mixer = zoo.GatedCnn(dim=dim, expansion_ratio=ratio, conv_ratio=0.5)
    shapes = {n: p.shape for n, p in mixer.parameters().items()}
    assert shapes == {
        "w_in": (dim, 2 * hidden),
        "b_in": (2 * hidden,),
        "w_dw": (7, 7, dim // 2),
        "b_dw": (dim // 2,),
        "w_out": (hidden, dim),
        "b_out": (dim,),
    }


def test_gated_cnn_passes_the_first_channels():
    """With a kernel that keeps the pixel, convolved and passed channels are the same stream."""
    full = zoo.GatedCnn(dim=4, expansion_ratio=2.0, kernel_size=3, conv_ratio=2.0)
    part = zoo.GatedCnn(dim=4, expansion_ratio=2.0, kernel_size=3, conv_ratio=0.75)
    params = full.init(0, dtype="float64")
    params["w_dw"][:] = 0.0
    params["w_dw"][1, 1] = 1.0
    x = numpy.random.default_rng(1).standard_normal((1, 5, 5, 4))
    fewer = {**params, "w_dw": params["w_dw"][..., :3], "b_dw": params["b_dw"][:3]}
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(part(fewer, x), full(params, x), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gated_cnn", {"kernel_size": 4}, "kernel_size must be an odd integer >= 1, got 4"),
        (
            "gated_cnn",
            {"conv_ratio": 0.1},
            r"conv_ratio must give 1 to 10 convolved channels, got 0\.1 for 0",
        ),
        (
            "gated_cnn",
            {"conv_ratio": 3.0},
            r"conv_ratio must give 1 to 10 convolved channels, got 3\.0 for 12",
        ),
        ("gated_cnn", {"expansion_ratio": 0.0}, r"expansion_ratio must be > 0, got 0\.0"),
        ("gnconv", {"order": 4}, r"dim must be a multiple of 2\^\(order - 1\) = 8, got 4"),
        (
            "gnconv",
            {"order": 3, "filter": "gf"},
            r"dim must be a multiple of 2\^order = 8 with filter='gf', got 4",
        ),
        ("gnconv", {"order": 0}, "order must be an integer >= 1, got 0"),
        ("gnconv", {"order": 1, "kernel_size": 2}, "kernel_size must be an odd integer >= 1, got 2"),
        ("gnconv", {"order": 1, "filter": "fft"}, "filter must be one of 'dwconv', 'gf', got 'fft'"),
        ("gnconv", {"order": 1, "filter_w": 0}, "filter_w must be an integer >= 1, got 0"),
        ("lka", {"local_kernel": 4}, "local_kernel must be an odd integer >= 1, got 4"),
        ("lka", {"dilated_kernel": 2}, "dilated_kernel must be an odd integer >= 1, got 2"),
        ("lka", {"dilation": 0}, "dilation must be an integer >= 1, got 0"),
        ("ffnified_attention", {"key_kernel": 2}, "key_kernel must be an odd integer >= 1, got 2"),
        (
            "ffnified_attention",
            {"value_kernel": 5, "value_reparam": True},
            r"value_reparam must be False unless floor\(value_kernel / 2\) is odd, got value_kernel = 5",
        ),
        ("ffnified_attention", {"key_kernel": 1, "key_reparam": True}, "key_reparam must be False unless"),
        (
            "ffnified_attention",
            {"activation": "silu"},
            "activation must be one of 'gelu', 'relu', got 'silu'",
        ),
        ("ffnified_attention", {"norm": None}, "norm must be one of 'batch', 'layer', 'none', got None"),
        ("separable_conv", {"kernel_size": 6}, "kernel_size must be an odd integer >= 1, got 6"),
        (
            "separable_conv",
            {"expansion_ratio": 0.2},
            r"expansion_ratio must give at least one channel, got 0\.2",
        ),
        ("separable_conv", {"act2": "silu"}, "act2 must be one of 'star_relu', 'squared_relu', 'relu'"),
        ("conv_mixer", {"kernel_size": 0}, "kernel_size must be an integer >= 1, got 0"),
        ("random_mixing", {"grid": (2, 2, 2)}, r"grid must be \(l,\) or \(h, w\), got \(2, 2, 2\)"),
    ],
)
def test_options_are_rejected(name, config, message):
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        mixers.create(name, **{"dim": 4} | config)


def test_catm_needs_tokens():
    mixer = zoo.Catm(dim=3)
    with pytest.raises(ValueError, match="x must have at least one token to average over"):
        mixer(mixer.init(0), numpy.zeros((1, 0, 4, 3), "float32"))


@pytest.mark.parametrize("name", mixers.list_mixers("gated_conv"))
def test_empty_batches(name):
    mixer, params, (x,) = samples.mixer_sample(name)
    y, saved = mixer.forward(params, x[:0])
    dparams, dx = mixer.backward(y, saved)
    assert y.shape == dx.shape == x[:0].shape
    assert all(not d.any() for d in dparams.values() if d is not None)


@pytest.mark.parametrize(
    "name", ["gnconv", "lka", "ffnified_attention", "conv_mixer", "separable_conv", "catm"]
)
def test_grids_smaller_than_the_kernel(name):
    mixer, params, _ = samples.mixer_sample(name, dtype="float64")
    x = numpy.random.default_rng(0).standard_normal((2, 1, 2, 8))
    y, saved = mixer.forward(params, x)
    _, dx = mixer.backward(y, saved)
    with mixers.use_backend("reference"):
        want, saved = mixer.forward(params, x)
        _, dwant = mixer.backward(want, saved)
    numpy.testing.assert_allclose(y, want, rtol=1e-10, atol=1e-13)
    numpy.testing.assert_allclose(dx, dwant, rtol=1e-9, atol=1e-12)
