// The built-ins of the emulator and the helpers of common.cuh, each against its definition in Python.
#include "common.cuh"

// per lane: shuffles of four kinds at width 8, votes, integer reductions
extern "C" __global__ void warp_collectives(int* out) {
  int lane = threadIdx.x & 31, n = blockDim.x, t = threadIdx.x;
  out[t] = __shfl_sync(0xffffffffu, lane, 3, 8);
  out[n + t] = __shfl_xor_sync(0xffffffffu, lane, 5, 8);
  out[2 * n + t] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
  out[3 * n + t] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
  out[4 * n + t] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
  out[5 * n + t] = __any_sync(0xffffffffu, lane == 7) + 2 * __all_sync(0xffffffffu, lane < 31);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  out[6 * n + t] = __reduce_add_sync(0xffffffffu, lane) + __reduce_max_sync(0xffffffffu, -lane);
#endif
}

extern "C" __global__ void block_votes(int* out) {
  int n = blockDim.x, t = threadIdx.x;
  out[t] = __syncthreads_count(t % 3 == 0);
  out[n + t] = __syncthreads_or(t == 5);
  out[2 * n + t] = __syncthreads_and(t != 5);
}

// sums over warps and over the block, in a fixed order
extern "C" __global__ void __launch_bounds__(96) sums(const float* x, float* out) {
  __shared__ float scratch[3];
  float value = x[threadIdx.x];
  out[threadIdx.x] = warp_sum(value);
  out[blockDim.x + threadIdx.x] = block_sum(value, scratch);
}

#ifdef T
extern "C" __global__ void widen(const T* x, acc_t* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = ld(x[i]);
}
extern "C" __global__ void narrow(const acc_t* x, T* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) st(&y[i], x[i]);
}
#endif

#ifdef FUNCTION
extern "C" __global__ void apply(const acc_t* x, acc_t* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = FUNCTION(x[i]);
}
#endif
