"""Long convolution of images on the CPU, by the spectral filters of padded grids."""

import numpy
import scipy.fft

from mixers.cpu import fft, fft_filter
from mixers.cpu.aligned import empty, zeros
from mixers.cpu.reduction import sum_rows
from mixers.cpu.runner import get_num_threads

# points of the largest padded grid that a task transforms in its scratch
_POINTS = 256 * 256


def long_conv2d_forward(x, h, D=None, reverse=(False, False), save=True):
    plan = _Plan(x, h, reverse)
    if x.size == 0:
        return empty(x.shape, x.dtype), ()
    return plan.convolve(x, plan.spectrum(h, D)), ()


def long_conv2d_backward(dout, saved):
    x, h, D = saved.x, saved.h, saved.D
    dh = zeros(h.shape, h.dtype)
    if x.size == 0:
        return empty(x.shape, x.dtype), dh, None if D is None else numpy.zeros_like(D)
    plan = _Plan(x, h, saved.reverse)
    dx, dtaps = plan.gradients(x, dout, plan.spectrum(h, D))
    dh[plan.used] = dtaps[plan.places]
    # also the gradient of the first tap, but free of the rounding of large ones
    return dx, dh, None if D is None else sum_rows((dout * x).reshape(-1, x.shape[3]))


class _Plan:
    """The padded grid, the taps that meet the image, and their places on the grid: around its end if reversed."""

    def __init__(self, x, h, reverse):
        self.image = x.shape[1:3]
        taps = [min(k, n) for k, n in zip(h.shape, self.image)]
        self.grid = [fft.good_length(max(1, n + k - 1)) for n, k in zip(self.image, taps)]
        self.used = tuple(slice(k) for k in taps)
        i, j = ((-numpy.arange(k)) % n if r else numpy.arange(k) for k, n, r in zip(taps, self.grid, reverse))
        self.places = i[:, None], j
        self.in_scratch = self.grid[0] * self.grid[1] <= _POINTS

    def spectrum(self, h, D):
        """Of the taps; D counts as part of the first one."""
        kernel = numpy.zeros((*self.grid, h.shape[2]), h.dtype)
        kernel[self.places] = h[self.used]
        if D is not None:
            kernel[0, 0] += D
        if not self.in_scratch:
            return scipy.fft.rfft2(kernel, axes=(0, 1), workers=get_num_threads())
        return fft_filter.kernel_spectrum(kernel)

    def convolve(self, x, S):
        if self.in_scratch:
            return fft_filter.filter_grid(x, S)
        return self.crop(self.back(self.transform(x) * S, (1, 2)))

    def gradients(self, x, dout, S):
        """dx, and the gradient of all points of the kernel."""
        if self.in_scratch:
            dx, dS = fft_filter.filter_grid_sums(x, dout, S)
            return dx, fft_filter.kernel_gradient(dS, (*self.grid, x.shape[3]))
        G = self.transform(dout)
        taps = self.back((self.transform(x).conj() * G).sum(axis=0), (0, 1))
        return self.crop(self.back(G * S.conj(), (1, 2))), taps

    def transform(self, x):
        return scipy.fft.rfft2(x, s=self.grid, axes=(1, 2), workers=get_num_threads())

    def back(self, X, axes):
        return scipy.fft.irfft2(X, s=self.grid, axes=axes, workers=get_num_threads())

    def crop(self, padded):
        h, w = self.image
        y = empty((padded.shape[0], h, w, padded.shape[3]), padded.dtype)
        y[...] = padded[:, :h, :w]
        return y
