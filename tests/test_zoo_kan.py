"""Kolmogorov-Arnold mixers."""

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import zoo


def draw(mixer, b=2):
    """Parameters off their special values, and x."""
    rng = numpy.random.default_rng(0)
    params = mixer.init(rng, dtype="float64")
    params = {n: a + 0.1 * rng.standard_normal(a.shape) for n, a in params.items()}
    return params, rng.standard_normal((b, *mixer.grid, mixer.dim))


@pytest.mark.parametrize(
    "mixer",
    [
        zoo.FourierKarat(dim=6, grid=(5,), num_heads=2, rank=3),
        zoo.FourierKarat(dim=4, grid=(7,), num_heads=1, rank=1, grid_size=1, base="silu"),
        zoo.FourierKarat(dim=3, grid=(1,), num_heads=3, qkv_bias=False, base="gelu"),
        zoo.FourierKarat(dim=4, grid=(4,), num_heads=2, rank=2, blocks=2, base="identity"),
        zoo.FourierKarat(dim=4, grid=(4,), num_heads=2, rank=2, blocks=3, mode="universal"),
    ],
    ids=["plain", "one-head", "one-token", "blockwise", "universal"],
)
def test_differences(mixer):
    params, x = draw(mixer)

    def function(arrays):
        return mixer({n: arrays[n] for n in params}, arrays["x"])

    def backward(arrays, dout):
        _, saved = mixer.forward({n: arrays[n] for n in params}, arrays["x"])
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        assert function(params | {"x": x}).shape == x.shape
        check_differences(function, backward, params | {"x": x})


def test_second_form():
    """One head at a time with the map of the logits written out."""
    mixer = zoo.FourierKarat(dim=6, grid=(5,), num_heads=2, rank=3, grid_size=2)
    params, x = draw(mixer, b=1)
    qkv = x[0] @ params["w_qkv"] + params["b_qkv"]
    heads = []
    for h in range(2):
        q, k, v = (qkv[:, part * 6 + 3 * h : part * 6 + 3 * h + 3] for part in range(3))
        a = q @ k.T / 3**0.5
        phi = sum(
            numpy.cos(m * a) @ params["phi_cos"][h, :, m - 1]
            + numpy.sin(m * a) @ params["phi_sin"][h, :, m - 1]
            for m in (1, 2)
        )
        heads.append(phi @ params["w_up"][h].T @ v)
    y = numpy.concatenate(heads, axis=1) @ params["w_out"] + params["b_out"]
    with mixers.use_backend("reference"):
        numpy.testing.assert_allclose(mixer(params, x)[0], y, rtol=1e-12)


def test_universal_is_blockwise_with_equal_maps():
    """A shared map is one set of arrays: its gradient is the sum of those of the blocks."""
    universal = zoo.FourierKarat(dim=4, grid=(6,), num_heads=2, rank=2, blocks=2, mode="universal")
    blockwise = zoo.FourierKarat(dim=4, grid=(6,), num_heads=2, rank=2, blocks=2)
    params, x = draw(universal)
    shared = ("phi_cos", "phi_sin", "w_up")
    copied = {n: a for n, a in params.items() if n not in shared}
    copied |= {f"{n}_{block}": params[n] for n in shared for block in range(2)}
    with mixers.use_backend("reference"):
        y, saved = universal.forward(params, x)
        y_blocks, saved_blocks = blockwise.forward(copied, x)
        dparams, dx = universal.backward(y, saved)
        dcopied, dx_blocks = blockwise.backward(y, saved_blocks)
    numpy.testing.assert_array_equal(y, y_blocks)
    numpy.testing.assert_allclose(dx, dx_blocks, rtol=1e-12)
    for n in shared:
        numpy.testing.assert_allclose(dparams[n], dcopied[f"{n}_0"] + dcopied[f"{n}_1"], rtol=1e-12)


