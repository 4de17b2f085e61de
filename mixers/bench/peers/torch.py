"""PyTorch, eager and compiled: ops from torch.nn.functional, mixers as their authors write them."""

from mixers.bench.contender import Contender

INSTALL = "torch"


def contenders(subject, backend, backward, threads):
    import torch

    from mixers.bench.peers import _torch_mixers, _torch_ops, _torch_ssm

    if backend == "reference":
        return []
    forms = {**_torch_ops.FORMS, "ssd_scan": _torch_ssm.ssd_scan}
    if subject.name in forms:
        form = forms[subject.name]
    elif subject.name in _torch_mixers.FORMS:
        form = _torch_mixers.FORMS[subject.name](subject.of)
    else:
        return []
    eager = contender("torch", form, subject, backend, backward, threads)
    compiled = contender("torch compile", torch.compile(form), subject, backend, backward, threads)
    return [eager, compiled]


def contender(name, form, subject, backend, backward, threads):
    """A contender from a function of tensors with our argument names, and torch's autograd."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if backend == "gpu" else "cpu"
    given = {**subject.arrays, **subject.fixed}
    given = {n: torch.from_numpy(a).to(device) if hasattr(a, "dtype") else a for n, a in given.items()}
    wanted = [given[n].requires_grad_(backward) for n in subject.arrays]
    finish = torch.cuda.synchronize if backend == "gpu" else lambda: None
    call = lambda: form(**given)

    def forward():
        with torch.no_grad():
            return call()

    output = lambda: forward().cpu().numpy()
    if not backward:
        return Contender(name, forward, None, None, output, finish)
    out = call()
    dout = torch.randn_like(out)
    gradients = lambda out: torch.autograd.grad(out, wanted, dout, retain_graph=True, allow_unused=True)
    return Contender(name, forward, lambda: gradients(out), lambda: gradients(call()), output, finish)
