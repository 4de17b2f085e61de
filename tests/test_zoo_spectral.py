"""Spectral token mixers."""

import numpy
import pytest
import scipy.fft
from test_zoo_mlp import check_mixer

import mixers
from mixers import zoo


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (zoo.DctMixer(dim=3, grid=(7,)), (2, 7, 3)),
        (zoo.DctMixer(dim=2, grid=(4, 5)), (2, 4, 5, 2)),
        (zoo.DctMixer(dim=1, grid=(1,)), (3, 1, 1)),
        (zoo.DctMixer(dim=3, grid=(1, 6)), (1, 1, 6, 3)),
    ],
    ids=["sequence", "image", "one-of-each", "one-row"],
)
def test_gradients(mixer, shape):
    check_mixer(mixer, shape)


def test_gains_of_one_are_the_identity():
    x = numpy.random.default_rng(0).standard_normal((2, 5, 6, 3))
    y = zoo.DctMixer(dim=3, grid=(5, 6))({"w": numpy.ones((5, 6, 3))}, x)
    numpy.testing.assert_allclose(y, x, atol=1e-14)


def test_equals_scipy():
    rng = numpy.random.default_rng(0)
    x, w = rng.standard_normal((2, 9, 3)), rng.standard_normal((9, 3))
    F = scipy.fft.dct(x, type=2, norm="ortho", axis=1)
    numpy.testing.assert_allclose(
        zoo.DctMixer(dim=3, grid=(9,))({"w": w}, x),
        scipy.fft.idct(w * F, type=2, norm="ortho", axis=1),
        atol=1e-14,
    )


def test_operator_is_symmetric():
    rng = numpy.random.default_rng(0)
    mixer = zoo.DctMixer(dim=2, grid=(4, 3))
    params = {"w": rng.standard_normal((4, 3, 2))}
    x, z = rng.standard_normal((2, 1, 4, 3, 2))
    assert numpy.vdot(z, mixer(params, x)) == pytest.approx(numpy.vdot(mixer(params, z), x), rel=1e-12)


def test_parameters():
    mixer = mixers.create("dct_mixer", dim=8, grid=[16, 16])
    w = mixer.init(0, dtype="float64")["w"]
    assert w.shape == (16, 16, 8)
    assert abs(w.mean() - 1) < 0.002
    assert 0.015 < w.std() < 0.025


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dct_mixer: dim must be an integer >= 1, got 0"),
        ({"grid": (1, 2, 3)}, ValueError, r"dct_mixer: grid must be \(l,\) or \(h, w\), got \(1, 2, 3\)"),
        ({"grid": (0,)}, ValueError, "dct_mixer: grid size must be an integer >= 1, got 0"),
        ({"grid": 4}, TypeError, r"dct_mixer: grid must be \(l,\) or \(h, w\), got 4"),
    ],
)
def test_rejected_options(config, error, message):
    with pytest.raises(error, match=message):
        zoo.DctMixer(**{"dim": 3, "grid": (4,)} | config)


