"""The tests that every op must pass, written once: subclass OpSuite, name the op, list the cases.

    class TestSilu(OpSuite):
        op = ops.silu
        cases = [Case("small", {"x": (2, 5, 3)}), ...]

The oracle chain: reference backward against central differences in float64; then every backend, in every
dtype, against the reference in float64 on the same rounded inputs; then the promises that hold for all ops:
strides, untouched inputs, NaN-poisoned scratch, repeatability, threads, concurrency, exchangeable saved values.
"""

import contextlib
import dataclasses
import os
import pickle
import threading

import ml_dtypes
import numpy
import pytest
import tolerances

import mixers

DTYPES = {
    "float64": numpy.float64,
    "float32": numpy.float32,
    "float16": numpy.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
BACKENDS = os.environ.get("MIXERS_TEST_BACKENDS", "reference,cpu,emulated").split(",")

# the hard sizes: every op family picks its cases from these
LENGTHS = (1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 1000, 1025)
CHANNELS = (1, 3, 8, 33)
BATCHES = (1, 3)


@dataclasses.dataclass(frozen=True)
class Case:
    """One call: array arguments as shapes (normal values) or functions of a generator, and options."""

    name: str
    arrays: dict
    options: dict = dataclasses.field(default_factory=dict)
    hard: bool = False  # decays within 1e-4 of 1: float32 tolerances times HARD_GATE_FACTOR
    emulated: bool = True  # also run in the CUDA emulator: keep these small
    halves: bool = True  # also run in float16 and bfloat16
    # outputs, and arrays whose gradient, are zero in theory: rounding noise, held to the scale of the others
    vanishing: tuple = ()
    differences: bool = True  # also check against central differences (off for long cases)

    def floor(self, name):
        """The smallest scale that counts for a gradient, as a part of the largest gradient's."""
        return 1.0 if name in self.vanishing else 1e-6

    def draw(self, dtype="float64"):
        """The arguments, with arrays rounded to `dtype`."""
        rng = numpy.random.default_rng(sum(map(ord, self.name)))
        arrays = {
            n: a(rng) if callable(a) else rng.standard_normal(a)
            for n, a in self.arrays.items()
            if a is not None
        }
        return {n: a.astype(DTYPES[dtype]) for n, a in arrays.items()} | self.options


def outputs(out):
    """The outputs of an op as a list of arrays (None where one was not asked for)."""
    return list(out) if isinstance(out, tuple) else [out]


def cotangents(out, seed=1):
    """Random cotangents in the structure of an output, of its dtypes."""
    rng = numpy.random.default_rng(seed)
    parts = [None if o is None else rng.standard_normal(o.shape).astype(o.dtype) for o in outputs(out)]
    return like(out, parts)


def like(out, parts):
    """The parts in the structure of an output: bare, tuple or NamedTuple."""
    if not isinstance(out, tuple):
        return parts[0]
    return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)


def assert_close(name, got, want, tolerance, floor=0.0):
    """Compare with the ratio and the worst-element criterion; `floor` is the smallest scale that counts."""
    got, want = numpy.asarray(got).astype(numpy.float64), numpy.asarray(want).astype(numpy.float64)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    if not want.size:
        return
    assert numpy.array_equal(numpy.isnan(got), numpy.isnan(want)), f"{name}: NaNs differ"
    difference = got - want
    ratio = numpy.sqrt(numpy.mean(difference**2)) / max(numpy.sqrt(numpy.mean(want**2)), floor, 1e-300)
    worst = numpy.abs(difference).max() / max(numpy.abs(want).max(), floor, 1e-300)
    assert ratio <= tolerance.ratio, (
        f"{name}: rms error ratio {ratio:.2e} > {tolerance.ratio:.0e} (worst {worst:.2e})"
    )
    assert worst <= tolerance.worst, (
        f"{name}: worst error {worst:.2e} > {tolerance.worst:.0e} (ratio {ratio:.2e})"
    )


def scaled(tolerance, factor):
    return tolerances.Tolerance(*(t * factor for t in tolerance))


