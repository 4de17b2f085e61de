"""Kolmogorov-Arnold layers: options, initialisation, grids, rejections."""

import numpy
import pytest
from harness import BACKENDS, check_differences, device_of
from scipy.interpolate import BSpline

import mixers
from mixers import splines, zoo


def draw(mixer, shape):
    """Parameters off their special values, and x."""
    rng = numpy.random.default_rng(0)
    specs = mixer.parameters()
    params = {
        n: a + 0.1 * rng.standard_normal(a.shape) if specs[n].trainable else a
        for n, a in mixer.init(rng, dtype="float64").items()
    }
    return params, rng.standard_normal(shape)


def check_gradients(mixer, params, x):
    """Central differences along random directions."""
    trained = [n for n, s in mixer.parameters().items() if s.trainable]

    def function(arrays):
        return mixer({**params, **{n: arrays[n] for n in trained}}, arrays["x"])

    def backward(arrays, dout):
        _, saved = mixer.forward({**params, **{n: arrays[n] for n in trained}}, arrays["x"])
        dparams, dx = mixer.backward(dout, saved)
        return {n: dparams[n] for n in trained} | {"x": dx}

    with mixers.use_backend("reference"):
        check_differences(function, backward, {n: params[n] for n in trained} | {"x": x})


POOL = ("bspline", "rbf", "chebyshev", "fourier", "wavelet", "relu")
OPTIONS = [
    (zoo.KanBspline(3, 4, base_activation="gelu"), (2, 5, 3)),
    (zoo.KanBspline(3, 4, base_activation="identity", standalone_scale=False), (7, 3)),
    (zoo.KanBspline(6, 4, base_activation="zero", grid_size=1, spline_order=2, axis="token"), (2, 3, 2, 5)),
    (zoo.KanFourier(3, 4, grid_size=2, smooth_init=True), (2, 2, 5, 3)),
    (zoo.KanRbf(3, 4, use_base=False, denominator=0.5), (2, 5, 3)),
    (zoo.KanRbf(4, 3, axis="token", num_grids=3), (2, 4, 5)),
    (zoo.KanRbf(1, 3, use_layernorm=False), (5, 1)),
    (zoo.SKan(3, 4, pool=POOL), (2, 5, 3)),
    (zoo.SKan(3, 4, pool=POOL, select="hard", select_norm="softmax"), (2, 5, 3)),
    (zoo.SKan(5, 4, pool=("rbf", "wavelet"), select="hard", bias=True), (2, 6, 5)),
    (zoo.SKan(3, 4, pool=("relu", "fourier"), select_per="layer", select="hard"), (2, 5, 3)),
    (zoo.SKan(3, 4, pool=("chebyshev", "rbf"), select_per="none", base=False), (2, 5, 3)),
    (zoo.SKan(4, 3, pool=("wavelet",), wavelet_type="morlet", axis="token"), (2, 2, 2, 3)),
    (zoo.SConvKan(2, 3, 2, pool=("chebyshev", "wavelet"), wavelet_type="dog", bias=True), (2, 4, 3, 2)),
    (zoo.SConvKan(2, 3, 3, 2, 1, pool=("relu", "fourier"), select="hard"), (1, 5, 4, 2)),
    (zoo.MultiPatchRbfKan(3, (4, 6), patch_size=2, num_grids=3, sep_kernel=5, global_rank=40), (2, 4, 6, 3)),
]


@pytest.mark.parametrize(("mixer", "shape"), OPTIONS, ids=[str(m)[:90] for m, _ in OPTIONS])
def test_gradients(mixer, shape):
    check_gradients(mixer, *draw(mixer, shape))


@pytest.mark.parametrize("backend", ["cpu", "emulated"])
@pytest.mark.parametrize(("mixer", "shape"), OPTIONS, ids=[str(m)[:90] for m, _ in OPTIONS])
def test_backends_agree(mixer, shape, backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")
    params, x = draw(mixer, shape)
    results = []
    for name in ("reference", backend):
        with device_of(name) as (to, back):
            y, saved = mixer.forward({n: to(p) for n, p in params.items()}, to(x))
            dparams, dx = mixer.backward(y, saved)
            results.append([back(y), back(dx), *(back(d) for d in dparams.values() if d is not None)])
    for got, want in zip(results[1], results[0], strict=True):
        numpy.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9 * max(1.0, abs(want).max(initial=0)))