def test_wider_gains_leave_the_dtype_alone():
    mixer = zoo.DctMixer(dim=3, grid=(4,))
    params = mixer.init(0, dtype="float32")
    x = numpy.ones((1, 4, 3), numpy.float16)
    assert mixer(params, x).dtype == mixer.forward(params, x)[0].dtype == numpy.float16


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 2, 2, 3)])
def test_rejected_grids(shape):
    mixer = zoo.DctMixer(dim=3, grid=(4,))
    with pytest.raises(ValueError, match=r"dct_mixer: x must have the token grid \(4,\)"):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (zoo.FNet(dim=3), (2, 7, 3)),
        (zoo.FNet(dim=4), (2, 3, 5, 4)),
        (zoo.GlobalFilter(dim=3, grid=(4, 6)), (2, 4, 6, 3)),
        (zoo.GlobalFilter(dim=2, grid=(1, 7)), (2, 1, 7, 2)),
        (zoo.GlobalFilter(dim=1, grid=(5, 1)), (1, 5, 1, 1)),
        (zoo.Afno(dim=4, num_blocks=2), (2, 9, 4)),
        (zoo.Afno(dim=6, num_blocks=3, hidden_size_factor=3, sparsity_threshold=0.2), (2, 3, 5, 6)),
        (zoo.Afno(dim=2, num_blocks=1, hard_thresholding_fraction=0.5), (2, 11, 2)),
        (zoo.Afno(dim=2, num_blocks=2, hard_thresholding_fraction=0.2), (2, 6, 4, 2)),
        (zoo.Afno(dim=2, num_blocks=2, mode_rule="fourcastnet"), (1, 6, 8, 2)),
        (
            zoo.Afno(dim=2, num_blocks=1, mode_rule="fourcastnet", hard_thresholding_fraction=0.6),
            (2, 7, 6, 2),
        ),
        (zoo.DynamicSpectrum(dim=3, num_bands=4, hidden=5), (2, 9, 3)),
        (zoo.DynamicSpectrum(dim=2, num_bands=3, hidden=1, bias=False, rescale=True), (2, 3, 4, 2)),
        (zoo.DynamicSpectrum(dim=3, num_bands=2, hidden=4, projections=True), (1, 4, 4, 3)),
    ],
    ids=str,
)
def test_gradients_of_the_others(mixer, shape):
    check_mixer(mixer, shape)


@pytest.mark.parametrize("grid", [(6,), (3, 4)])
def test_fnet_is_the_transform_of_the_flattened_sequence(grid):
    x = numpy.random.default_rng(0).standard_normal((2, *grid, 5))
    wanted = numpy.fft.fft2(x.reshape(2, -1, 5)).real.reshape(x.shape)
    numpy.testing.assert_allclose(zoo.FNet(dim=5)({}, x), wanted, atol=1e-13)


def test_global_filter_of_ones_is_the_identity():
    x = numpy.random.default_rng(0).standard_normal((2, 4, 5, 3))
    params = {"w_re": numpy.ones((4, 3, 3)), "w_im": numpy.zeros((4, 3, 3))}
    numpy.testing.assert_allclose(zoo.GlobalFilter(dim=3, grid=(4, 5))(params, x), x, atol=1e-14)


def afno_frequency_by_frequency(mixer, params, x, kept):
    """The equations once more, on the complex half spectrum; `kept` says which frequencies survive."""
    axes = tuple(range(1, x.ndim - 1))
    X = numpy.fft.rfftn(x, axes=axes, norm="ortho")
    w = {n: params[f"{n}_re"] + 1j * params[f"{n}_im"] for n in ("w1", "b1", "w2", "b2")}
    d, z = mixer.dim // mixer.num_blocks, numpy.zeros_like(X)
    relu = lambda a: numpy.maximum(a.real, 0) + 1j * numpy.maximum(a.imag, 0)
    shrink = lambda a: numpy.sign(a) * numpy.maximum(abs(a) - mixer.sparsity_threshold, 0)
    for place in numpy.ndindex(X.shape[:-1]):
        for block in range(mixer.num_blocks):
            if kept(*place[1:]):
                part = slice(block * d, block * d + d)
                r = relu(X[place][part] @ w["w1"][block] + w["b1"][block])
                v = r @ w["w2"][block] + w["b2"][block]
                z[place][part] = shrink(v.real) + 1j * shrink(v.imag)
    return numpy.fft.irfftn(z, s=x.shape[1:-1], axes=axes, norm="ortho") + x