def reference(op, arguments, dout=None):
    """Outputs and gradients of the reference in float64, on the very values of `arguments`."""
    wide = {
        n: a.astype(numpy.float64) if n in op.arrays and a is not None else a for n, a in arguments.items()
    }
    with mixers.use_backend("reference"):
        out, saved = op.forward(**wide)
        dout = cotangents(out) if dout is None else widen(dout)
        return out, op.backward(dout, saved)


def widen(dout):
    if isinstance(dout, tuple):
        return type(dout)(*(None if d is None else d.astype(numpy.float64) for d in dout))
    return dout.astype(numpy.float64)


@contextlib.contextmanager
def device_of(backend):
    """Functions that bring arrays to a backend and back; "emulated" runs the CUDA kernels on the CPU."""
    if backend == "emulated":
        import cuda_emulator

        with cuda_emulator.activate() as device:
            yield device.to_device, device.to_host
    else:
        with mixers.use_backend(backend):
            yield (lambda a: a), (lambda a: a)


def run(op, arguments, dout, backend):
    """Outputs and gradients of one backend as host arrays."""
    with device_of(backend) as (to, back):
        moved = {n: to(a) if n in op.arrays and a is not None else a for n, a in arguments.items()}
        out, saved = op.forward(**moved)
        move = lambda a: None if a is None else to(a)
        moved_dout = type(dout)(*map(move, dout)) if isinstance(dout, tuple) else move(dout)
        gradients = op.backward(moved_dout, saved)
        host = lambda a: None if a is None else back(a)
        plain = [host(o) for o in outputs(out)]
        return plain, {n: host(g) for n, g in zip(op.arrays, gradients)}


def check_backend(op, case, backend, dtype):
    """Outputs and gradients of a backend in a dtype against the reference in float64."""
    arguments = case.draw(dtype)
    with mixers.use_backend("reference"):
        shaped = op(**arguments)
    dout = cotangents(shaped)
    want, want_gradients = reference(op, arguments, dout)
    got, gradients = run(op, arguments, dout, backend)
    factor = tolerances.HARD_GATE_FACTOR if case.hard and dtype == "float32" else 1.0
    largest = max((float(numpy.abs(w).max()) for w in outputs(want) if w is not None and w.size), default=0.0)
    for i, (g, w) in enumerate(zip(got, outputs(want), strict=True)):
        if w is None:
            assert g is None
            continue
        assert g.dtype == (DTYPES[dtype] if i == 0 else g.dtype)
        floor = largest if op.outputs[i] in case.vanishing else 0.0
        tolerance = scaled(tolerances.FORWARD[dtype], factor)
        assert_close(f"{op.name} {case.name} output {i}", g, w, tolerance, floor)
    scale = max((float(numpy.abs(w).max()) for w in want_gradients if w is not None and w.size), default=0.0)
    for (name, g), w in zip(gradients.items(), want_gradients, strict=True):
        if w is None:
            assert g is None, f"{op.name}: gradient of {name} without an input"
            continue
        assert g.dtype == arguments[name].dtype, f"{op.name}: d{name} has dtype {g.dtype}"
        label = f"{op.name} {case.name} d{name}"
        assert_close(label, g, w, scaled(tolerances.BACKWARD[dtype], factor), floor=case.floor(name) * scale)


def check_differences(function, backward, arrays, directions=3, step=1e-5):
    """Gradients of ``sum(function(arrays) * cotangent)`` against central differences along random directions."""
    out = function(arrays)
    dout = cotangents(out)
    gradients = backward(arrays, dout)
    weigh = lambda o: sum(float((a * d).sum()) for a, d in zip(outputs(o), outputs(dout)) if a is not None)
    rng = numpy.random.default_rng(2)
    for name, array in arrays.items():
        for _ in range(directions):
            v = rng.standard_normal(array.shape)
            plus = weigh(function(arrays | {name: array + step * v}))
            minus = weigh(function(arrays | {name: array - step * v}))
            numeric = (plus - minus) / (2 * step)
            analytic = float((gradients[name] * v).sum())
            scale = max(abs(numeric), float(numpy.linalg.norm(gradients[name])), 1e-3)
            assert abs(numeric - analytic) <= tolerances.FINITE_DIFFERENCE * scale, (
                f"d{name}: {analytic:.12g} against the difference quotient {numeric:.12g}"
            )