def test_tokens_are_channels_turned():
    """axis="token" is the layer on the turned array; a grid counts row by row."""
    along, across = zoo.KanFourier(6, 4, grid_size=2), zoo.KanFourier(6, 4, grid_size=2, axis="token")
    params, x = draw(along, (2, 3, 2, 5))
    with mixers.use_backend("reference"):
        want = along(params, x.reshape(2, 6, 5).swapaxes(1, 2)).swapaxes(1, 2)
        numpy.testing.assert_array_equal(across(params, x), want)
    assert want.shape == (2, 4, 5)


def test_a_layer_along_the_tokens_has_no_width():
    assert zoo.KanFourier(6, 4, grid_size=2).dim == 6
    assert not hasattr(zoo.KanFourier(6, 4, grid_size=2, axis="token"), "dim")


def test_spline_layer_of_scipy():
    """Layer and derivative against scipy.interpolate.BSpline on uneven knots of each input."""
    layer = zoo.KanBspline(2, 3, grid_size=4, base_activation="zero")
    params, _ = draw(layer, (1, 1, 2))
    params["grid"] = params["grid"] + 0.1 * numpy.random.default_rng(1).uniform(0, 1, params["grid"].shape)
    inner = params["grid"][:, 3], params["grid"][:, -4]
    x = numpy.random.default_rng(2).uniform(max(inner[0]), min(inner[1]), (40, 2))
    coefficients = params["w_spline"] * params["spline_scale"][:, None]
    curves = [BSpline(params["grid"][i], coefficients[i], 3) for i in range(2)]
    with mixers.use_backend("reference"):
        y, saved = layer.forward(params, x)
        dx = layer.backward(numpy.ones((40, 3)), saved)[1]
    numpy.testing.assert_allclose(y, sum(c(x[:, i]) for i, c in enumerate(curves)), rtol=1e-10, atol=1e-12)
    slopes = numpy.stack([c.derivative()(x[:, i]).sum(axis=1) for i, c in enumerate(curves)], axis=1)
    numpy.testing.assert_allclose(dx, slopes, rtol=1e-9, atol=1e-11)


def test_initial_splines_run_through_small_noise():
    layer = zoo.KanBspline(30, 20, grid_size=5)
    params = layer.init(0, dtype="float64")
    knots = params["grid"][0]
    values = BSpline(knots, params["w_spline"].swapaxes(0, 1).reshape(8, -1), 3)(knots[3:9])
    assert abs(values).max() <= 0.5 * 0.1 / 5 + 1e-12
    assert values.std() == pytest.approx(0.1 / 5 / 12**0.5, rel=0.05)
    numpy.testing.assert_allclose(numpy.diff(knots), 0.4)
    assert abs(params["w_base"]).max() <= 30**-0.5


@pytest.mark.parametrize("smooth", [False, True])
def test_initial_frequencies(smooth):
    layer = zoo.KanFourier(100, 50, grid_size=4, smooth_init=smooth)
    std = layer.init(0, dtype="float64")["w_cos"].std(axis=(0, 2))
    wanted = 0.1 / numpy.arange(1, 5) ** 2 if smooth else numpy.full(4, 0.05)
    numpy.testing.assert_allclose(std, wanted, rtol=0.05)


def test_initial_selection():
    assert (zoo.SKan(3, 4).init(0)["select"] == numpy.float32(1 / 3)).all()
    assert not zoo.SKan(3, 4, select_norm="softmax", select_per="layer").init(0)["select"].any()
    assert "select" not in zoo.SKan(3, 4, select_per="none").parameters()
    relu = zoo.SKan(2, 4, pool=("relu",)).init(0, dtype="float64")
    numpy.testing.assert_allclose(relu["relu_low"][1], (numpy.arange(8) - 3) / 5)
    numpy.testing.assert_allclose(relu["relu_high"] - relu["relu_low"], 0.8)


def test_hard_selection_keeps_the_winner_only():
    """The first of equals wins with its weight as it is; the others get no gradient, not even NaN."""
    layer = zoo.SKan(3, 2, pool=("rbf", "wavelet"), select="hard", base=False)
    params, x = draw(layer, (5, 3))
    params["select"] = numpy.array([[0.5, 0.5], [0.1, -0.7], [2.0, 1.0]])
    # a scale of zero would be NaN if it were evaluated
    params["wavelet_scale"][[0, 2]] = 0.0
    with mixers.use_backend("reference"):
        y, saved = layer.forward(params, x)
        dparams, _ = layer.backward(numpy.ones_like(y), saved)
        soft = zoo.SKan(3, 2, pool=("rbf", "wavelet"), base=False)
        masked = {**params, "select": numpy.array([[0.5, 0], [0, -0.7], [2.0, 0]])}
        masked["wavelet_scale"] = numpy.ones((3, 2)) * params["wavelet_scale"][1]
        numpy.testing.assert_allclose(y, soft(masked, x), rtol=1e-12)
    assert not dparams["rbf_coef"][1].any()
    assert not dparams["wavelet_weight"][[0, 2]].any()
    assert all(numpy.isfinite(d).all() for d in dparams.values())
    assert dparams["select"][0, 1] == dparams["select"][1, 0] == 0.0