@pytest.mark.parametrize(
    ("options", "grid", "kept"),
    [
        ({}, (9,), lambda k: True),
        ({"hard_thresholding_fraction": 0.7}, (9,), lambda k: k < 3),
        # the authors' rule counts modes from all tokens of an image: 13 f of 4 columns
        ({"hard_thresholding_fraction": 0.2}, (4, 6), lambda i, k: k < 2),
        ({"hard_thresholding_fraction": 0.05}, (4, 6), lambda i, k: False),
        ({"mode_rule": "fourcastnet"}, (4, 8), lambda i, k: k < 3),
        (
            {"mode_rule": "fourcastnet", "hard_thresholding_fraction": 0.5},
            (6, 6),
            lambda i, k: 2 <= i < 6 and k < 2,
        ),
    ],
)
def test_afno_keeps_the_right_frequencies(options, grid, kept):
    mixer = zoo.Afno(dim=4, num_blocks=2, **options)
    rng = numpy.random.default_rng(0)
    params = {n: rng.standard_normal(p.shape) for n, p in mixer.parameters().items()}
    x = rng.standard_normal((2, *grid, 4))
    wanted = afno_frequency_by_frequency(mixer, params, x, kept)
    numpy.testing.assert_allclose(mixer(params, x), wanted, atol=1e-13)


def test_dynamic_spectrum_without_a_choice_is_a_scaled_identity():
    """With w2 = 0 all bands weigh the same."""
    x = numpy.random.default_rng(0).standard_normal((2, 5, 6, 3))
    for rescale in (False, True):
        mixer = zoo.DynamicSpectrum(dim=3, num_bands=5, hidden=4, rescale=rescale)
        params = mixer.init(0, dtype="float64")
        params["w2"][:] = 0
        numpy.testing.assert_allclose(mixer(params, x), x if rescale else x / 5, atol=1e-14)


def test_dynamic_spectrum_takes_any_grid():
    mixer = zoo.DynamicSpectrum(dim=3, num_bands=4)
    params = mixer.init(0)
    for grid in ((4,), (9,), (2, 2), (5, 7)):
        assert mixer(params, numpy.ones((1, *grid, 3), "float32")).shape == (1, *grid, 3)


@pytest.mark.parametrize(
    "mixer", [zoo.Afno(dim=4, num_blocks=2), zoo.DynamicSpectrum(dim=4, num_bands=4)], ids=str
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_spectra_of_half_types_are_computed_in_float32(mixer, backend):
    """The result is off by the rounding of inputs, parameters and output only."""
    params = mixer.init(0, dtype="bfloat16")
    x = numpy.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype("float16")
    wide = {n: p.astype("float64") for n, p in params.items()}
    with mixers.use_backend(backend):
        y = mixer(params, x)
    wanted = mixer(wide, x.astype("float64"))
    assert y.dtype == numpy.float16
    assert numpy.abs(y - wanted).max() < 1.01 * 2.0**-11 * numpy.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "std", "shapes"),
    [
        ("global_filter", 0.02, {"w_re": (14, 8, 64), "w_im": (14, 8, 64)}),
        (
            "afno",
            0.02,
            {
                **dict.fromkeys(("w1_re", "w1_im"), (8, 8, 16)),
                **dict.fromkeys(("b1_re", "b1_im"), (8, 16)),
                **dict.fromkeys(("w2_re", "w2_im"), (8, 16, 8)),
                **dict.fromkeys(("b2_re", "b2_im"), (8, 8)),
            },
        ),
    ],
)
def test_initial_values(name, std, shapes):
    options = {"hidden_size_factor": 2} if name == "afno" else {}
    params = mixers.create(name, dim=64, **options).init(0)
    assert {n: p.shape for n, p in params.items()} == shapes
    for p in params.values():
        assert abs(p.mean()) < 0.3 * std
        assert 0.7 * std < p.std() < 1.3 * std


def test_initial_values_of_dynamic_spectrum():
    params = mixers.create("dynamic_spectrum", dim=5, num_bands=8, hidden=50, projections=True).init(0)
    assert {n: p.shape for n, p in params.items()} == {
        "norm_scale": (8,),
        "norm_bias": (8,),
        "w1": (8, 50),
        "w2": (50, 8),
        "b1": (50,),
        "b2": (8,),
        "w_in": (5, 5),
        "b_in": (5,),
        "w_out": (5, 5),
        "b_out": (5,),
    }
    assert (params["norm_scale"] == 1).all()
    assert not any(params[n].any() for n in ("norm_bias", "b1", "b2", "b_in", "b_out"))
    assert 0.015 < params["w1"].std() < 0.025
    assert set(mixers.create("dynamic_spectrum", dim=5, bias=False).init(0)) == {
        "norm_scale",
        "norm_bias",
        "w1",
        "w2",
    }


