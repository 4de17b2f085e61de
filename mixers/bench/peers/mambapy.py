"""mambapy's parallel scan, written in torch, for the selective scan and mixers of it, with torch's autograd."""

from mixers.bench.peers import torch as torch_peer

INSTALL = "mambapy torch"


def contenders(subject, backend, backward, threads):
    from mambapy.pscan import pscan
    from torch import exp
    from torch.nn import functional

    from mixers.bench.peers import _torch_ssm

    def scan(u, delta, A, B, C, D):
        """(..., l, c) and (..., l, n), as in mambapy's MambaBlock.selective_scan."""
        decay = exp(delta[..., None] * A)
        drive = delta[..., None] * B[..., None, :] * u[..., None]
        states = pscan(decay.flatten(0, -4), drive.flatten(0, -4)).view_as(decay)
        return (states @ C[..., None])[..., 0] + D * u

    def selective_scan(u, delta, A, B, C, D, z):
        return scan(u, delta, A, B[:, :, 0], C[:, :, 0], D) * functional.silu(z)

    if subject.name == "selective_scan" and subject.arrays["B"].shape[2] == 1:
        form = selective_scan
    elif subject.name in _torch_ssm.SELECTIVE:
        form = _torch_ssm.SELECTIVE[subject.name](subject.of, scan)
    else:
        return []
    return [torch_peer.contender("mambapy", form, subject, backend, backward, threads)]
