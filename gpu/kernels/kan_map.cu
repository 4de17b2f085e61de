// Projection of rows onto the probability simplex: a warp per row, 8 rows per block.
#include "common.cuh"

constexpr int LANES = 32, STRIPES = 8;

__device__ __forceinline__ acc_t larger(acc_t a, acc_t b) {
  // a NaN stays
  return a <= b ? b : a != a || a > b ? a : b;
}

// max(x - threshold, 0); the threshold from the values above it, until no more values fall below (Michelot 1986)
extern "C" __global__ void __launch_bounds__(256)
    project(const T* __restrict__ x, T* __restrict__ y, index_t rows, int n) {
  index_t own = (index_t)blockIdx.x * STRIPES + threadIdx.y, row = own < rows ? own : rows - 1;
  x += row * n;
  acc_t highest = ld(x[0]);
  for (int j = threadIdx.x; j < n; j += LANES) highest = larger(highest, ld(x[j]));
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1)
    highest = larger(highest, __shfl_xor_sync(0xffffffffu, highest, distance));
  // without the common offset no digits are lost; the first round takes all values
  acc_t threshold = 0, known = n + 1;
  bool all = true;
  while (true) {
    acc_t total = 0, count = 0;
    for (int j = threadIdx.x; j < n; j += LANES) {
      acc_t value = ld(x[j]) - highest;
      if (value > threshold || (all && value == value)) total += value, count += 1;
    }
    total = warp_sum(total);
    count = warp_sum(count);
    if (!(count > 0 && count < known)) break;
    threshold = (total - 1) / count, known = count, all = false;
  }
  // without a number to begin with the highest one is NaN
  if (all) threshold = highest;
  if (own >= rows) return;
  for (int j = threadIdx.x; j < n; j += LANES) st(&y[row * n + j], value_relu(ld(x[j]) - highest - threshold));
}

// on the support dx = dy minus its mean there, elsewhere 0
extern "C" __global__ void __launch_bounds__(256)
    project_back(const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ dx, index_t rows, int n) {
  index_t own = (index_t)blockIdx.x * STRIPES + threadIdx.y, row = own < rows ? own : rows - 1;
  acc_t total = 0, count = 0;
  for (int j = threadIdx.x; j < n; j += LANES)
    if (ld(y[row * n + j]) > 0) total += ld(dy[row * n + j]), count += 1;
  total = warp_sum(total);
  count = warp_sum(count);
  if (own >= rows) return;
  acc_t mean = total / (count > 0 ? count : acc_t(1));
  for (int j = threadIdx.x; j < n; j += LANES) {
    index_t at = row * n + j;
    st(&dx[at], ld(y[at]) > 0 ? ld(dy[at]) - mean : acc_t(0));
  }
}