def test_parameters():
    mixer = mixers.create("fourier_karat", dim=6, grid=[5], num_heads=2, rank=3, grid_size=2)
    assert {n: s.shape for n, s in mixer.parameters().items()} == {
        "w_qkv": (6, 18),
        "b_qkv": (18,),
        "w_out": (6, 6),
        "b_out": (6,),
        "phi_cos": (2, 5, 2, 3),
        "phi_sin": (2, 5, 2, 3),
        "w_up": (2, 5, 3),
    }
    names = zoo.FourierKarat(dim=2, grid=(3,), num_heads=1, qkv_bias=False, blocks=2, mode="universal")
    assert set(names.parameters()) == {
        *("w_qkv_0", "w_out_0", "b_out_0", "w_qkv_1", "w_out_1", "b_out_1"),
        *("phi_cos", "phi_sin", "w_up"),
    }


@pytest.mark.parametrize(("coef_init", "std"), [("scaled_normal", 1 / 24), ("unit_normal", 1.0)])
def test_initialisation(coef_init, std):
    mixer = zoo.FourierKarat(dim=8, grid=(192,), num_heads=2, grid_size=3, coef_init=coef_init)
    params = mixer.init(0, dtype="float64")
    assert params["phi_cos"].std() == pytest.approx(std, rel=0.05)
    assert params["w_up"].std() == pytest.approx(0.02, rel=0.05)
    assert not params["b_qkv"].any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_heads": 4}, "fourier_karat: num_heads must divide dim = 6, got 4"),
        ({"num_heads": 0}, "fourier_karat: num_heads must be an integer >= 1, got 0"),
        ({"rank": 0}, "fourier_karat: rank must be an integer >= 1, got 0"),
        ({"grid_size": 0}, "fourier_karat: grid_size must be an integer >= 1, got 0"),
        ({"blocks": 0}, "fourier_karat: blocks must be an integer >= 1, got 0"),
        ({"grid": (2, 3)}, r"fourier_karat: grid must be \(l,\), got \(2, 3\)"),
        ({"base": "relu"}, "fourier_karat: base must be one of 'zero', 'silu'"),
        ({"mode": "both"}, "fourier_karat: mode must be one of 'blockwise', 'universal', got 'both'"),
        ({"coef_init": "zeros"}, "fourier_karat: coef_init must be one of"),
        ({"basis": "sine"}, "fourier_karat: basis must be one of 'fourier', 'rational'"),
        ({"operator": "phi"}, "fourier_karat: operator must be one of 'full', 'w_phi'"),
        ({"projection": "l1"}, "fourier_karat: projection must be one of 'none'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(ValueError, match=message):
        mixers.create("fourier_karat", **{"dim": 6, "grid": (5,), "num_heads": 2, **config})


@pytest.mark.parametrize("config", [{"basis": "bspline"}, {"operator": "phi_w"}], ids=str)
def test_other_forms_are_karat(config):
    (name, value) = next(iter(config.items()))
    with pytest.raises(ValueError, match=f"fourier_karat: {name} must be one of .*, got '{value}'"):
        zoo.FourierKarat(dim=6, grid=(5,), num_heads=2, **config)
    assert zoo.Karat(dim=6, grid=(5,), num_heads=2, **config).parameters()


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_order_of_the_products_does_not_matter(qkv_bias, monkeypatch):
    """A low rank takes a way around the values; the numbers are those of the way through them."""
    mixer = zoo.FourierKarat(dim=8, grid=(20,), num_heads=2, rank=3, base="silu", qkv_bias=qkv_bias)
    params, x = draw(mixer)
    dout = numpy.random.default_rng(1).standard_normal(x.shape)
    results = []
    for narrow in (True, False):
        assert narrow is False or mixer._is_narrow(20, 8)
        monkeypatch.setattr(zoo.FourierKarat, "_is_narrow", lambda *_, narrow=narrow: narrow)
        y, saved = mixer.forward(params, x)
        dparams, dx = mixer.backward(dout, saved)
        results.append({**dparams, "x": dx, "y": y})
    for name, want in results[1].items():
        numpy.testing.assert_allclose(results[0][name], want, rtol=1e-10, atol=1e-11, err_msg=name)


def test_fourier_karat_is_karat():
    options = {"dim": 6, "grid": (5,), "num_heads": 2, "rank": 3, "projection": "hidden"}
    fourier, general = zoo.FourierKarat(**options), zoo.Karat(**options)
    params, x = draw(fourier)
    with mixers.use_backend("reference"):
        numpy.testing.assert_array_equal(fourier(params, x), general(params, x))


FORMS = [
    {"operator": "full", "grid_size": 2},
    {"basis": "rational", "rational_order": (3, 2), "rank": 2, "base": "silu"},
    {"basis": "rational", "rational_order": (2, 0), "operator": "phi_w", "rank": 2},
    {"basis": "bspline", "operator": "phi_phi", "rank": 3, "grid_range": (-2.0, 2.0), "base": "gelu"},
    {"basis": "bspline", "spline_order": 2, "grid_size": 4, "operator": "full", "grid_range": (-3, 3)},
    {"basis": "morlet", "rank": 2, "projection": "hidden"},
    {"basis": "shannon", "operator": "full"},
    {"basis": "meyer", "operator": "phi_phi", "rank": 2},
    {"basis": "dog", "operator": "phi_w", "rank": 3, "projection": "output"},
    {"basis": "mexican_hat", "rank": 2, "blocks": 2, "mode": "universal", "projection": "output"},
    {"operator": "phi_phi", "rank": 2, "blocks": 2, "mode": "blockwise", "qkv_bias": False},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forms_of_karat(form):
    mixer = zoo.Karat(dim=4, grid=(5,), num_heads=2, **form)
    params, x = draw(mixer)

    def function(arrays):
        return mixer({n: arrays[n] for n in params}, arrays["x"])

    def backward(arrays, dout):
        _, saved = mixer.forward({n: arrays[n] for n in params}, arrays["x"])
        dparams, dx = mixer.backward(dout, saved)
        return dparams | {"x": dx}

    with mixers.use_backend("reference"):
        check_differences(function, backward, params | {"x": x})


def test_parameters_of_karat():
    shapes = lambda **form: {
        n: s.shape
        for n, s in zoo.Karat(dim=6, grid=(5,), num_heads=2, rank=3, **form).parameters().items()
        if n.startswith(("phi", "w_up", "w_down"))
    }
    assert shapes(operator="full", grid_size=4) == {"phi_cos": (2, 5, 4, 5), "phi_sin": (2, 5, 4, 5)}
    assert shapes(basis="rational") == {
        "phi_num": (2, 5, 6, 3),
        "phi_den": (2, 5, 4, 3),
        "w_up": (2, 5, 3),
    }
    assert shapes(basis="bspline", operator="phi_phi") == {
        "phi_coef": (2, 5, 6, 3),
        "phi2_coef": (2, 3, 6, 5),
    }
    wavelets = ("phi_weight", "phi_scale", "phi_translation")
    assert shapes(basis="dog", operator="phi_w") == dict.fromkeys(wavelets, (2, 3, 5)) | {"w_down": (2, 3, 5)}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"basis": "sine"}, "karat: basis must be one of 'fourier', 'rational'"),
        ({"operator": "phi"}, "karat: operator must be one of 'full', 'w_phi'"),
        ({"operator": "full", "projection": "hidden"}, "karat: projection 'hidden' needs operator 'w_phi'"),
        ({"spline_order": -1}, "karat: spline_order must be an integer >= 0, got -1"),
        ({"grid_range": (1.0, 1.0)}, r"karat: grid_range must be \(lo, hi\) with lo < hi"),
        ({"rational_order": (-1, 2)}, "karat: rational_order must be an integer >= 0, got -1"),
        ({"rank": 0}, "karat: rank must be an integer >= 1, got 0"),
    ],
)
def test_errors_of_karat(config, message):
    with pytest.raises(ValueError, match=message):
        mixers.create("karat", **{"dim": 6, "grid": (5,), "num_heads": 2, **config})


def test_qkv_bias_must_be_a_switch():
    with pytest.raises(TypeError, match="fourier_karat: qkv_bias must be True or False, got 1"):
        zoo.FourierKarat(dim=6, grid=(5,), num_heads=2, qkv_bias=1)
