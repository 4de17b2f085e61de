"""Our mixers in PyTorch, with our parameter names; each entry takes the configuration and returns a function."""

from mixers.bench.peers import _torch_ops as ops


def pool(mixer):
    return lambda x: ops.avg_pool(x, mixer.pool_size, minus_identity=True)


FORMS = {"pool": pool}
