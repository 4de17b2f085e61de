"""Gated and plain convolutional mixers in PyTorch, as their authors write them; see _torch_mixers.

Arrays come channels last; a permutation of one is what torch calls channels_last memory, so nothing is copied.
"""

import torch
from torch.nn import functional


def _conv(x, w, b=None, dilation=1):
    """Depthwise, (b, c, h, w)."""
    weight = w.permute(2, 0, 1)[:, None]
    return functional.conv2d(x, weight, b, padding="same", dilation=dilation, groups=x.shape[1])


def _linear(x, w, b=None):
    """A convolution of 1 x 1, (b, c, h, w)."""
    return functional.conv2d(x, w.T[:, :, None, None], b)


def _norm(x, p, name):
    statistics = (p[f"{name}_{part}"] for part in ("mean", "var", "scale", "bias"))
    return functional.batch_norm(x, *statistics)


def _by_channel(call):
    """A function of (b, c, h, w) as one of (b, h, w, c)."""
    return lambda x, **p: call(x.permute(0, 3, 1, 2), p).permute(0, 2, 3, 1)


def gnconv(mixer):
    if mixer.filter != "dwconv":
        raise ValueError("the torch form of gnconv has the filter dwconv only")
    widths = mixer._widths

    def call(x, p):
        gate, stream = torch.split(_linear(x, p["w_in"], p["b_in"]), (widths[0], sum(widths)), dim=1)
        parts = torch.split(_conv(stream, p["w_dw"], p["b_dw"]) * mixer.scale, widths, dim=1)
        y = gate * parts[0]
        for i, part in enumerate(parts[1:]):
            y = _linear(y, p[f"w_pw_{i}"], p[f"b_pw_{i}"]) * part
        return _linear(y, p["w_out"], p["b_out"])

    return _by_channel(call)


def lka(mixer):
    def inner(u, p):
        a = _conv(u, p["w_local"], p["b_local"])
        a = _conv(a, p["w_dilated"], p["b_dilated"], mixer.dilation)
        return u * _linear(a, p["w_attn"], p["b_attn"])

    def call(x, p):
        u = functional.gelu(_linear(x, p["w_in"], p["b_in"]))
        return _linear(inner(u, p), p["w_out"], p["b_out"]) + x

    return _by_channel(call if mixer.projections else inner)


def ffnified_attention(mixer):
    if mixer.norm != "batch" or mixer.in_bias or not (mixer.key_reparam and mixer.value_reparam):
        raise ValueError("the torch form of ffnified_attention is that for images, with kernels of 7")
    activate = functional.gelu if mixer.activation == "gelu" else functional.relu

    def branches(x, p, role):
        y = _norm(_conv(x, p[f"w_{role}"]), p, f"{role}_norm")
        return y + _norm(_conv(x, p[f"w_{role}_small"]), p, f"{role}_small_norm")

    def call(x, p):
        q = _norm(_linear(x, p["w_in"]), p, "norm")
        return branches(activate(branches(q, p, "key")), p, "value")

    return _by_channel(call)


def catm(mixer):
    def gated(z, p, n):
        e = functional.relu(_norm(_conv(z, p[f"w_{n}_dw"], p[f"b_{n}_dw"]), p, f"{n}_norm"))
        z = z * _linear(e, p[f"w_{n}_spatial"]).sigmoid()
        return z * _linear(functional.adaptive_avg_pool2d(z, 1), p[f"w_{n}_channel"]).sigmoid()

    def call(x, p):
        q, k, v = _linear(x, p["w_qkv"], p.get("b_qkv")).chunk(3, dim=1)
        m = _conv(gated(q, p, "q") + gated(k, p, "k"), p["w_mix"], p["b_mix"])
        return _conv(m * v, p["w_proj"], p["b_proj"])

    return _by_channel(call)


def separable_conv(mixer):
    def activate(z, p, which):
        kind = getattr(mixer, which)
        if kind in ("star_relu", "squared_relu"):
            y = functional.relu(z) ** 2
            return p[f"{which}_scale"] * y + p[f"{which}_bias"] if kind == "star_relu" else y
        return z if kind == "identity" else getattr(functional, kind)(z)

    def call(x, **p):
        h = activate(functional.linear(x, p["w_in"].T, p.get("b_in")), p, "act1")
        v = _conv(h.permute(0, 3, 1, 2), p["w_dw"], p.get("b_dw")).permute(0, 2, 3, 1)
        return functional.linear(activate(v, p, "act2"), p["w_out"].T, p.get("b_out"))

    return call


def conv_mixer(mixer):
    return _by_channel(lambda x, p: _norm(functional.gelu(_conv(x, p["w_dw"], p["b_dw"])), p, "norm"))


FORMS = {
    "gnconv": gnconv,
    "lka": lka,
    "ffnified_attention": ffnified_attention,
    "catm": catm,
    "separable_conv": separable_conv,
    "conv_mixer": conv_mixer,
}
