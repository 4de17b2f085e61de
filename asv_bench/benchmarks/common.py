"""What the benchmarks of all families share.

A family's file subclasses :class:`OpBenchmark` once per op and :class:`MixerBenchmark` once per mixer; both
are abstract, so asv does not run them themselves. Parameters are the same on every machine: a backend that
is not there raises NotImplementedError in ``setup``, which asv records as not run.
"""

import abc
import statistics
import time

import mixers
from mixers import ops, samples

BACKENDS = ("reference", "cpu", "gpu")
DTYPES = ("float32", "float64")


class _Benchmark(abc.ABC):
    """Forward and backward of one thing: subclasses say in ``prepare`` what these are."""

    shapes = ("",)
    param_names = ("backend", "dtype", "shape")
    params = (BACKENDS, DTYPES, shapes)
    timeout = 300
    # asv drops old results when this changes: raise it by hand when what is measured changes
    version = "1"

    def __init_subclass__(cls):
        cls.params = (BACKENDS, DTYPES, cls.shapes)

    @abc.abstractmethod
    def prepare(self, backend, dtype, shape):
        """Draw the arguments and return the functions ``forward()`` and ``backward(dout, saved)``."""

    def setup(self, backend, dtype, shape):
        if backend == "reference" and dtype != "float64":
            raise NotImplementedError("the reference is of interest in float64 only")
        self.synchronize = _synchronizer(backend)
        self.backend = backend
        with self.use():
            self.forward, self.backward = self.prepare(backend, dtype, shape)
            # compiles both, so that no round counts it
            out, self.saved = self.forward()
            self.dout = samples.cotangent(out)
            self.backward(self.dout, self.saved)
        self.synchronize()

    def use(self):
        return mixers.use_backend(self.backend)

    def time_forward(self, backend, dtype, shape):
        with self.use():
            self.forward()
        self.synchronize()

    def time_backward(self, backend, dtype, shape):
        with self.use():
            self.backward(self.dout, self.saved)
        self.synchronize()

    def peakmem_forward(self, backend, dtype, shape):
        self.time_forward(backend, dtype, shape)

    def peakmem_backward(self, backend, dtype, shape):
        self.time_backward(backend, dtype, shape)


class OpBenchmark(_Benchmark):
    """An op: set `op` to its name and `shapes` to texts like ``"b=2,l=1024"`` (see mixers.samples)."""

    @property
    @abc.abstractmethod
    def op(self):
        """Name of the op."""

    def prepare(self, backend, dtype, shape):
        sizes = {k: int(v) for k, v in (pair.split("=") for pair in shape.split(",") if pair)}
        drawn = samples.op_sample(self.op, "bench", dtype=dtype, **sizes)
        arguments = samples.on_backend(drawn, backend)
        op = getattr(ops, self.op)
        self.bytes = op.cost(**arguments)[1]
        return lambda: op.forward(**arguments), op.backward

    def track_gbytes_per_second(self, backend, dtype, shape):
        """Bytes that must move if each array is touched once, over the median time of a forward."""
        times = []
        for _ in range(7):
            start = time.perf_counter()
            self.time_forward(backend, dtype, shape)
            times.append(time.perf_counter() - start)
        return self.bytes / statistics.median(times) / 1e9

    track_gbytes_per_second.unit = "GB/s"


class MixerBenchmark(_Benchmark):
    """A mixer: set `mixer` to its name and `shapes` to shapes of x like ``"8,1024,256"``."""

    @property
    @abc.abstractmethod
    def mixer(self):
        """Name of the mixer."""

    def prepare(self, backend, dtype, shape):
        given = tuple(int(n) for n in shape.split(",") if n) or None
        mixer, *drawn = samples.mixer_sample(self.mixer, "bench", dtype=dtype, shape=given)
        params, inputs = samples.on_backend(tuple(drawn), backend)
        # keep: asv calls the backward many times for one forward
        return (
            lambda: mixer.forward(params, *inputs),
            lambda dout, saved: mixer.backward(dout, saved, keep=True),
        )


def _synchronizer(backend):
    if backend != "gpu":
        return lambda: None
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise NotImplementedError(f"no GPU: {error}") from None
    return lambda: cupy.cuda.get_current_stream().synchronize()
