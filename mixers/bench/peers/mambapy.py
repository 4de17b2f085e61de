"""mambapy's parallel scan (a Blelloch scan written in torch) for the selective scan, with torch's autograd."""

from mixers.bench.peers import torch as torch_peer

INSTALL = "mambapy torch"


def contenders(subject, backend, backward, threads):
    import torch
    from mambapy.pscan import pscan

    if subject.name != "selective_scan" or subject.arrays["B"].shape[2] != 1:
        return []

    def selective_scan(u, delta, A, B, C, D, z):
        # as in mambapy's MambaBlock.selective_scan; the group axis has size one
        decay = torch.exp(delta[..., None] * A)
        states = pscan(decay, delta[..., None] * B * u[..., None])
        y = (states @ C[:, :, 0, :, None])[..., 0] + D * u
        return y * torch.nn.functional.silu(z)

    return [torch_peer.contender("mambapy", selective_scan, subject, backend, backward, threads)]
