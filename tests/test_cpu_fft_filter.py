"""Convolutions and spectral filters by Fourier transform."""

import numpy
import pytest

from mixers.cpu import fft_filter, runner

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normal(shape, dtype, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(got, wanted, dtype, factor=6):
    assert got.shape == wanted.shape and got.dtype == dtype
    error = numpy.sqrt(numpy.mean((got - wanted) ** 2) / numpy.mean(wanted**2))
    assert error < factor * numpy.finfo(dtype).eps


def direct(x, h, skip, shift):
    """The convolution and, by its transpose as a matrix, the gradients."""
    length, taps = x.shape[1], len(h)
    lag = numpy.arange(length)[:, None] + shift - numpy.arange(length)
    matrix = numpy.where(((lag >= 0) & (lag < taps))[..., None], h[numpy.clip(lag, 0, taps - 1)], 0.0)
    y = numpy.einsum("tmc,bmc->btc", matrix, x) + skip * x
    return y, matrix, lag


CASES = [
    # batch, length, channels, taps, shift
    (1, 1, 1, 1, 0),
    (2, 5, 3, 5, 0),
    (3, 31, 17, 31, 0),
    (1, 64, 16, 10, 0),
    (5, 100, 33, 37, 0),
    (3, 40, 20, 79, 39),
    (2, 33, 5, 13, 6),
    (2, 257, 8, 257, 0),
]


@dtypes
@pytest.mark.parametrize("b, length, c, taps, shift", CASES)
def test_convolve(b, length, c, taps, shift, dtype):
    x, dy = normal((b, length, c), dtype), normal((b, length, c), dtype, 1)
    h, skip = normal((taps, c), dtype, 2), normal((c,), dtype, 3)
    n = fft_filter.padded_length(length, taps, shift)
    H = fft_filter.spectrum(h, n)
    exact = [a.astype("float64") for a in (x, h, skip)]
    y, matrix, lag = direct(*exact, shift)
    assert_close(fft_filter.convolve(x, H, skip, shift), y, dtype)
    assert_close(fft_filter.convolve(x, H, shift=shift), y - exact[2] * exact[0], dtype)
    dx, dh = fft_filter.convolve_backward(x, dy, H, taps, skip, shift)
    assert_close(dx, numpy.einsum("tmc,btc->bmc", matrix, dy.astype("float64")) + exact[2] * dy, dtype)
    products = numpy.einsum("btc,bmc->tmc", dy.astype("float64"), exact[0])
    wanted = numpy.stack([products[lag == j].sum(0) for j in range(taps)])
    assert_close(dh, wanted, dtype)


@dtypes
def test_long_transforms(dtype):
    # more than one level above the blocks that stay in cache
    length, c = 40_000, 3
    x, dy, h = normal((3, length, c), dtype), normal((3, length, c), dtype, 1), normal((length, c), dtype, 2)
    n = fft_filter.padded_length(length, length)
    assert n // 8 > fft_filter._BLOCK
    H = fft_filter.spectrum(h, n)
    X, G, F = (numpy.fft.rfft(a.astype("float64"), n, axis=-2) for a in (x, dy, h))
    back = lambda spectrum: numpy.fft.irfft(spectrum, n, axis=-2)[..., :length, :]
    assert_close(fft_filter.convolve(x, H), back(X * F), dtype)
    dx, dh = fft_filter.convolve_backward(x, dy, H, length)
    assert_close(dx, back(G * F.conj()), dtype)
    assert_close(dh, back((X.conj() * G).sum(0)), dtype)


@dtypes
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 7, 7, 16), (3, 14, 14, 33), (5, 1, 64, 3), (4, 12, 22, 17)]
)
def test_grid(shape, dtype):
    _, h, w, c = shape
    x, dy, kernel = normal(shape, dtype), normal(shape, dtype, 1), normal((h, w, c), dtype, 2)
    S = numpy.fft.fft2(kernel.astype("float64"), axes=(0, 1))
    H = fft_filter.kernel_spectrum(kernel)
    X, G = (numpy.fft.fft2(a.astype("float64"), axes=(1, 2)) for a in (x, dy))
    back = lambda spectrum: numpy.fft.ifft2(spectrum, axes=(-3, -2)).real
    assert_close(fft_filter.filter_grid(x, H), back(S * X), dtype)
    assert_close(fft_filter.filter_grid(x, H, conjugate=True), back(S.conj() * X), dtype)
    dx, dH = fft_filter.filter_grid_sums(x, dy, H)
    assert_close(dx, back(S.conj() * G), dtype)
    assert_close(fft_filter.kernel_gradient(dH, kernel.shape), back((X.conj() * G).sum(0)), dtype)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 16), (3, 8, 1, 33), (5, 6, 6, 3)])
def test_images_smaller_than_the_grid(shape, dtype):
    b, h, w, c = shape
    x, dy, kernel = normal(shape, dtype), normal(shape, dtype, 1), normal((8, 12, c), dtype, 2)
    padded, dpadded = numpy.zeros((b, 8, 12, c), dtype), numpy.zeros((b, 8, 12, c), dtype)
    padded[:, :h, :w], dpadded[:, :h, :w] = x, dy
    H = fft_filter.kernel_spectrum(kernel)
    assert fft_filter.filter_grid(x, H).tobytes() == fft_filter.filter_grid(padded, H)[:, :h, :w].tobytes()
    dx, dH = fft_filter.filter_grid_sums(x, dy, H)
    wanted, sums = fft_filter.filter_grid_sums(padded, dpadded, H)
    assert dx.tobytes() == wanted[:, :h, :w].tobytes()
    assert dH.tobytes() == sums.tobytes()


@dtypes
def test_threads_do_not_matter_and_memory_is_not_read(dtype, monkeypatch):
    x, dy, h = normal((5, 300, 20), dtype), normal((5, 300, 20), dtype, 1), normal((300, 20), dtype, 2)

    def results():
        H = fft_filter.spectrum(h, fft_filter.padded_length(300, 300))
        images, cotangents = x.reshape(5, 15, 20, 20), dy.reshape(5, 15, 20, 20)
        S = fft_filter.kernel_spectrum(images[0])
        return [
            H,
            fft_filter.convolve(x, H),
            *fft_filter.convolve_backward(x, dy, H, 300),
            fft_filter.filter_grid(images, S),
            *(gradients := fft_filter.filter_grid_sums(images, cotangents, S)),
            fft_filter.kernel_gradient(gradients[1], images.shape[1:]),
        ]

    before, empty = runner.get_num_threads(), numpy.empty
    try:
        runner.set_num_threads(1)
        first = results()
        runner.set_num_threads(3)
        monkeypatch.setattr(numpy, "empty", lambda *args: numpy.full_like(empty(*args), 255))
        second = results()
    finally:
        runner.set_num_threads(before)
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()
