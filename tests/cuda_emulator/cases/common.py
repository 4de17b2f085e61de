"""The block-wide helper of common.cuh, in a kernel of its own."""

import pathlib

import numpy

from mixers.gpu.device import Kernel

from . import kernel_case

_FILE = str(pathlib.Path(__file__).with_name("block_sums.cu"))


@kernel_case("common.cuh", dtypes=("float32",))
def block_sums(device, dtype):
    x = device.to_device(numpy.arange(512, dtype=dtype) / 64)
    out = device.empty(512, dtype)
    device.launch(Kernel("block_sums", _FILE), (2,), (256,), (x, out))
    return out
