"""Our ops in PyTorch, with our argument names and layouts; permutations are views, not copies."""

import torch
from torch.nn import functional


def linear(x, w, b):
    return x @ w + b


def axis_linear(x, w, b):
    return w @ x + b[:, None]


def layer_norm(x, scale, bias):
    return functional.layer_norm(x, x.shape[-1:], scale, bias)


def rms_norm(x, scale):
    return functional.rms_norm(x, x.shape[-1:], scale, 1e-5)


def avg_pool(x, size=3, minus_identity=False):
    # a permuted (b, h, w, c) is what torch calls channels_last
    y = functional.avg_pool2d(x.permute(0, 3, 1, 2), size, 1, size // 2, count_include_pad=False)
    y = y.permute(0, 2, 3, 1)
    return y - x if minus_identity else y


def depthwise_conv2d(x, w, b):
    weight = w.permute(2, 0, 1)[:, None]
    y = functional.conv2d(x.permute(0, 3, 1, 2), weight, b, padding="same", groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def causal_conv1d(x, w, b):
    k, c = w.shape
    padded = functional.pad(x.transpose(1, 2), (k - 1, 0))
    return functional.silu(functional.conv1d(padded, w.T[:, None], b, groups=c)).transpose(1, 2)


def long_conv1d(x, h, D):
    l = x.shape[1]
    spectrum = torch.fft.rfft(x, 2 * l, dim=1) * torch.fft.rfft(h, 2 * l, dim=0)
    return torch.fft.irfft(spectrum, 2 * l, dim=1)[:, :l] + D * x


def kan_attention(q, k, v, phi_cos, phi_sin, w_up):
    a = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    m = torch.arange(1, phi_cos.shape[2] + 1, dtype=a.dtype, device=a.device)
    angles = a[..., None] * m
    z = torch.einsum("bhijg,hjgr->bhir", angles.cos(), phi_cos)
    z = z + torch.einsum("bhijg,hjgr->bhir", angles.sin(), phi_sin)
    return torch.einsum("bhir,bhrd->bihd", z, torch.einsum("hnr,bnhd->bhrd", w_up, v))


FORMS = {
    "gelu": lambda x: functional.gelu(x),
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": lambda x: functional.silu(x),
    "relu": lambda x: functional.relu(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "tanh": lambda x: torch.tanh(x),
    "softplus": lambda x: functional.softplus(x),
    "sin": lambda x: torch.sin(x),
    "exp": lambda x: torch.exp(x),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "linear": linear,
    "axis_linear": axis_linear,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "avg_pool": avg_pool,
    "depthwise_conv2d": depthwise_conv2d,
    "causal_conv1d": causal_conv1d,
    "long_conv1d": long_conv1d,
    "kan_attention": kan_attention,
}