@pytest.mark.parametrize(
    ("name", "config", "error", "message"),
    [
        ("fnet", {"dim": 0}, ValueError, "dim must be an integer >= 1, got 0"),
        ("fnet", {"grid": (4,)}, TypeError, "has no option 'grid'"),
        ("global_filter", {"dim": 1.5}, TypeError, r"dim must be an integer >= 1, got 1\.5"),
        ("global_filter", {"grid": (4,)}, ValueError, r"grid must be \(h, w\), got \(4,\)"),
        ("global_filter", {"grid": (4, 0)}, ValueError, "grid size must be an integer >= 1, got 0"),
        ("afno", {"num_blocks": 5}, ValueError, "num_blocks must divide dim = 8, got 5"),
        ("afno", {"sparsity_threshold": -0.1}, ValueError, r"sparsity_threshold must be >= 0, got -0\.1"),
        (
            "afno",
            {"hard_thresholding_fraction": 0},
            ValueError,
            "hard_thresholding_fraction must be > 0, got 0",
        ),
        (
            "afno",
            {"hard_thresholding_fraction": 1.1},
            ValueError,
            r"hard_thresholding_fraction must be in \(0, 1\], got 1\.1",
        ),
        ("afno", {"hidden_size_factor": 0}, ValueError, "hidden_size_factor must be an integer >= 1, got 0"),
        (
            "afno",
            {"mode_rule": "all"},
            ValueError,
            "mode_rule must be one of 'afno', 'fourcastnet', got 'all'",
        ),
        ("dynamic_spectrum", {"num_bands": 1}, ValueError, "num_bands must be an integer >= 2, got 1"),
        ("dynamic_spectrum", {"hidden": 0}, ValueError, "hidden must be an integer >= 1, got 0"),
        ("dynamic_spectrum", {"bias": 1}, TypeError, "bias must be True or False, got 1"),
        ("dynamic_spectrum", {"rescale": None}, TypeError, "rescale must be True or False, got None"),
        ("dynamic_spectrum", {"projections": "no"}, TypeError, "projections must be True or False, got 'no'"),
    ],
)
def test_rejected_options_of_the_others(name, config, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        mixers.create(name, **{"dim": 8} | config)


@pytest.mark.parametrize(
    ("mixer", "shape", "message"),
    [
        (zoo.FNet(dim=3), (2, 3), r"fnet: x must have shape \(b, l, c\) or \(b, h, w, c\)"),
        (zoo.FNet(dim=3), (2, 4, 2), "fnet: x must have shape .* with c = 3"),
        (zoo.GlobalFilter(dim=3, grid=(4, 6)), (1, 6, 4, 3), r"x must have the token grid \(4, 6\)"),
        (zoo.GlobalFilter(dim=3, grid=(4, 6)), (1, 24, 3), r"x must have shape \(b, h, w, c\)"),
        (
            zoo.Afno(dim=8, mode_rule="fourcastnet"),
            (1, 6, 8),
            'x must be an image .* with mode_rule "fourcastnet"',
        ),
        (zoo.DynamicSpectrum(dim=3), (1, 3, 5, 3), "x must have at least num_bands = 16 tokens"),
    ],
    ids=str,
)
def test_rejected_inputs(mixer, shape, message):
    with pytest.raises(ValueError, match=message):
        mixer(mixer.init(0), numpy.zeros(shape, numpy.float32))


@pytest.mark.parametrize("dtype", [numpy.int64, numpy.complex128])
def test_fnet_rejects_integers_and_complex_numbers(dtype):
    with pytest.raises(TypeError, match="fnet: x must be float16, bfloat16, float32 or float64"):
        zoo.FNet(dim=3)({}, numpy.zeros((1, 4, 3), dtype))
