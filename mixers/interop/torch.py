"""Ops and mixers as differentiable PyTorch functions and modules.

Tensors on the CPU share their memory with the NumPy arrays that the cpu backend computes on, tensors on a
CUDA device with CuPy arrays: nothing is copied on the way in or out.
"""

import contextlib

import ml_dtypes
import numpy
import torch
from torch.autograd.function import once_differentiable

from mixers.op import Op


def wrap(function):
    """A differentiable function of tensors.

    Parameters
    ----------
    function : Op or Mixer
        An op of :mod:`mixers.ops`, called as ``f(*arrays, **options)``, or a mixer, called as
        ``f(params, *inputs, **options)`` with a dict of tensors.

    Returns
    -------
    callable
        Returns a tensor, or the op's NamedTuple of tensors. Gradients flow to every tensor that requires
        them, once: second derivatives raise.

    Examples
    --------
    >>> from mixers import ops
    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> wrap(ops.relu)(x).sum().backward()
    >>> x.grad.sum()
    tensor(6.)
    """
    if isinstance(function, Op):
        return lambda *args, **options: _call_op(function, args, options)
    return lambda params, *inputs, **options: _call_mixer(function, params, inputs, options)


class Module(torch.nn.Module):
    """A mixer as a module, with the mixer's parameters.

    Parameters
    ----------
    mixer : Mixer
    params : dict of array, optional
        By default ``mixer.init(0)``. Names with a dot get ``__`` in its place, as torch forbids dots. Running
        statistics become buffers.

    Examples
    --------
    >>> import mixers
    >>> module = Module(mixers.create("mlp_mixer", dim=4, grid=(6,), hidden=8))
    >>> module(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """

    def __init__(self, mixer, params=None):
        super().__init__()
        self.mixer = mixer
        self._names = {name: name.replace(".", "__") for name in mixer.parameters()}
        params = mixer.init(0) if params is None else params
        for name, spec in mixer.parameters().items():
            tensor = to_tensor(numpy.array(params[name]))
            if spec.trainable:
                self.register_parameter(
                    self._names[name], torch.nn.Parameter(tensor, requires_grad=not spec.frozen)
                )
            else:
                self.register_buffer(self._names[name], tensor)

    def forward(self, *inputs, **options):
        params = {name: getattr(self, own) for name, own in self._names.items()}
        return _call_mixer(self.mixer, params, inputs, options)

    def extra_repr(self):
        return str(self.mixer)


def _call_op(op, args, options):
    given = dict(zip(op.signature.parameters, args)) | options
    tensors = {n: t for n, t in given.items() if isinstance(t, torch.Tensor) and n in op.arrays}
    rest = {n: value for n, value in given.items() if n not in tensors}

    def run(arrays):
        out, saved = op.forward(**arrays, **rest)

        def pull(douts):
            gradients = op.backward(op.Outputs(*douts) if isinstance(out, tuple) else douts[0], saved)
            return [getattr(gradients, "d" + n) for n in arrays]

        return out, pull

    outs, form = _apply(run, tensors)
    return form(*outs) if form else outs[0]


def _call_mixer(mixer, params, inputs, options):
    names = {("param", n): t for n, t in params.items()} | {("input", i): t for i, t in enumerate(inputs)}

    def run(arrays):
        own = {n: a for (kind, n), a in arrays.items() if kind == "param"}
        out, saved = mixer.forward(own, *(arrays["input", i] for i in range(len(inputs))), **options)

        def pull(douts):
            dparams, dinputs = mixer.backward(douts if isinstance(out, tuple) else douts[0], saved)
            dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
            return [dparams[n] if kind == "param" else dinputs[n] for kind, n in arrays]

        return out, pull

    outs, form = _apply(run, names)
    return form(*outs) if form else outs[0]


def _apply(run, tensors):
    """The output tensors, and what puts several of them together (None for a single one)."""
    forms = []

    def remember(arrays):
        out, pull = run(arrays)
        if isinstance(out, tuple):
            forms.append(type(out) if hasattr(out, "_fields") else lambda *parts: parts)
        return (out if isinstance(out, tuple) else (out,)), pull

    outs = _Function.apply(remember, tuple(tensors), *tensors.values())
    return outs, forms[0] if forms else None


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, names, *tensors):
        # torch then complains if one of them is changed in place before the backward
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        with _stream_of(tensors):
            outs, ctx.pull = run(dict(zip(names, map(to_array, tensors))))
        return tuple(o if o is None else to_tensor(o) for o in outs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *douts):
        tensors = ctx.saved_tensors
        if all(d is None for d in douts):
            return None, None, *(None for _ in tensors)
        with _stream_of(tensors):
            gradients = ctx.pull([d if d is None else to_array(d) for d in douts])
        return None, None, *(g if g is None else to_tensor(g) for g in gradients)


def to_array(tensor):
    """A NumPy or CuPy array in the memory of a tensor."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        # neither NumPy nor DLPack knows the type: by way of the integers of its size
        return to_array(tensor.view(torch.int16)).view(ml_dtypes.bfloat16)
    if tensor.device.type == "cuda":
        import cupy

        return cupy.from_dlpack(tensor)
    return tensor.numpy()


def to_tensor(array):
    """A tensor in the memory of a NumPy or CuPy array."""
    if array.dtype == ml_dtypes.bfloat16:
        return to_tensor(array.view(numpy.int16)).view(torch.bfloat16)
    return torch.from_numpy(array) if isinstance(array, numpy.ndarray) else torch.from_dlpack(array)


def _stream_of(tensors):
    """Let CuPy work on torch's current stream."""
    device = next((t.device for t in tensors if t.device.type == "cuda"), None)
    if device is None:
        return contextlib.nullcontext()
    import cupy

    return cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream, device.index)
