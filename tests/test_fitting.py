"""Fitting a small Kolmogorov-Arnold network: samples, the network, the fit, the command."""

import json

import numpy
import pytest
from harness import check_differences

import mixers
from mixers import fitting, zoo
from mixers.cli import main as command


def test_expressions():
    samples = fitting.sample_expression("exp(sin(pi * x)) + y**2 - 1", count=50, low=-2.0, high=3.0, seed=4)
    x, y = samples.x.T
    assert samples.names == ("x", "y", "exp(sin(pi * x)) + y**2 - 1")
    assert samples.x.min() >= -2.0
    assert samples.x.max() <= 3.0
    numpy.testing.assert_allclose(samples.y[:, 0], numpy.exp(numpy.sin(numpy.pi * x)) + y**2 - 1)
    assert fitting.sample_expression("x1 + 0 * x3").names[:2] == ("x1", "x3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sin(x", "must be an expression like"),
        ("__import__('os')", "must consist of arithmetic"),
        ("x.real", "must consist of arithmetic"),
        ("(lambda: 1)()", "must call functions by name"),
        ("[x for x in y]", "must consist of arithmetic"),
        ("q + x", "must consist of arithmetic, x, y, z, x1 ... x9, pi, e and .*; got q"),
        ("sin(x=1)", "must consist of arithmetic|must call functions by name"),
        ("x + 'a'", "must hold numbers only, got 'a'"),
        ("1 + pi", "must have a variable"),
        ("x / 0", "must have a value|must be finite"),
        ("x + 1 / 0", "must have a value, got: .*division by zero"),
        ("x * 9**9**9**9", "must have a value, got: "),
        ("x + sin", "must have a value, got: "),
        ("sin(x, x, x, x)", "must have a value, got: "),
        ("x^2", r"got BitXor; a power is x\*\*2"),
        ("log(x)", r"must be finite for all variables in \[-1.0, 1.0\]"),
    ],
)
def test_bad_expressions(text, message):
    with pytest.raises(ValueError, match=message):
        fitting.sample_expression(text)


