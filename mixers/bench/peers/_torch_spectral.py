"""Spectral mixers in PyTorch, as their authors write them, with our parameter names.

PyTorch has no cosine transform: products with the matrix of cosines take its place, which is the fastest way there is
in PyTorch for grids of this size.
"""

import math

import numpy
import torch
from torch.nn import functional


def global_filter(mixer):
    def call(x, w_re, w_im):
        spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.complex(w_re, w_im)
        return torch.fft.irfft2(spectrum, s=x.shape[1:3], dim=(1, 2), norm="ortho")

    return call


def _cosines(n):
    """The orthonormal DCT-II as a matrix."""
    k, i = torch.arange(n)[:, None], torch.arange(n)
    matrix = math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
    matrix[0] /= math.sqrt(2)
    return matrix


def _band_of(h, w, bands):
    """The band of each coefficient of a grid, runs of the zigzag order."""
    i, j = numpy.indices((h, w))
    s = i + j
    order = numpy.lexsort((numpy.where(s % 2, i, j).ravel(), s.ravel()))
    edges = [h * w * k // bands for k in range(1, bands)]
    band = numpy.empty(h * w, int)
    band[order] = numpy.searchsorted(edges, numpy.arange(h * w), side="right")
    return torch.from_numpy(band)


def dynamic_spectrum(mixer):
    if mixer.projections or not mixer.bias or mixer.rescale:
        raise ValueError("the torch form of dynamic_spectrum has the default options only")
    constants = {}

    def of_grid(h, w):
        if (h, w) not in constants:
            band = _band_of(h, w, mixer.num_bands)
            mean = functional.one_hot(band, mixer.num_bands).float()
            constants[h, w] = _cosines(h), _cosines(w), band, mean / mean.sum(0)
        return constants[h, w]

    def call(x, norm_scale, norm_bias, w1, b1, w2, b2):
        rows, columns, band, mean = of_grid(*x.shape[1:3])
        # channels before the grid: the products act on the last two axes
        F = rows @ x.permute(0, 3, 1, 2) @ columns.T
        z = functional.layer_norm(F.flatten(2) @ mean, (mixer.num_bands,), norm_scale, norm_bias)
        m = torch.softmax(functional.gelu(z @ w1 + b1) @ w2 + b2, dim=-1)
        y = rows.T @ (F * m[..., band].reshape(F.shape)) @ columns
        return y.permute(0, 2, 3, 1)

    return call


def dct_mixer(mixer):
    if len(mixer.grid) != 2:
        raise ValueError("the torch form of dct_mixer is for images only")
    rows, columns = (_cosines(n) for n in mixer.grid)

    def call(x, w):
        F = rows @ x.permute(0, 3, 1, 2) @ columns.T
        return (rows.T @ (F * w.permute(2, 0, 1)) @ columns).permute(0, 2, 3, 1)

    return call


FORMS = {"global_filter": global_filter, "dynamic_spectrum": dynamic_spectrum, "dct_mixer": dct_mixer}
