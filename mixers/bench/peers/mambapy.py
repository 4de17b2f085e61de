"""mambapy's parallel scan, written in torch, for the selective scan and Mamba, with torch's autograd."""

from mixers.bench.peers import torch as torch_peer

INSTALL = "mambapy torch"


def contenders(subject, backend, backward, threads):
    import torch
    from mambapy.pscan import pscan
    from torch.nn import functional

    from mixers.bench.peers import _torch_ops

    def selective_scan(u, delta, A, B, C, D, z):
        # as in mambapy's MambaBlock.selective_scan; the group axis has size one
        decay = torch.exp(delta[..., None] * A)
        states = pscan(decay, delta[..., None] * B * u[..., None])
        y = (states @ C[:, :, 0, :, None])[..., 0] + D * u
        return y * functional.silu(z)

    def mamba(x, w_in, conv_w, conv_b, w_x, w_dt, dt_bias, A_log, D, w_out):
        v, z = (x @ w_in).chunk(2, dim=-1)
        u = _torch_ops.causal_conv1d(v, conv_w, conv_b)
        r, B, C = torch.split(u @ w_x, (w_dt.shape[0], A_log.shape[1], A_log.shape[1]), dim=-1)
        delta = functional.softplus(r @ w_dt + dt_bias)
        y = selective_scan(u, delta, -torch.exp(A_log), B[:, :, None], C[:, :, None], D, z)
        return y @ w_out

    forms = {"selective_scan": selective_scan, "mamba": mamba}
    if subject.name not in forms or (subject.name == "selective_scan" and subject.arrays["B"].shape[2] != 1):
        return []
    return [torch_peer.contender("mambapy", forms[subject.name], subject, backend, backward, threads)]
