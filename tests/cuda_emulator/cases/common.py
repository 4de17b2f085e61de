"""The block-wide helper of common.cuh, in a kernel of its own."""

import numpy

from mixers.gpu.device import Kernel

from . import kernel_case

_SOURCE = """
#include "common.cuh"
// two sums in turn through one scratch array
extern "C" __global__ void __launch_bounds__(256) block_sums(const float* x, float* out) {
  __shared__ float scratch[8];
  float value = x[global_index()];
  float first = block_sum(value, scratch);
  out[global_index()] = first + block_sum(value * value, scratch);
}
"""


@kernel_case("common.cuh", dtypes=("float32",))
def block_sums(device, dtype):
    device.sources["block_sums.cu"] = _SOURCE
    x = device.to_device(numpy.arange(512, dtype=dtype) / 64)
    out = device.empty(512, dtype)
    device.launch(Kernel("block_sums", "block_sums.cu"), (2,), (256,), (x, out))
    return out