def test_padding_goes_through_the_functions():
    """A padded zero contributes f(0), unlike in a linear convolution."""
    layer = zoo.SConvKan(1, 1, 3, padding=1, pool=("rbf",), select_per="none", base=False)
    params = {"rbf_coef": numpy.ones((3, 3, 1, 8, 1))}
    with mixers.use_backend("reference"):
        y = layer(params, numpy.zeros((1, 4, 4, 1)))
    numpy.testing.assert_allclose(y, y[0, 0, 0, 0])
    assert y[0, 0, 0, 0] > 1.0


def test_finer_grids_keep_the_functions():
    layer = zoo.KanBspline(2, 3, grid_size=4)
    params, _ = draw(layer, (1, 1, 2))
    finer, refined = layer.refine(params, 12)
    assert finer == zoo.KanBspline(2, 3, grid_size=12)
    x = numpy.random.default_rng(1).uniform(-1.0, 1.0, (50, 2))
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(finer(refined, x), layer(params, x), rtol=1e-9, atol=1e-10)
    for i in range(2):
        old = BSpline(params["grid"][i], params["w_spline"][i], 3)
        new = BSpline(refined["grid"][i], refined["w_spline"][i], 3)
        numpy.testing.assert_allclose(new(x[:, i]), old(x[:, i]), atol=1e-11)


def test_refinement_is_a_least_squares_fit():
    """Onto a coarser grid the spline is the nearest one, as SciPy finds it."""
    layer = zoo.KanBspline(1, 1, grid_size=9)
    params, _ = draw(layer, (1, 1, 1))
    _, coarse = layer.refine(params, 4)
    points = numpy.linspace(-0.999, 0.999, 4001)
    old = BSpline(params["grid"][0], params["w_spline"][0], 3)(points)
    new = BSpline(coarse["grid"][0], coarse["w_spline"][0], 3)(points)
    best = splines.basis(points, coarse["grid"][0], 3) @ splines.fit(points, old, coarse["grid"][0], 3)
    assert numpy.sqrt(((new - old) ** 2).mean()) < 1.1 * numpy.sqrt(((best - old) ** 2).mean())


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_refreshed_grids_follow_the_samples(axis):
    layer = zoo.KanBspline(2, 3, grid_size=8, axis=axis)
    params, _ = draw(layer, (1, 2, 2))
    x = 0.4 * numpy.random.default_rng(3).standard_normal((400, 2)).clip(-2, 2)
    x = x if axis == "channel" else x.T[None]
    refreshed = layer.refresh(params, x)
    assert (numpy.diff(refreshed["grid"]) > 0).all()
    samples = x if axis == "channel" else x[0].T
    numpy.testing.assert_allclose(refreshed["grid"][:, 3], samples.min(axis=0), atol=0.01)
    # the middle of the knots is where the samples are dense
    steps = numpy.diff(refreshed["grid"][0])
    assert steps[6] < 0.7 * steps[3]
    with mixers.use_backend("reference"):
        before, after = layer(params, x), layer(refreshed, x)
    assert numpy.abs(after - before).max() < 0.05 * numpy.abs(before).max()


