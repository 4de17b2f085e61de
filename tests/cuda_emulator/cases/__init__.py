"""The table of kernel cases: small runs that together launch every kernel and reach every barrier.

One module per family fills it, with the same name as the kernel file. The cases serve three tests: schedules
and checks (every case), deleted barriers (test_cuda_mutation.py) and real compilers (test_cuda_compile.py,
which also takes from them what there is to compile, in every dtype).
"""

import importlib
import pkgutil
from typing import Any, NamedTuple

import harness

from ..schedules import to_host


class KernelCase(NamedTuple):
    """``run(device, dtype)`` launches kernels of `file` and returns device arrays.

    A case of an op also takes ``run(device, dtype, arrange)`` with a function that lays out each input.
    """

    file: str
    name: str
    run: Any
    dtypes: tuple
    is_op: bool = False


_cases = []


def kernel_case(file, dtypes=tuple(harness.DTYPES)):
    """Register the decorated function ``run(device, dtype)``, dtype by name, as a case of a kernel file."""

    def register(function):
        _cases.append(KernelCase(file, function.__name__, function, dtypes))
        return function

    return register


def op_case(file, op, case, dtypes=None):
    """Register forward and backward of an op with the arguments of a harness.Case."""

    def run(device, dtype, arrange=lambda array: array):
        move = lambda a: a if a is None else arrange(device.to_device(a))
        arguments = {n: move(a) if n in op.arrays else a for n, a in case.draw(dtype).items()}
        out, saved = op.forward(**arguments)
        douts = harness.cotangents(to_host(out, device))
        several = isinstance(douts, tuple)
        return out, op.backward(type(douts)(*map(move, douts)) if several else move(douts), saved)

    if dtypes is None:
        dtypes = tuple(d for d in harness.DTYPES if case.halves or not d.endswith("float16"))
    _cases.append(KernelCase(file, f"{op.name}-{case.name}", run, dtypes, is_op=True))


def all_cases():
    """Every registered case, after importing every module of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(_cases)
