"""Scans and mixers of the state-space family in PyTorch; see _torch_mixers.

PyTorch has no scan of its own. The scan of Mamba-2 takes the chunked form of its paper, in products of matrices; the
selective scan is left to its caller, as mambapy has one.
"""

import torch
from torch.nn import functional

from mixers.bench.peers import _torch_ops as ops

# tokens of a chunk: with 64 and 128 it is about equally fast, with 32 and 256 slower
_CHUNK = 64


def ssd_scan(x, dt, A, B, C, D, z=None):
    """Listing 1 of the paper, with the products of C and B made once per group instead of once per head."""
    l, (h, p), (g, n) = x.shape[1], x.shape[2:], B.shape[2:]
    pad = -l % _CHUNK
    cut = lambda a: functional.pad(a, (0, 0) * (a.ndim - 2) + (0, pad)).unflatten(1, (-1, _CHUNK))
    # (b, chunks, g, ..., q, p) and (b, chunks, g, 1, q, n)
    heads = lambda a: cut(a).unflatten(3, (g, h // g)).permute(0, 1, 3, 4, 2, 5)
    B, C = (cut(a).transpose(2, 3).unsqueeze(3) for a in (B, C))
    drive = heads(x * dt[..., None])
    alpha = cut(dt * A).cumsum(2).unflatten(3, (g, h // g)).permute(0, 1, 3, 4, 2)
    weights = (C @ B.mT) * torch.exp(_differences(alpha))
    local = B.mT @ (drive * torch.exp(alpha[..., -1:] - alpha)[..., None])
    # the states before each chunk, (b, g, ..., chunks, chunks) times (b, g, ..., chunks, n p)
    whole = alpha[..., -1].permute(0, 2, 3, 1)
    between = torch.exp(_differences(functional.pad(whole.cumsum(3), (1, 0))))[..., :-1, 1:]
    before = between @ local.permute(0, 2, 3, 1, 4, 5).flatten(4)
    before = before.unflatten(4, (n, p)).permute(0, 3, 1, 2, 4, 5)
    y = weights @ drive + (C @ before) * torch.exp(alpha)[..., None]
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(len(x), l + pad, h, p)[:, :l] + D[:, None] * x
    return y if z is None else y * functional.silu(z)


def _differences(alpha):
    """alpha[t] - alpha[s] where s <= t, else minus infinity."""
    size = alpha.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=alpha.device).triu(1)
    return (alpha[..., :, None] - alpha[..., None, :]).masked_fill(later, -torch.inf)


def mamba2(mixer):
    if mixer.d_ssm is not None or not mixer.rmsnorm or mixer.norm_before_gate or mixer.ngroups > 1:
        raise ValueError("the torch form of mamba2 has one group, and the default d_ssm and norm")
    e, n, h = mixer._inner, mixer.d_state, mixer._heads

    def call(x, w_in, conv_w, conv_b, dt_bias, A_log, D, norm_scale, w_out):
        z, v, dt = torch.split(x @ w_in, (e, e + 2 * n, h), dim=-1)
        u, B, C = torch.split(ops.causal_conv1d(v, conv_w, conv_b), (e, n, n), dim=-1)
        dt = functional.softplus(dt + dt_bias)
        y = ssd_scan(u.unflatten(2, (h, -1)), dt, -torch.exp(A_log), B[:, :, None], C[:, :, None], D)
        return functional.rms_norm(y.flatten(2) * functional.silu(z), (e,), norm_scale, 1e-5) @ w_out

    return call


def mamba(mixer, scan):
    """`scan` is a selective scan with one group, of (u, delta, A, B, C, D)."""

    def call(x, w_in, conv_w, conv_b, w_x, w_dt, dt_bias, A_log, D, w_out):
        v, z = (x @ w_in).chunk(2, dim=-1)
        u = ops.causal_conv1d(v, conv_w, conv_b)
        return _selective(u, w_x, w_dt, dt_bias, A_log, D, scan) * functional.silu(z) @ w_out

    return call


def vim(mixer, scan):
    if mixer.bimamba_type != "v2" or mixer.divide_out or mixer.layer_scale:
        raise ValueError("the torch form of vim has the default options only")

    def call(x, w_in, w_out, **p):
        v, z = (x @ w_in).chunk(2, dim=-1)
        total = 0
        for suffix, tokens in (("", v), ("_rev", v.flip(1))):
            own = [p[name + suffix] for name in ("w_x", "w_dt", "dt_bias", "A_log", "D")]
            u = ops.causal_conv1d(tokens, p["conv_w" + suffix], p["conv_b" + suffix])
            y = _selective(u, *own, scan)
            total = total + (y.flip(1) if suffix else y)
        return total * functional.silu(z) @ w_out

    return call


def _selective(u, w_x, w_dt, dt_bias, A_log, D, scan):
    r, B, C = torch.split(u @ w_x, (w_dt.shape[0], A_log.shape[1], A_log.shape[1]), dim=-1)
    delta = functional.softplus(r @ w_dt + dt_bias)
    return scan(u, delta, -torch.exp(A_log), B, C, D)


def ss2d(mixer, scan):
    """The four directions stacked as one scan over four times the channels, as its authors do."""
    default = (mixer.act, mixer.gate, mixer.gate_act, mixer.out_act, mixer.out_norm, mixer.scan_mode)
    if default != ("silu", True, True, False, "layernorm", "cross2d"):
        raise ValueError("the torch form of ss2d has the default options only")

    def call(x, w_in, conv_w, conv_b, w_x, w_dt, dt_bias, A_log, D, out_norm_scale, out_norm_bias, w_out):
        rows, columns = x.shape[1:3]
        v, z = (x @ w_in).chunk(2, dim=-1)
        u = functional.silu(ops.depthwise_conv2d(v, conv_w, conv_b))
        paths = torch.stack((u.flatten(1, 2), u.transpose(1, 2).flatten(1, 2)), dim=1)
        paths = torch.cat((paths, paths.flip(2)), dim=1)
        n, rank = A_log.shape[2], w_dt.shape[1]
        r, B, C = torch.split(paths @ w_x, (rank, n, n), dim=-1)
        delta = functional.softplus(r @ w_dt + dt_bias[:, None])
        y = scan(paths, delta, -torch.exp(A_log)[:, None], B, C, D[:, None])
        y = y[:, :2] + y[:, 2:].flip(2)
        turned = y[:, 1].unflatten(1, (columns, rows)).transpose(1, 2)
        s = ops.layer_norm(y[:, 0].unflatten(1, (rows, columns)) + turned, out_norm_scale, out_norm_bias)
        return s * functional.silu(z) @ w_out

    return call


FORMS = {"mamba2": mamba2}

# those that need a selective scan
SELECTIVE = {"mamba": mamba, "vim": vim, "ss2d": ss2d}