def test_bases_for_setting_up():
    knots = splines.uniform_knots(-1.0, 2.0, 6, 2)
    points = numpy.linspace(-0.99, 1.99, 31)
    want = BSpline.design_matrix(points, knots, 2).toarray()
    numpy.testing.assert_allclose(splines.basis(points, knots, 2), want, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("kan_bspline", {"grid_size": 0}, "kan_bspline: grid_size must be an integer >= 1, got 0"),
        ("kan_bspline", {"spline_order": -1}, "kan_bspline: spline_order must be an integer >= 0"),
        ("kan_bspline", {"grid_range": (1, -1)}, r"kan_bspline: grid_range must be \(lo, hi\) with lo < hi"),
        ("kan_bspline", {"base_activation": "relu"}, "kan_bspline: base_activation must be one of 'silu'"),
        ("kan_bspline", {"axis": "rows"}, "kan_bspline: axis must be one of 'channel', 'token'"),
        ("kan_bspline", {"in_features": 0}, "kan_bspline: in_features must be an integer >= 1, got 0"),
        ("kan_fourier", {"grid_size": 0}, "kan_fourier: grid_size must be an integer >= 1, got 0"),
        ("kan_rbf", {"num_grids": 1}, "kan_rbf: num_grids must be an integer >= 2, got 1"),
        ("kan_rbf", {"grid_min": 2.0}, "kan_rbf: grid_min must be < grid_max, got 2.0 and 2.0"),
        ("kan_rbf", {"denominator": 0.0}, "kan_rbf: denominator must be > 0, got 0.0"),
        ("kan_rbf", {"in_features": 1}, "kan_rbf: use_layernorm must be False with in_features = 1"),
        ("s_kan", {"pool": ()}, "s_kan: pool must name one basis or more"),
        ("s_kan", {"pool": ("rbf", "rbf")}, "s_kan: pool must hold different bases"),
        ("s_kan", {"pool": ("sine",)}, "s_kan: pool must be one of 'bspline', 'rbf'"),
        ("s_kan", {"select": "best"}, "s_kan: select must be one of 'soft', 'hard'"),
        ("s_kan", {"select_per": "edge"}, "s_kan: select_per must be one of 'input', 'layer'"),
        ("s_kan", {"select_norm": "l1"}, "s_kan: select_norm must be one of 'none', 'softmax'"),
        ("s_kan", {"wavelet_type": "shannon"}, "s_kan: wavelet_type must be one of 'mexican_hat'"),
        ("s_kan", {"rbf_min": 3.0}, r"s_kan: \(rbf_min, rbf_max\) must be \(lo, hi\) with lo < hi"),
        ("s_conv_kan", {"stride": 0}, "s_conv_kan: stride must be an integer >= 1, got 0"),
        ("s_conv_kan", {"padding": -1}, "s_conv_kan: padding must be an integer >= 0, got -1"),
        ("s_conv_kan", {"kernel_size": 0}, "s_conv_kan: kernel_size must be an integer >= 1, got 0"),
        ("multi_patch_rbf_kan", {"sep_kernel": 2}, "multi_patch_rbf_kan: sep_kernel must be an odd integer"),
        ("multi_patch_rbf_kan", {"grid": (7, 6)}, "multi_patch_rbf_kan: patch_size must divide"),
    ],
)
def test_bad_options(name, config, message):
    needed = {
        "kan_bspline": {"in_features": 3, "out_features": 2},
        "kan_fourier": {"in_features": 3, "out_features": 2, "grid_size": 2},
        "kan_rbf": {"in_features": 3, "out_features": 2},
        "s_kan": {"in_features": 3, "out_features": 2},
        "s_conv_kan": {"dim": 3, "out_dim": 2, "kernel_size": 3},
        "multi_patch_rbf_kan": {"dim": 3, "patch_size": 7},
    }[name]
    with pytest.raises(ValueError, match=message):
        mixers.create(name, **{**needed, **config})


def test_bad_inputs():
    spline = zoo.KanBspline(3, 2)
    params = spline.init(0)
    with pytest.raises(ValueError, match=r"kan_bspline: x must have shape \(..., c\) with c = 3, got \(3,\)"):
        spline(params, numpy.zeros(3, "float32"))
    params["grid"] = params["grid"][:, ::-1].copy()
    with pytest.raises(ValueError, match=r"params\['grid'\] must hold knots that increase"):
        spline(params, numpy.zeros((4, 3), "float32"))
    tokens = zoo.KanFourier(6, 2, grid_size=1, axis="token")
    with pytest.raises(
        ValueError, match=r"kan_fourier: x must have shape \(b, l, c\) or \(b, h, w, c\) with l or"
    ):
        tokens(tokens.init(0), numpy.zeros((2, 5, 3), "float32"))
    window = zoo.SConvKan(1, 1, 5)
    with pytest.raises(ValueError, match="s_conv_kan: kernel_size must be at most the padded image, got 5"):
        window(window.init(0), numpy.zeros((1, 4, 6, 1), "float32"))
    patches = zoo.MultiPatchRbfKan(1, patch_size=3, use_global_linear=False)
    with pytest.raises(ValueError, match="must have a token grid of multiples of patch_size = 3"):
        patches(patches.init(0), numpy.zeros((1, 4, 6, 1), "float32"))
    with pytest.raises(ValueError, match="multi_patch_rbf_kan: grid must be given to draw"):
        zoo.MultiPatchRbfKan(1).init(0)
