"""Our mixers in PyTorch, as their authors write them, with our parameter names.

Each entry of FORMS takes a mixer of ours, for its configuration, and returns a function of tensors.
"""

import math

import torch
from torch.nn import functional

from mixers.bench.peers import _torch_gated_conv, _torch_kan, _torch_mlp, _torch_spectral, _torch_ssm
from mixers.bench.peers import _torch_ops as ops


def pool(mixer):
    return lambda x: ops.avg_pool(x, mixer.pool_size, minus_identity=True)


def mlp_mixer(mixer):
    tokens = math.prod(mixer.grid)

    def call(x, w_in, b_in, w_out, b_out):
        # linears act on the last axis, so the tokens go there and come back
        y = x.reshape(x.shape[0], tokens, -1).transpose(1, 2)
        y = functional.linear(functional.gelu(functional.linear(y, w_in, b_in)), w_out, b_out)
        return y.transpose(1, 2).reshape(x.shape)

    return call


def gated_cnn(mixer):
    hidden, convolved = mixer._hidden, mixer._convolved

    def call(x, w_in, b_in, w_dw, b_dw, w_out, b_out):
        g, i, v = torch.split(x @ w_in + b_in, (hidden, hidden - convolved, convolved), dim=-1)
        m = torch.cat((i, ops.depthwise_conv2d(v, w_dw, b_dw)), dim=-1)
        return (functional.gelu(g) * m) @ w_out + b_out

    return call


def hyena(mixer):
    order, dim, inner = mixer.order, mixer.dim, mixer.num_inner_mlps
    if not mixer.modulate or mixer.normalized or mixer.activation != "id" or not mixer.filter_bias:
        raise ValueError("the torch form of hyena has the default filter options only")
    count = order - 1
    ends = (math.log(mixer.target) / pct for pct in (mixer.slow_decay_pct, mixer.fast_decay_pct))
    deltas = torch.linspace(*ends, count * dim).reshape(dim, count).T.reshape(-1).abs()

    def filters(l, p):
        a = p["pos_emb"][:l]
        for i in range(inner + 1):
            a = torch.sin(p["freq"] * (a @ p[f"w_filter_{i}"] + p[f"b_filter_{i}"]))
        t = torch.arange(l, device=a.device)[:, None] / max(mixer.grid[0] - 1, 1)
        window = torch.exp(-t * deltas.to(a.device)) + mixer.shift
        h = a @ p["w_filter_out"].reshape(a.shape[1], -1) * window
        return h.T.reshape(count, dim, l)

    def call(x, **p):
        l = x.shape[1]
        # channels before tokens, as the authors: convolutions and transforms act on the last axis
        u = (x @ p["w_in"] + p["b_in"]).transpose(1, 2)
        short = p["w_short"]
        u = functional.conv1d(
            functional.pad(u, (short.shape[0] - 1, 0)), short.T[:, None], p["b_short"], groups=u.shape[1]
        )
        *gates, v = u.split(dim, dim=1)
        for s, h in enumerate(filters(l, p)):
            v = v * gates[order - 1 - s]
            spectrum = torch.fft.rfft(v, 2 * l) * torch.fft.rfft(h, 2 * l)
            v = torch.fft.irfft(spectrum, 2 * l)[..., :l] + p["D"][s][:, None] * v
        return (v * gates[0]).transpose(1, 2) @ p["w_out"] + p["b_out"]

    return call


FORMS = {
    **_torch_gated_conv.FORMS,
    **_torch_kan.FORMS,
    **_torch_mlp.FORMS,
    **_torch_spectral.FORMS,
    **_torch_ssm.FORMS,
    "pool": pool,
    "mlp_mixer": mlp_mixer,
    "gated_cnn": gated_cnn,
    "hyena": hyena,
}
