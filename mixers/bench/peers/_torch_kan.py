"""Kolmogorov-Arnold layers in PyTorch, in the manner of efficient-kan, FastKAN and FourierKAN, and KArAt."""

import torch
from torch.nn import functional

from mixers.bench.peers import _torch_ops as ops


def bspline_basis(x, grid, order):
    """efficient-kan's recursion over (..., i, knots)."""
    x = x[..., None]
    bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        left = (x - grid[:, : -k - 1]) / (grid[:, k:-1] - grid[:, : -k - 1]) * bases[..., :-1]
        right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k]) * bases[..., 1:]
        bases = left + right
    return bases


def contract(bases, w):
    return bases.flatten(-2) @ w.reshape(-1, w.shape[-1])


def along(mixer, form):
    """The form on the channels, or on the tokens turned to the last axis."""
    if mixer.axis == "channel":
        return form

    def call(x, **p):
        tokens = x.reshape(x.shape[0], mixer.in_features, x.shape[-1])
        return form(tokens.transpose(1, 2), **p).transpose(1, 2)

    return call


def kan_bspline(mixer):
    base = {"silu": functional.silu, "gelu": functional.gelu, "identity": lambda x: x}

    def call(x, w_base, w_spline, grid, spline_scale=None):
        w = w_spline if spline_scale is None else w_spline * spline_scale[:, None]
        y = contract(bspline_basis(x, grid, mixer.spline_order), w)
        return y if mixer.base_activation == "zero" else base[mixer.base_activation](x) @ w_base + y

    return along(mixer, call)


def kan_fourier(mixer):
    def call(x, w_cos, w_sin, b=0.0):
        m = torch.arange(1, mixer.grid_size + 1, dtype=x.dtype, device=x.device)
        angles = x[..., None] * m
        return contract(angles.cos(), w_cos) + contract(angles.sin(), w_sin) + b

    return along(mixer, call)


def kan_rbf(mixer):
    def call(x, w_rbf, norm_scale=None, norm_bias=None, w_base=None, b_base=None):
        z = x
        if mixer.use_layernorm:
            z = functional.layer_norm(x, x.shape[-1:], norm_scale, norm_bias, mixer.norm_eps)
        centres = torch.linspace(mixer.grid_min, mixer.grid_max, mixer.num_grids, device=x.device)
        width = mixer.denominator or (mixer.grid_max - mixer.grid_min) / (mixer.num_grids - 1)
        y = contract(torch.exp(-(((z[..., None] - centres) / width) ** 2)), w_rbf)
        return y + functional.silu(x) @ w_base + b_base if mixer.use_base else y

    return along(mixer, call)


def fourier_karat(mixer):
    if mixer.blocks > 1 or mixer.base != "zero" or mixer.projection != "none":
        raise ValueError("the torch form of fourier_karat has one block and no base function or projection")

    def call(x, w_qkv, w_out, b_out, phi_cos, phi_sin, w_up, b_qkv=0.0):
        b, n, c = x.shape
        q, k, v = (x @ w_qkv + b_qkv).reshape(b, n, 3, mixer.num_heads, -1).unbind(2)
        return ops.kan_attention(q, k, v, phi_cos, phi_sin, w_up).reshape(b, n, c) @ w_out + b_out

    return call


FORMS = {
    "kan_bspline": kan_bspline,
    "kan_fourier": kan_fourier,
    "kan_rbf": kan_rbf,
    "fourier_karat": fourier_karat,
}
