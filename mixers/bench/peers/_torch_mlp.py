"""MLPs and gated MLPs in PyTorch, as their authors write them, with our parameter names; see _torch_mixers."""

import torch
from torch.nn import functional

from mixers.bench.peers import _torch_ops as ops


def raft_mlp(mixer):
    r = mixer.raft_size

    def layer(x, axis, w_in, b_in, w_out, b_out):
        b, h, w, c = x.shape
        order, back = (
            ((0, 2, 4, 3, 1), (0, 4, 1, 3, 2)) if axis == "h" else ((0, 1, 4, 3, 2), (0, 1, 4, 3, 2))
        )
        moved = x.reshape(b, h, w, r, c // r).permute(order)
        y = functional.gelu(functional.linear(moved.flatten(3), w_in, b_in))
        return functional.linear(y, w_out, b_out).reshape(moved.shape).permute(back).reshape(x.shape)

    def call(x, **p):
        weights = lambda way: (p[f"{name}_{way}"] for name in ("w_in", "b_in", "w_out", "b_out"))
        norm = lambda x, way: ops.layer_norm(x, p[f"norm_{way}_scale"], p[f"norm_{way}_bias"])
        d1 = layer(norm(x, "v"), "h", *weights("v"))
        d2 = layer(norm(x + d1, "h"), "w", *weights("h"))
        return d1 + d2 + x if mixer.residual else d1 + d2

    return call


def _conv(x, w, b=None):
    """Depthwise, (b, c, h, w) in channels_last memory."""
    return functional.conv2d(x, w.permute(2, 0, 1)[:, None], b, padding="same", groups=x.shape[1])


def mix_shift(mixer):
    def call(x, **p):
        x = x.permute(0, 3, 1, 2)
        groups = []
        for j, part in enumerate(torch.split(x, mixer._sizes, dim=1)):
            left_right, top_down = (torch.roll(part, mixer.shifts[j], dims) for dims in (3, 2))
            y = _conv(left_right, p[f"w_lr_{j}"], p[f"b_lr_{j}"])
            groups.append(y + _conv(top_down, p[f"w_td_{j}"], p[f"b_td_{j}"]))
        return torch.cat(groups, dim=1).permute(0, 2, 3, 1)

    return call


def axial_shift(mixer):
    reach = mixer.shift_size // 2
    size = -(-mixer.dim // mixer.shift_size)

    def shift(x, axis):
        n = x.shape[axis]
        pad = (0, 0, reach, reach) if axis == 2 else (0, 0, 0, 0, reach, reach)
        parts = functional.pad(x, pad).split(size, dim=3)
        return torch.cat([part.narrow(axis, 2 * reach - i, n) for i, part in enumerate(parts)], dim=3)

    def norm(x, scale, bias):
        y = functional.group_norm(x.permute(0, 3, 1, 2), 1, scale, bias, mixer.eps)
        return y.permute(0, 2, 3, 1)

    def call(x, **p):
        linear = lambda x, name: x @ p[f"w_{name}"] + p[f"b_{name}"]
        a = functional.gelu(norm(linear(x, "in"), p["norm1_scale"], p["norm1_bias"]))
        left_right = functional.gelu(linear(shift(a, 2), "lr"))
        top_down = functional.gelu(linear(shift(a, 1), "td"))
        return linear(norm(left_right + top_down, p["norm2_scale"], p["norm2_bias"]), "out")

    return call


def _spatial_shift(x, first, second):
    c = x.shape[3]
    ends = [c * k // 4 for k in range(5)]
    moved = []
    for group, (axis, step) in enumerate(((first, 1), (first, -1), (second, 1), (second, -1))):
        part, n = x[..., ends[group] : ends[group + 1]], x.shape[axis]
        pieces = (part.narrow(axis, 0, 1), part.narrow(axis, 0, n - 1))
        if step < 0:
            pieces = (part.narrow(axis, 1, n - 1), part.narrow(axis, n - 1, 1))
        moved.append(torch.cat(pieces, dim=axis))
    return torch.cat(moved, dim=3)


def spatial_shift_v2(mixer):
    def call(x, w_in, b_in, w_att_in, w_att_out, w_out, b_out):
        u0, u1, u2 = (x @ w_in + b_in).chunk(3, dim=3)
        z = torch.stack((_spatial_shift(u0, 1, 2), _spatial_shift(u1, 2, 1), u2), dim=1)
        o = functional.gelu(z.sum((1, 2, 3)) @ w_att_in) @ w_att_out
        weights = o.reshape(len(x), 3, -1).softmax(dim=1)
        return (weights[:, :, None, None] * z).sum(1) @ w_out + b_out

    return call


def _strip_linear(x, w, b, axis):
    """x (b, c, h, w); a grouped convolution over the strips, whose channels are the positions."""
    batch, c = x.shape[:2]
    shared, taps, n, _ = w.shape
    cells = x if axis == "w" else x.transpose(2, 3)
    strips = cells.shape[2]
    # (batch groups, shared positions, strips)
    cells = cells.reshape(-1, shared, strips, n).transpose(2, 3).reshape(-1, shared * n, strips)
    weight = w.permute(0, 2, 3, 1).reshape(shared * n, n, taps)
    y = functional.conv1d(cells, weight, b.reshape(-1), padding=taps // 2, groups=shared)
    y = y.reshape(batch, c, n, strips)
    return y.transpose(2, 3) if axis == "w" else y


def _relative_bias(table, height, width):
    m = len(table) // 2
    index = torch.arange(width)[None, :] - torch.arange(height)[:, None]
    return table[index.clamp(-m, m) + m].permute(2, 0, 1)


def strip_mlp(mixer):
    def norm(p, name, x):
        parts = (p[f"{name}_{part}"] for part in ("mean", "var", "scale", "bias"))
        return functional.batch_norm(x, *parts, eps=mixer.eps)

    def linear(x, w, b=None):
        return functional.conv2d(x, w.T[:, :, None, None], b)

    def cgsmm(x, p):
        height, width = x.shape[2:]
        u = _strip_linear(x + _relative_bias(p["pos_row"], height, width), p["w_row"], p["b_row"], "w")
        v = functional.gelu(norm(p, "bn", linear(torch.cat((u, x), 1), p["w_fuse_row"])))
        t = _strip_linear(v + _relative_bias(p["pos_col"], height, width), p["w_col"], p["b_col"], "h")
        return linear(torch.cat((x, t), 1), p["w_fuse_col"])

    def lsmm(x, p):
        z = torch.stack((_conv(x, p["w_tall"]), _conv(x, p["w_wide"]), x))
        o = functional.gelu(z.sum(0).mean((2, 3)) @ p["w_in"] + p["b_in"]) @ p["w_out"] + p["b_out"]
        weights = o.reshape(len(x), -1, 3).softmax(2).permute(2, 0, 1)[..., None, None]
        return (weights * z).sum(0)

    def call(x, **p):
        part = lambda prefix: {n.removeprefix(prefix): a for n, a in p.items() if n.startswith(prefix)}
        x = x.permute(0, 3, 1, 2)
        d = _conv(functional.gelu(norm(p, "bn_in", x)), p["w_dw"])
        h = functional.gelu(norm(p, "bn_mid", linear(d, p["w_in"], p["b_in"])))
        strips, local = h.chunk(2, dim=1)
        y = torch.cat((cgsmm(strips, part("cg_")), lsmm(local, part("ls_"))), dim=1)
        return linear(y, p["w_out"]).permute(0, 2, 3, 1)

    return call


def gmlp(mixer):
    def call(x, **p):
        tokens = x.flatten(1, -2)
        u, v = functional.gelu(tokens @ p["w_in"] + p["b_in"]).chunk(2, dim=-1)
        v = functional.layer_norm(v, v.shape[-1:], p["norm_scale"], p["norm_bias"], mixer.norm_eps)
        gate = functional.linear(v.transpose(1, 2), p["w_token"], p["b_token"]).transpose(1, 2)
        return ((u * gate) @ p["w_out"] + p["b_out"]).reshape(x.shape)

    return call


def multi_axis_gmlp(mixer):
    def norm(x, scale, bias):
        return functional.layer_norm(x, x.shape[-1:], scale, bias, mixer.norm_eps)

    def token_linear(x, w, b, size, across):
        batch, height, width, c = x.shape
        # gh x gw windows of fh x fw tokens
        other = height // size[0], width // size[1]
        (gh, gw), (fh, fw) = (size, other) if across else (other, size)
        cells = x.reshape(batch, gh, fh, gw, fw, c)
        order = (0, 2, 4, 5, 1, 3) if across else (0, 1, 3, 5, 2, 4)
        moved = cells.permute(order)
        y = functional.linear(moved.flatten(4), w, b).reshape(moved.shape)
        back = sorted(range(6), key=lambda i: order[i])
        return y.permute(back).reshape(x.shape)

    def branch(x, p, size, across):
        e = norm(x, p["norm_scale"], p["norm_bias"]) @ p["w_in"] + p["b_in"]
        u, v = functional.gelu(e, approximate="tanh").chunk(2, dim=-1)
        v = norm(v, p["gate_norm_scale"], p["gate_norm_bias"])
        gate = token_linear(v, p["w_token"], p["b_token"], size, across)
        return x + (u * (gate + 1)) @ p["w_out"] + p["b_out"]

    def call(x, **p):
        part = lambda prefix: {n.removeprefix(prefix): a for n, a in p.items() if n.startswith(prefix)}
        g, k = functional.gelu(x @ p["w_in"] + p["b_in"], approximate="tanh").chunk(2, dim=-1)
        g = branch(g, part("grid_"), mixer.grid_size, True)
        k = branch(k, part("block_"), mixer.block_size, False)
        return torch.cat((g, k), dim=-1) @ p["w_out"] + p["b_out"]

    return call


FORMS = {
    "raft_mlp": raft_mlp,
    "mix_shift": mix_shift,
    "axial_shift": axial_shift,
    "spatial_shift_v2": spatial_shift_v2,
    "strip_mlp": strip_mlp,
    "gmlp": gmlp,
    "multi_axis_gmlp": multi_axis_gmlp,
}
