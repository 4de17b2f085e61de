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


def uniform_grid(low, high, size, order, x):
    step = (high - low) / size
    return (low + step * torch.arange(-order, size + order + 1, dtype=x.dtype, device=x.device))[None]


def pool_sum(mixer, x, p):
    """Every member of the default pool, weighted per input."""
    if mixer.pool != ("bspline", "rbf", "chebyshev") or (mixer.select, mixer.select_per) != ("soft", "input"):
        raise ValueError(f"the torch form of {mixer.name} has the default pool and selection only")
    grid = uniform_grid(*mixer.grid_range, mixer.grid_size, mixer.spline_order, x)
    centres = torch.linspace(mixer.rbf_min, mixer.rbf_max, mixer.rbf_grids, device=x.device)
    width = (mixer.rbf_max - mixer.rbf_min) / (mixer.rbf_grids - 1)
    tau = torch.tanh(x)
    powers = [torch.ones_like(tau), tau]
    for _ in range(mixer.cheby_degree - 1):
        powers.append(2 * tau * powers[-1] - powers[-2])
    bases = {
        "bspline_coef": bspline_basis(x, grid, mixer.spline_order),
        "rbf_coef": torch.exp(-(((x[..., None] - centres) / width) ** 2)),
        "cheby_coef": torch.stack(powers, dim=-1),
    }
    i = x.shape[-1]
    weights = p["select"].reshape(i, 1, -1)
    terms = [
        contract(basis, p[name].reshape(i, basis.shape[-1], -1) * weights[..., k : k + 1])
        for k, (name, basis) in enumerate(bases.items())
    ]
    return sum(terms) + functional.silu(x) @ p["w_base"].reshape(i, -1)


def s_kan(mixer):
    return along(mixer, lambda x, **p: pool_sum(mixer, x, p))


def s_conv_kan(mixer):
    def call(x, **p):
        b, h, _, c = x.shape
        k, stride, padding = mixer.kernel_size, mixer.stride, mixer.padding
        windows = functional.unfold(x.permute(0, 3, 1, 2), k, 1, padding, stride)
        # torch lays windows out as (channel, tap)
        windows = windows.reshape(b, c, k * k, -1).permute(0, 3, 2, 1).flatten(2)
        down = (h + 2 * padding - k) // stride + 1
        return pool_sum(mixer, windows, p).reshape(b, down, -1, mixer.out_dim)

    return call


def karat(mixer):
    if (mixer.basis, mixer.operator, mixer.projection) != ("bspline", "w_phi", "none") or mixer.blocks > 1:
        raise ValueError("the torch form of karat has B-splines, operator w_phi, no projection and one block")

    def call(x, w_qkv, w_out, b_out, phi_coef, w_up, b_qkv=0.0):
        b, n, c = x.shape
        q, k, v = (x @ w_qkv + b_qkv).reshape(b, n, 3, mixer.num_heads, -1).unbind(2)
        a = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        grid = uniform_grid(*mixer.grid_range, mixer.grid_size, mixer.spline_order, x)
        z = torch.einsum("bhijg,hjgr->bhir", bspline_basis(a, grid, mixer.spline_order), phi_coef)
        y = torch.einsum("bhir,bhrd->bihd", z, torch.einsum("hnr,bnhd->bhrd", w_up, v))
        return y.reshape(b, n, c) @ w_out + b_out

    return call


def multi_patch_rbf_kan(mixer):
    q = mixer.patch_size

    def call(x, **p):
        b, h, w, c = x.shape
        t = x.reshape(b, h // q, q, w // q, q, c).permute(0, 1, 3, 5, 2, 4).reshape(-1, q * q)
        u = (t[..., None] - p["mu"]) / (p["log_sigma"].exp() + 1e-6)
        t = t + contract(torch.exp(-0.5 * u * u), p["w_rbf"]) + functional.silu(t) @ p["w_base"] + p["b_base"]
        y = t.reshape(b, h // q, w // q, c, q, q).permute(0, 1, 4, 2, 5, 3).reshape(b, h, w, c)
        hidden = functional.gelu(y.mean((1, 2)) @ p["w_reweight_in"] + p["b_reweight_in"])
        a = torch.softmax(hidden @ p["w_reweight_out"] + p["b_reweight_out"], -1)[:, :, None, None, None]
        parts = (ops.depthwise_conv2d(y, p[f"w_dw_{axis}"], p[f"b_dw_{axis}"]) for axis in "hw")
        y = sum(weight * part for weight, part in zip(a.unbind(1), parts))
        if not mixer.use_global_linear:
            return y
        tokens = y.reshape(b, h * w, c)
        return y + (p["w_global_out"] @ (p["w_global_in"] @ tokens)).reshape(y.shape)

    return call


FORMS = {
    "kan_bspline": kan_bspline,
    "kan_fourier": kan_fourier,
    "kan_rbf": kan_rbf,
    "s_kan": s_kan,
    "s_conv_kan": s_conv_kan,
    "karat": karat,
    "fourier_karat": fourier_karat,
    "multi_patch_rbf_kan": multi_patch_rbf_kan,
}
