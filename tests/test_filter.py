"""Spectral filters."""

import cuda_emulator
import numpy
import pytest
from harness import BACKENDS, Case, OpSuite

import mixers
from mixers import ops


def filtered(name, b, h, w, c, **options):
    half = w // 2 + 1
    return Case(name, {"x": (b, h, w, c), "w_re": (h, half, c), "w_im": (h, half, c)}, **options)


class TestSpectralFilter(OpSuite):
    op = ops.spectral_filter
    cases = [
        filtered("even", 2, 6, 8, 5),
        filtered("odd", 3, 7, 5, 33),
        filtered("row", 2, 1, 9, 3),
        filtered("column", 1, 9, 1, 8),
        filtered("point", 3, 1, 1, 3),
        filtered("two-columns", 1, 3, 2, 1),
        filtered("14x14", 3, 14, 14, 20),
        filtered("prime", 2, 13, 11, 4),
        filtered("33x32", 1, 33, 32, 3, differences=False),
        filtered("64x64", 1, 64, 64, 2, differences=False),
        filtered("large-and-small-axis", 1, 65, 4, 3, differences=False),
        filtered("large-prime", 2, 3, 131, 3, differences=False),
        filtered("large", 1, 260, 258, 2, emulated=False, differences=False),
        filtered("empty-batch", 0, 4, 4, 3),
        filtered("no-channels", 2, 4, 4, 0),
    ]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (1, 8)])
def test_is_a_circular_convolution(backend, grid):
    """With the spectrum of a real kernel as the weights, divided by nothing: the transforms cancel."""
    h, w = grid
    rng = numpy.random.default_rng(0)
    x, kernel = rng.standard_normal((2, h, w, 3)), rng.standard_normal((h, w, 3))
    W = numpy.fft.rfft2(kernel, axes=(0, 1))
    with mixers.use_backend(backend):
        y = ops.spectral_filter(x, W.real, W.imag)
    wanted = sum(kernel[i, j] * numpy.roll(x, (i, j), axis=(1, 2)) for i in range(h) for j in range(w))
    numpy.testing.assert_allclose(y, wanted, atol=1e-13)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("grid", [(4, 6), (6, 5), (131, 4)])
def test_only_the_symmetric_part_of_shared_columns_counts(backend, grid):
    h, w = grid
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((1, h, w, 2))
    W = rng.standard_normal((h, w // 2 + 1, 2)) + 1j * rng.standard_normal((h, w // 2 + 1, 2))
    symmetric = W.copy()
    for k in {0, w // 2} if w % 2 == 0 else {0}:
        symmetric[:, k] = (W[:, k] + W[-numpy.arange(h), k].conj()) / 2
    with mixers.use_backend(backend):
        y, wanted = (ops.spectral_filter(x, S.real, S.imag) for S in (W, symmetric))
    numpy.testing.assert_allclose(y, wanted, atol=1e-14)


@pytest.mark.parametrize("name", ["w_re", "w_im"])
def test_errors(name):
    weights = {"w_re": numpy.zeros((4, 4, 3)), "w_im": numpy.zeros((4, 4, 3))}
    weights[name] = numpy.zeros((4, 6, 3))
    message = rf"spectral_filter: {name} must have shape \(h, w // 2 \+ 1, c\) = \(4, 4, 3\), got \(4, 6, 3\)"
    with pytest.raises(ValueError, match=message):
        ops.spectral_filter(numpy.zeros((2, 4, 6, 3)), **weights)


@pytest.mark.parametrize(
    ("shape", "dtype", "channels"),
    [
        ((64, 14, 14, 384), "float32", 32),
        ((64, 14, 14, 3), "float32", 4),
        ((64, 64, 64, 64), "float32", 8),
        ((4, 64, 64, 64), "float64", 4),
        ((64, 56, 56, 64), "bfloat16", 16),
    ],
)
def test_what_a_large_gpu_launches(shape, dtype, channels):
    """One kernel up to 64 x 64, forward and backward, with at least 32 bytes per token where there are as many."""
    if "emulated" not in BACKENDS:
        pytest.skip("emulated is not among MIXERS_TEST_BACKENDS")
    _, h, w, c = shape
    with cuda_emulator.activate(dry=True) as device:
        device.max_shared = 227 << 10
        weights = [device.empty((h, w // 2 + 1, c), "float64" if dtype == "float64" else "float32")] * 2
        y, saved = ops.spectral_filter.forward(device.empty(shape, dtype), *weights)
        ops.spectral_filter.backward(y, saved)
    forward, backward = device.launches
    assert (forward.kernel.name, backward.kernel.name) == ("filter_images", "filter_images_backward")
    assert dict(forward.kernel.defines)["CHANNELS"] == channels
    assert max(forward.shared, backward.shared) <= device.max_shared
