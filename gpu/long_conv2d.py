"""Long convolution of images on the GPU, by the spectral filters of padded grids."""

import numpy
import scipy.fft

from mixers.gpu.device import device_of
from mixers.gpu.filter import filter_images, filter_images_backward
from mixers.op import compute_dtype


def long_conv2d_forward(x, h, D=None, reverse=(False, False), save=True):
    device = device_of(x)
    if x.size == 0:
        return device.empty(x.shape, x.dtype), ()
    grid, taps, places = _plan(x, h, reverse)
    S = _spectrum(device, h, D, grid, taps, places)
    return filter_images(x, S.real.copy(), S.imag.copy(), grid), ()


def long_conv2d_backward(dout, saved):
    x, h, D = saved.x, saved.h, saved.D
    device = device_of(x)
    dh = device.zeros(h.shape, h.dtype)
    if x.size == 0:
        return device.empty(x.shape, x.dtype), dh, None if D is None else device.zeros(D.shape, D.dtype)
    grid, taps, places = _plan(x, h, saved.reverse)
    S = _spectrum(device, h, D, grid, taps, places)
    dx, ds_re, ds_im = filter_images_backward(x, dout, S.real.copy(), S.imag.copy(), grid)
    dkernel = device.irfft(device.ifft(ds_re + 1j * ds_im, grid[0], axis=0), grid[1], axis=1)
    dh[: taps[0], : taps[1]] = dkernel[places]
    if D is None:
        return dx, dh, None
    wide = compute_dtype(x.dtype)
    # also the gradient of the first tap, but free of the rounding of large ones
    dD = (dout.astype(wide, copy=False) * x.astype(wide, copy=False)).sum(axis=(0, 1, 2))
    return dx, dh, dD


def _plan(x, h, reverse):
    """The padded grid, the number of taps that meet the image, and their places: around the end if reversed."""
    taps = [min(k, n) for k, n in zip(h.shape, x.shape[1:3])]
    grid = [scipy.fft.next_fast_len(n + k - 1, real=True) for n, k in zip(x.shape[1:3], taps)]
    i, j = ((-numpy.arange(k)) % n if r else numpy.arange(k) for k, n, r in zip(taps, grid, reverse))
    # around the end a range of rows is not one slice, so rows and columns are listed
    return tuple(grid), taps, (i[:, None], j)


def _spectrum(device, h, D, grid, taps, places):
    """Of the taps on the grid; D counts as part of the first one."""
    kernel = device.zeros((*grid, h.shape[2]), h.dtype)
    kernel[places] = h[: taps[0], : taps[1]]
    if D is not None:
        kernel[0, 0] += D
    return device.fft(device.rfft(kernel, grid[1], axis=1), grid[0], axis=0)