def check_state_gradients(mixer, shape):
    """Cotangents of the states that a recurrent mixer returns, gradients of those it is given, for x of a shape."""
    rng = numpy.random.default_rng(0)
    params = mixer.init(rng, dtype="float64")
    zeros = mixer.initial_state(shape[0])
    states = type(zeros)
    state = states(*(rng.standard_normal(s.shape) for s in zeros))
    arrays = {"x": rng.standard_normal(shape), **state._asdict()}

    def forward(arrays):
        given = states(*(arrays[name] for name in states._fields))
        return mixer.forward(params, arrays["x"], state=given, return_state=True)

    def function(arrays):
        (y, state), _ = forward(arrays)
        return (y, *state)

    def backward(arrays, dout):
        dx, dstate = mixer.backward(dout[0], forward(arrays)[1], dstate=states(*dout[1:]))[1]
        return {"x": dx} | dstate._asdict()

    with mixers.use_backend("reference"):
        check_differences(function, backward, arrays)


def twisted(array):
    """The same values with awkward strides: reversed, transposed and padded memory."""
    big = numpy.empty([2 * n + 1 for n in reversed(array.shape)], array.dtype)
    view = big[tuple(slice(1, None, 2) for _ in array.shape)].transpose()[
        tuple(slice(None, None, -1) for _ in array.shape)
    ]
    view[...] = array
    view.flags.writeable = False
    return view


def same(left, right):
    """Bitwise equality of two results of `run`."""
    (a, da), (b, db) = left, right
    pairs = list(zip(a, b, strict=True)) + [(da[n], db[n]) for n in da]
    return all((x is None and y is None) or x.tobytes() == y.tobytes() for x, y in pairs)


def _selected(backend):
    if backend not in BACKENDS:
        pytest.skip(f"{backend} is not among MIXERS_TEST_BACKENDS")


