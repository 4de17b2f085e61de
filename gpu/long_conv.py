"""Long convolution on the GPU: directly for short filters, by cuFFT for long ones."""

import numpy
import scipy.fft

from mixers.gpu.device import Kernel, c_type, device_of
from mixers.op import compute_dtype

# taps up to which the direct form is faster
_DIRECT_TAPS = 512

_FILE, _TILE, _TILES_PER_BLOCK = "long_conv.cu", 16, 4

# tokens of which one thread sums the gradient of a tap
_CHUNK = 2048


def long_conv1d_forward(x, h, D=None, causal=True, save=True):
    plan = _Plan(x, h, causal)
    if x.size == 0:
        return plan.device.empty(x.shape, x.dtype), (None,)
    if plan.direct:
        return plan.convolve(x, h, D), (None,)
    spectrum = plan.spectrum(h)
    spectra = plan.spectra(x)
    plan.launch("multiply_spectra", spectrum.size, spectra, spectrum, numpy.int64(spectrum.size), plan.items)
    y = plan.rows(spectra, x.shape, x.dtype, 0, x, D)
    return y, (spectrum if save else None,)


def long_conv1d_backward(dout, saved):
    x, h, D = saved.x, saved.h, saved.D
    plan = _Plan(x, h, saved.causal)
    dh = plan.device.zeros(h.shape, h.dtype)
    if x.size == 0:
        return (
            plan.device.empty(x.shape, x.dtype),
            dh,
            None if D is None else plan.device.zeros(D.shape, D.dtype),
        )
    if plan.direct:
        dx = plan.convolve(dout, h, D, backwards=True)
        used = plan.filter_gradient(x, dout)
    else:
        spectrum = saved.spectrum
        if spectrum is None or spectrum.shape != plan.spectrum_shape or spectrum.dtype.kind != "c":
            spectrum = plan.spectrum(h)
        spectra, gradients = plan.spectra(x), plan.spectra(dout)
        products = plan.device.empty(spectrum.shape, spectrum.dtype)
        arrays = gradients, spectra, spectrum, products
        plan.launch("multiply_gradients", spectrum.size, *arrays, numpy.int64(spectrum.size), plan.items)
        dx = plan.rows(gradients, x.shape, x.dtype, 0, dout, D)
        used = plan.rows(products[None], (1, plan.taps, plan.c), h.dtype, plan.first)[0]
    dh[plan.used] = used
    # the tap without a shift sees every dy x once: its gradient is that of D
    return dx, dh, None if D is None else used[-plan.first].copy()


class _Plan:
    """Sizes of one convolution and the launches over them.

    Only taps that meet tokens count: `taps` of them, `used` among the rows of h, with shifts j >= `first`.
    """

    def __init__(self, x, h, causal):
        self.device = device_of(x)
        self.b, self.length, self.c = x.shape
        reach = min(h.shape[0] if causal else h.shape[0] // 2 + 1, max(self.length, 1))
        centre = 0 if causal else h.shape[0] // 2
        self.first = 0 if causal else 1 - reach
        self.taps = reach - self.first
        self.used = slice(centre + self.first, centre + reach)
        self.direct = self.taps <= _DIRECT_TAPS
        # longer than any product that wraps around could spoil
        self.n = scipy.fft.next_fast_len(self.length + reach - 1, real=True)
        self.storage, self.wide = x.dtype, compute_dtype(x.dtype)
        self.items = numpy.int32(self.b)
        self.spectrum_shape = (self.c, self.n // 2 + 1)

    def convolve(self, x, h, D, backwards=False):
        """The direct form; backwards in time it is the adjoint."""
        y = self.device.empty(x.shape, x.dtype)
        arrays = self.contiguous(x), self.contiguous(h[self.used]), self.optional(D), y
        sizes = map(numpy.int64, (self.length, self.taps, self.first))
        ends = numpy.int32(self.c), numpy.int32(backwards)
        self.launch_tiles("direct_forward", self.length, self.b, *arrays, *sizes, *ends)
        return y

    def filter_gradient(self, x, dout):
        parts = self.b * -(-self.length // _CHUNK)
        partial = self.device.empty((parts, self.taps, self.c), self.wide)
        arrays = self.contiguous(x), self.contiguous(dout), partial
        sizes = map(numpy.int64, (self.length, _CHUNK, self.taps, self.first))
        self.launch_tiles("direct_filter_gradient", self.taps, parts, *arrays, *sizes, numpy.int32(self.c))
        return partial.sum(axis=0)

    def spectrum(self, h):
        """Spectrum of the filter, (c, n // 2 + 1)."""
        return self.spectra(h[self.used][None], self.first)[0]

    def spectra(self, rows, offset=0):
        """Real transforms along the tokens: (items, length, c) -> (items, c, n // 2 + 1)."""
        items, length, _ = rows.shape
        lines = self.device.empty((items, self.c, self.n), self.wide)
        sizes = map(numpy.int64, (length, self.n, offset % self.n))
        blocks = items * -(-self.n // 32)
        self.launch_turn("to_lines", blocks, rows.dtype, self.contiguous(rows), lines, *sizes)
        return self.device.rfft(lines, self.n, axis=-1)

    def rows(self, spectra, shape, dtype, offset, x=None, skip=None):
        """Back from spectra to rows, plus skip * x."""
        lines = self.contiguous(self.device.irfft(spectra, self.n, axis=-1))
        rows = self.device.empty(shape, dtype)
        arrays = lines, self.optional(x), self.optional(skip), rows
        sizes = map(numpy.int64, (shape[1], self.n, offset % self.n))
        self.launch_turn("to_rows", shape[0] * -(-shape[1] // 32), dtype, *arrays, *sizes)
        return rows

    def contiguous(self, array):
        return self.device.contiguous(array)

    def optional(self, array):
        return None if array is None else self.device.contiguous(array)

    def kernel(self, name, rows=None):
        return Kernel(name, _FILE, T=c_type(self.storage), ROWS_T=c_type(rows or self.storage))

    def launch(self, name, threads, *args):
        self.device.launch(self.kernel(name), (-(-threads // 256),), (256,), args)

    def launch_tiles(self, name, rows, parts, *args):
        """A thread for every tile of rows and every channel of each part."""
        blocks = -(-self.c // 32) * -(-rows // (_TILE * _TILES_PER_BLOCK)) * parts
        self.device.launch(self.kernel(name), (blocks,), (32, _TILES_PER_BLOCK), args)

    def launch_turn(self, name, squares, rows, *args):
        """A block for every square of 32 tokens and 32 channels."""
        grid = (-(-self.c // 32) * squares,)
        self.device.launch(self.kernel(name, rows), grid, (32, 8), (*args, numpy.int32(self.c)))