def test_csv_files(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("mass,length,period\n1,2,3\n4,5e-1,6\n\n")
    samples = fitting.read_csv(path)
    numpy.testing.assert_array_equal(samples.x, [[1, 2], [4, 0.5]])
    numpy.testing.assert_array_equal(samples.y, [[3], [6]])
    assert samples.names == ("mass", "length", "period")
    path.write_text("1,2\n3,4\n")
    assert fitting.read_csv(path).names == ("x1", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv must hold rows of numbers, got none"),
        ("a,b\n", "must hold rows of numbers, got none"),
        ("1\n2\n", "must have two columns or more, separated by commas: .* line 1 is '1'"),
        ("a;b\n1;2\n", "must have two columns or more, .* line 2 is '1;2'"),
        ("1,2\n\n3\n", "table.csv, line 3: must have 2 columns, got 1"),
        ("a,b,c\n1,2\n", "line 2: must have 3 columns, got 2"),
        ("a,b\n1,x\n", "line 2: b must be a finite number, got 'x'; fill it in or leave out the line"),
        ("1,2\nnan,4\n", "line 2: x1 must be a finite number, got 'nan'"),
        ("mass,time\n,4\n", "line 2: mass must be a finite number, got ''"),
    ],
)
def test_bad_csv_files(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        fitting.read_csv(path)


def test_csv_files_of_spreadsheets(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfmass,time\r\n1,2\r\n3,4\r\n")
    samples = fitting.read_csv(path)
    assert samples.names == ("mass", "time")
    numpy.testing.assert_array_equal(samples.y, [[2], [4]])


def test_network_gradients():
    network = fitting.KanNetwork((zoo.KanBspline(2, 3), zoo.KanFourier(3, 2, grid_size=2)))
    params = network.init(0, dtype="float64")
    x = numpy.random.default_rng(0).standard_normal((5, 2))
    trained = [n for n, s in network.parameters().items() if s.trainable]
    assert "layers.0.grid" not in trained

    def backward(arrays, dout):
        _, saved = network.forward({**params, **{n: arrays[n] for n in trained}}, arrays["x"])
        dparams, dx = network.backward(dout, saved)
        return dparams | {"x": dx}

    def function(arrays):
        return network({**params, **{n: arrays[n] for n in trained}}, arrays["x"])

    with mixers.use_backend("reference"):
        check_differences(function, backward, {n: params[n] for n in trained} | {"x": x})


def test_layers_must_fit():
    with pytest.raises(ValueError, match="layers must fit together, got 3 features for 4"):
        fitting.KanNetwork((zoo.KanBspline(2, 3), zoo.KanBspline(4, 1)))
    with pytest.raises(ValueError, match="layers must hold one layer or more"):
        fitting.KanNetwork(())


@pytest.mark.parametrize("layer", fitting.LAYERS)
def test_a_fit_learns(layer):
    """A sum of two functions needs one layer, whose edges are these functions up to a constant."""
    samples = fitting.sample_expression("sin(3 * x) + 2 * y**2", count=600)
    settings = fitting.Settings(layer=layer, hidden=(), steps=250, learning_rate=0.05)
    with mixers.use_backend("reference"):
        found = fitting.fit(samples, settings)
        (edges,) = fitting.edge_functions(found, samples.x)
        again = fitting.fit(samples, settings)
    assert found.test_error < 0.1 * found.std
    assert found.losses[-1] < 0.02 * found.losses[0]
    assert again.losses == found.losses
    x = edges.points * found.half + found.centre
    learnt = edges.values[:, :, 0] * found.std
    for i, wanted in enumerate((numpy.sin(3 * x[:, 0]), 2 * x[:, 1] ** 2)):
        difference = learnt[:, i] - wanted
        assert numpy.std(difference[5:-5]) < 0.1


def test_edges_add_up_to_the_layer():
    samples = fitting.sample_expression("x * y", count=50)
    settings = fitting.Settings(hidden=(3,), steps=1)
    with mixers.use_backend("reference"):
        found = fitting.fit(samples, settings)
        first, second = fitting.edge_functions(found, samples.x, count=11)
        assert first.values.shape == (11, 2, 3)
        assert second.values.shape == (11, 3, 1)
        layer, p = found.network.layers[0], found.network.part(found.params, 0)
        zero = layer(p, numpy.zeros((1, 2), "float32"))
        want = layer(p, first.points)
    numpy.testing.assert_allclose(first.values.sum(axis=1) + zero, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "fit: steps must be an integer >= 1, got 0"),
        ({"batch": 0}, "fit: batch must be an integer >= 1, got 0"),
        ({"hidden": (0,)}, "fit: hidden must be an integer >= 1, got 0"),
        ({"layer": "mlp"}, "fit: layer must be one of 'kan_bspline'"),
    ],
)
def test_bad_settings(change, message):
    samples = fitting.sample_expression("x", count=20)
    with pytest.raises(ValueError, match=message):
        fitting.fit(samples, fitting.Settings(**change))


def test_too_few_samples():
    with pytest.raises(ValueError, match="fit: there must be at least 10 samples, got 3"):
        fitting.fit(fitting.sample_expression("x", count=3))


def test_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    rows = numpy.random.default_rng(0).uniform(-1, 1, (60, 2))
    numpy.savetxt("table.csv", numpy.c_[rows, rows.sum(axis=1)], delimiter=",", header="a,b,sum", comments="")
    with mixers.use_backend("reference"):
        assert command.main(["fit", "table.csv", "--steps", "5", "--hidden", "2", "--out", "runs/sum"]) == 0
    out = capsys.readouterr().out
    assert "kan_bspline 2 -> 2 -> 1" in out
    assert "root mean square error" in out
    assert (tmp_path / "runs/sum.png").stat().st_size > 5000
    with numpy.load("runs/sum.npz") as data:
        assert json.loads(str(data["settings"]))["hidden"] == [2]
        assert data["layers.1.w_spline"].shape == (2, 8, 1)
    assert command.main(["fit", "nothing.csv"]) == 2
    assert command.main(["fit", "x", "--samples", "2"]) == 2
    assert command.main(["fit", "x", "--range", "1", "1"]) == 2
    errors = capsys.readouterr().err
    assert "--samples must be at least 10, got 2" in errors
    assert "--range must be LOW < HIGH" in errors