class OpSuite:
    """Base class of an op's tests; see the head of this file. Set `backends` to leave one out (with a reason)."""

    op = None
    cases = ()
    backends = ("cpu", "emulated")
    constants = ()  # arrays that are data by definition: their gradient is None

    def test_reference_against_differences(self, case):
        if not case.differences:
            pytest.skip("too long for difference quotients")
        arguments = case.draw()
        varied = [n for n in self.op.arrays if n not in self.constants]
        options = {n: a for n, a in arguments.items() if n not in varied}
        arrays = {n: a for n, a in arguments.items() if n in varied}

        def backward(arrays, dout):
            _, saved = self.op.forward(**arrays, **options)
            return dict(zip(self.op.arrays, self.op.backward(dout, saved)))

        with mixers.use_backend("reference"):
            check_differences(lambda a: self.op(**a, **options), backward, arrays)

    @pytest.mark.parametrize("dtype", list(DTYPES))
    @pytest.mark.parametrize("backend", ["cpu", "emulated"])
    def test_backend_against_reference(self, case, backend, dtype):
        self._needs(backend, case)
        if dtype in ("float16", "bfloat16") and not case.halves:
            pytest.skip("this case overflows or means nothing in half precision")
        check_backend(self.op, case, backend, dtype)

    @pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
    def test_strides_and_untouched_inputs(self, case, backend):
        self._needs(backend, case)
        arguments = case.draw("float32")
        kept = {n: a.copy() for n, a in arguments.items() if n in self.op.arrays}
        with mixers.use_backend("reference"):
            dout = cotangents(self.op(**arguments))
        plain = run(self.op, arguments, dout, backend)
        for name, array in kept.items():
            assert arguments[name].tobytes() == array.tobytes(), f"{name} was modified"
        odd = {n: twisted(a) if n in kept else a for n, a in arguments.items()}
        odd_dout = (
            type(dout)(*(None if d is None else twisted(d) for d in dout))
            if isinstance(dout, tuple)
            else twisted(dout)
        )
        if backend == "emulated":
            # the emulator's to_device copies: strided device arrays are the emulator's own test
            odd, odd_dout = {n: numpy.array(a) if n in kept else a for n, a in odd.items()}, dout
        assert same(plain, run(self.op, odd, odd_dout, backend)) or backend == "reference"

    @pytest.mark.parametrize("backend", ["cpu", "emulated"])
    def test_broadcast_cotangent(self, case, backend):
        self._needs(backend, case)
        arguments = case.draw("float64")
        with mixers.use_backend("reference"):
            out = self.op(**arguments)
        rng = numpy.random.default_rng(4)
        # one for the whole batch; a constant would make gradients vanish that are sums of deviations
        one = lambda o: None if o is None else numpy.broadcast_to(rng.standard_normal(o.shape[1:]), o.shape)
        dout = type(out)(*map(one, out)) if isinstance(out, tuple) else one(out)
        _, want = reference(self.op, arguments, dout)
        _, got = run(self.op, arguments, dout, backend)
        scale = max((float(numpy.abs(w).max()) for w in want if w is not None and w.size), default=0.0)
        for name, w in zip(self.op.arrays, want):
            if w is not None:
                assert_close(
                    f"d{name}", got[name], w, tolerances.BACKWARD["float64"], floor=case.floor(name) * scale
                )

    @pytest.mark.parametrize("backend", ["cpu", "emulated"])
    def test_repeatable_and_poisoned(self, case, backend, monkeypatch):
        """Two runs agree bit for bit although fresh memory holds NaN in the second."""
        self._needs(backend, case)
        arguments = case.draw("float32")
        with mixers.use_backend("reference"):
            dout = cotangents(self.op(**arguments))
        first = run(self.op, arguments, dout, backend)
        empty = numpy.empty

        def poisoned(shape, dtype=float, **kwargs):
            array = empty(shape, dtype, **kwargs)
            if array.dtype.kind == "f":
                array.fill(numpy.nan)
            elif array.dtype == numpy.uint8:
                array.fill(255)  # raw memory: NaN whatever float it is viewed as
            return array

        monkeypatch.setattr(numpy, "empty", poisoned)
        second = run(self.op, arguments, dout, backend)
        assert same(first, second)

    def test_threads_do_not_matter(self, case):
        self._needs("cpu", case)
        arguments = case.draw("float32")
        with mixers.use_backend("reference"):
            dout = cotangents(self.op(**arguments))
        before = mixers.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                mixers.set_num_threads(threads)
                results.append(run(self.op, arguments, dout, "cpu"))
        finally:
            mixers.set_num_threads(before)
        assert same(results[0], results[1])
        assert same(results[0], results[2])

    def test_two_callers_at_once(self, case):
        self._needs("cpu", case)
        arguments = case.draw("float32")
        with mixers.use_backend("reference"):
            dout = cotangents(self.op(**arguments))
        want = run(self.op, arguments, dout, "cpu")
        results, errors = [], []

        def work():
            try:
                results.extend(run(self.op, arguments, dout, "cpu") for _ in range(3))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        assert len(results) == 6
        assert all(same(want, r) for r in results)

    def test_saved_is_exchangeable(self, case):
        """Forward on one backend and backward on another; saved values survive pickling."""
        self._needs("cpu", case)
        arguments = case.draw("float64")
        with mixers.use_backend("reference"):
            out, saved = self.op.forward(**arguments)
            dout = cotangents(out)
            want = self.op.backward(dout, saved)
            got_reference = self.op.backward(dout, self._saved_by("cpu", arguments))
        with mixers.use_backend("cpu"):
            got_cpu = self.op.backward(dout, pickle.loads(pickle.dumps(saved)))
        scale = max((float(numpy.abs(w).max()) for w in want if w is not None and w.size), default=0.0)
        for got in (got_reference, got_cpu):
            for name, g, w in zip(self.op.arrays, got, want, strict=True):
                if w is not None:
                    assert_close(
                        f"d{name}", g, w, tolerances.BACKWARD["float64"], floor=case.floor(name) * scale
                    )

    def _saved_by(self, backend, arguments):
        with mixers.use_backend(backend):
            return self.op.forward(**arguments)[1]

    def _needs(self, backend, case):
        _selected(backend)
        if backend not in (*self.backends, "reference"):
            pytest.skip(f"{self.op.name} is not on {backend}")
        if backend == "emulated" and not case.emulated:
            pytest.skip("too large for the emulator")
