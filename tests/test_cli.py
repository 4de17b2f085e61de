"""The mixers command, as people type it."""

import json
import os
import subprocess
import sys

import numpy
import pytest

import mixers
from mixers import checking, ops, training
from mixers.bench import contender, timing
from mixers.cli import main as command
from mixers.cli import shared

FIRST = ("pool", "mlp_mixer", "dct_mixer", "gated_cnn", "hyena", "mamba", "fourier_karat")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty directory: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    threads = mixers.get_num_threads()

    def run(*arguments):
        status = command.main([str(a) for a in arguments])
        return status, *capsys.readouterr()

    yield run
    mixers.set_num_threads(threads)


def fails(result, *parts):
    """A user's error: status 2, nothing on stdout, one line on stderr with these parts."""
    status, _, err = result
    assert status == 2
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    return True


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_explains(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: mixers {name}" in out
    assert f"examples:\n  mixers {name}" in out
    # every option has an explanation after it or a list of its values
    assert "-h, --help" in out


def test_unknown_commands_and_names(cli, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["nonsense"])
    assert stop.value.code == 2
    capsys.readouterr()
    assert fails(cli("check", "hyen"), "mixers check:", "did you mean hyena")
    assert fails(cli("train", "--mixer", "poll"), "there is no mixer 'poll'")
    assert fails(cli("list", "--family", "none"), "--family must be one of")
    assert fails(cli("map", "pool", "--config", "pool_size"), "--config must look like hidden=64")


def test_list(cli):
    status, out, err = cli("list")
    assert (status, err) == (0, "")
    assert all(name in out for name in mixers.list_mixers())
    assert "arXiv:2111.11418" in out
    names = cli("list", "--family", "mlp", "--rank", "1", "--names")[1].split()
    assert names == mixers.list_mixers("mlp", rank=1)
    assert cli("list", "--causal", "--names")[1].split() == mixers.list_mixers(causal=True)
    assert cli("list", "--ops", "--names")[1].split() == ops.__all__
    assert "avg_pool" in cli("list", "--ops", "--family", "pooling")[1]


def test_info(cli):
    found = json.loads(cli("info", "--json")[1])
    assert found["token-mixers"] == mixers.__version__
    assert found["numpy"] == numpy.__version__
    assert "kernel cache" in cli("info")[1]


def test_check(cli):
    status, out, _ = cli("check", "avg_pool", "--dtype", "float64", "float32", "--backend", "cpu")
    assert status == 0
    # difference quotients of dx; then the output and dx in both dtypes
    assert "avg_pool: 5 of 5 arrays within bounds" in out
    assert (
        cli("check", "mlp_mixer", "--shape", "1,3,5,4", "--config", "hidden=3", "--dtype", "float64")[0] == 0
    )


def test_check_finds_faults(cli, monkeypatch):
    from mixers.cpu import pooling

    right = pooling.avg_pool_backward
    monkeypatch.setattr(pooling, "avg_pool_backward", lambda dout, saved: (right(dout, saved)[0] * 1.001,))
    status, out, _ = cli("check", "avg_pool", "--dtype", "float32")
    assert status == 1
    assert "FAILED" in out
    assert "avg_pool: 2 of 3 arrays within bounds" in out
    monkeypatch.setattr(
        pooling, "avg_pool_backward", lambda dout, saved: (right(dout, saved)[0] * numpy.nan,)
    )
    assert cli("check", "avg_pool", "--dtype", "float32")[0] == 1


def test_check_finds_wrong_references(monkeypatch):
    from mixers import reference

    right = reference.pooling.avg_pool_backward
    wrong = lambda dout, saved: (right(dout, saved)[0] + 1e-4,)
    monkeypatch.setattr(reference.pooling, "avg_pool_backward", wrong)
    first = next(iter(checking.check("avg_pool")))
    assert (first.backend, first.array, first.passed) == ("differences", "dx", False)


def test_check_on_the_gpu(cli, monkeypatch):
    """The same command on arrays of the emulator in place of CuPy's."""
    import cuda_emulator

    from mixers.gpu import device

    with cuda_emulator.activate() as emulated:
        monkeypatch.setattr(device, "cupy_device", lambda number=0: emulated)
        status, out, _ = cli("check", "avg_pool", "--backend", "gpu", "--dtype", "float32", "bfloat16")
        assert status == 0
        assert "gpu" in out
        assert "avg_pool: 5 of 5 arrays within bounds" in out
        # all that this machine has: both
        assert "avg_pool: 5 of 5 arrays" in cli("check", "avg_pool", "--dtype", "float32")[1]


def test_warmup(cli):
    status, out, err = cli("warmup", "silu", "pool", "--dtype", "float32", "float64")
    assert (status, err) == (0, "")
    assert out.startswith("compiled 4 of 4")


def test_map(cli, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, err = cli("map", "pool", "--shape", "2,4,4,3")
    assert (status, out, err) == (0, "wrote pool_map.png\n", "")
    assert (tmp_path / "pool_map.png").read_bytes().startswith(b"\x89PNG")
    assert (
        cli("map", "mlp_mixer", "--shape", "1,9,2", "--out", "deep/map.svg", "--config", "hidden=3")[0] == 0
    )
    assert "<svg" in (tmp_path / "deep" / "map.svg").read_text()
    assert fails(cli("map", "pool", "--out", "map.nonsense"), "nonsense")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "pool_map.png"]


def test_bench_alone(cli):
    status, out, err = cli("bench", "silu", "--shape", "b=1,l=8", "--rounds", "1", "--backward", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["shapes"] == {"x": [1, 8, 256]}
    times = found["timings"]["mixers"]
    assert set(times) == {"forward", "backward", "both"}
    assert all(0 < t["low"] <= t["median"] <= t["high"] for t in times.values())
    assert found["gbyte_per_second"] == pytest.approx(2 * 8 * 256 * 4 / times["forward"]["median"] / 1e9)


def test_bench_against_a_peer(cli):
    status, out, _ = cli(
        "bench", "dct", "--shape", "b=1,c=3", "--against", "scipy,scipy", "--rounds", "1", "--backward"
    )
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("scipy"))
    # three times with spreads, three ratios, the difference of the outputs
    assert len(line.split()) == 1 + 3 * 2 + 3 + 1
    assert 0 <= float(line.split()[-1]) < 1e-5


def test_bench_tells_what_it_could_not_do(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "ducc0", None)
    status, out, _ = cli("bench", "gelu", "--rounds", "1", "--against", "ducc0", "scipy", "--shape", "b=1")
    assert status == 0
    assert "ducc0: not installed" in out
    assert "pip install ducc0" in out
    assert "scipy: has no gelu on the cpu backend" in out
    assert fails(cli("bench", "gelu", "--against", "keras"), "--against must name some of", "got 'keras'")
    assert fails(cli("bench", "gelu", "--threads", "0"), "--threads must be at least 1, got 0")
    assert fails(cli("bench", "gelu", "--backend", "gpu"), "the gpu backend needs")


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = timing.alternate(calls, rounds=3)
    changes = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert changes == list("ababab")
    assert all(t.low <= t.median <= t.high for t in found.values())


def test_every_peer_names_its_install_line():
    assert {"torch", "jax", "mambapy", "ducc0", "scipy"} <= set(contender.known())


def test_config_values():
    assert shared.parse_config(["a=1", "b=(2, 3)", "c=text", "d=True", "e="]) == {
        "a": 1,
        "b": (2, 3),
        "c": "text",
        "d": True,
        "e": "",
    }


def test_train_writes_weights_and_picture(cli, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    arguments = ("train", "--mixer", "pool", "--epochs", "2", "--dim", "8", "--out")
    status, out, err = cli(*arguments, "one/pool")
    assert (status, err) == (0, "")
    assert "test accuracy" in out
    assert (tmp_path / "one" / "pool.png").read_bytes().startswith(b"\x89PNG")
    assert cli(*arguments, "two/pool.npz")[1].splitlines()[0] == out.splitlines()[0]
    assert (tmp_path / "one" / "pool.npz").read_bytes() == (tmp_path / "two" / "pool.npz").read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["pool.npz", "pool.png"]
    model, params = training.load(tmp_path / "one" / "pool.npz")
    assert list(params) == list(model.parameters())
    test = training.load_digits().test
    assert f"test accuracy {100 * training.accuracy(model, params, test):.2f} %" in out
    assert cli("map", "pool", "--weights", "one/pool.npz")[0] == 0
    assert fails(cli("map", "mlp_mixer", "--weights", "one/pool.npz"), "holds a pool, not a mlp_mixer")


def test_seed_decides_the_training():
    pytest.importorskip("sklearn")
    data = training.load_digits()
    runs = [
        training.train(training.Settings("pool", epochs=1, dim=4, seed=seed), data).losses
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_trained_models_read_digits(name):
    pytest.importorskip("sklearn")
    result = training.train(training.Settings(name), training.load_digits())
    assert result.test_accuracy >= 0.95
    assert result.losses[-1] < 0.5 * result.losses[0]


@pytest.mark.parametrize(
    ("module", "package"), [("sklearn.datasets", "scikit-learn"), ("matplotlib", "matplotlib")]
)
def test_missing_packages_are_named(cli, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert fails(cli("train", "--mixer", "pool"), package, 'pip install "token-mixers[train]"')


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--epochs", "0"), "epochs must be an integer >= 1, got 0"),
        (("--patch", "3"), "patch must divide the sides of image = 8, got 3"),
        (("--learning-rate", "0"), "learning_rate must be > 0"),
        (("--backend", "gpu"), "the gpu backend needs"),
    ],
)
def test_train_rejects(cli, option, message):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert fails(cli("train", "--mixer", "pool", *option), message)


def test_cross_entropy_gradient():
    rng = numpy.random.default_rng(0)
    logits, labels = 5 * rng.standard_normal((3, 4)), numpy.array([1, 3, 0])
    _, dlogits = training.cross_entropy(logits, labels)
    v, step = rng.standard_normal((3, 4)), 1e-5
    plus, minus = (training.cross_entropy(logits + s * step * v, labels)[0] for s in (1, -1))
    assert (plus - minus) / (2 * step) == pytest.approx((dlogits * v).sum(), rel=1e-7)
    # no overflow for confident logits
    assert training.cross_entropy(numpy.array([[1e4, 0.0]], "float32"), numpy.array([0]))[0] == 0.0


def test_adamw_takes_the_first_steps_of_the_paper():
    params = {"w": numpy.array([[1.0]]), "b": numpy.array([1.0]), "mean": numpy.array([2.0])}
    optimizer = training.AdamW(params, weight_decay=0.1)
    gradients = {"w": numpy.array([[3.0]]), "b": numpy.array([-3.0]), "mean": None}
    optimizer.update(params, gradients, rate=0.01)
    # the first step has the size of the rate, against the sign of the gradient; only matrices decay
    numpy.testing.assert_allclose(params["w"], 1.0 * (1 - 0.01 * 0.1) - 0.01)
    numpy.testing.assert_allclose(params["b"], 1.01)
    assert params["mean"] == 2.0


def test_learning_rate_rises_and_falls():
    rates = [training.learning_rate(1.0, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001


def test_weights_of_something_else_are_rejected(tmp_path):
    numpy.savez(tmp_path / "other.npz", a=numpy.zeros(3))
    with pytest.raises(ValueError, match="must be a file that `mixers train` wrote"):
        training.load(tmp_path / "other.npz")


def test_faults_of_the_library_keep_their_traceback(monkeypatch):
    def fail(arguments):
        raise AttributeError("a bug")

    monkeypatch.setattr("mixers.cli.info.run", fail)
    with pytest.raises(AttributeError, match="a bug"):
        command.main(["info"])


def test_installed_command():
    """The console script, in a process of its own, with a reader that stops early."""
    script = os.path.join(os.path.dirname(sys.executable), "mixers")
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert done.stdout == f"token-mixers {mixers.__version__}\n"
    piped = subprocess.run(f"{script} list | head -n 1", shell=True, capture_output=True, text=True)
    assert piped.stderr == ""
    assert piped.stdout.startswith("mixer ")
