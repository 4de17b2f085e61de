// One token of the selective scan: LANES threads share a channel and walk its states side by side.
// Macros: T, LANES (a power of two), SOFTPLUS.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
    selective_state_update(const acc_t* state, const T* __restrict__ u, const T* __restrict__ delta,
                           const acc_t* __restrict__ A, const T* __restrict__ B, const T* __restrict__ C,
                           const acc_t* __restrict__ D, const T* __restrict__ z, const acc_t* __restrict__ bias,
                           T* __restrict__ y, acc_t* new_state, long long rows, int channels, int groups, int n) {
  const index_t row = global_index() / LANES;  // of (item, channel)
  const int lane = threadIdx.x % LANES, channel = row % channels;
  const bool valid = row < rows;
  acc_t total = 0, x = 0;
  if (valid) {
    acc_t step = ld(delta[row]) + (bias ? bias[channel] : acc_t(0));
    if (SOFTPLUS) step = fast_softplus(step);
    x = ld(u[row]);
    index_t coefficients = (row / channels * groups + channel / (channels / groups)) * n;
    for (int i = lane; i < n; i += LANES) {
      acc_t decay = fast_exp(step * A[(index_t)channel * n + i]);
      acc_t h = fma(decay, state[row * n + i], step * x * ld(B[coefficients + i]));
      new_state[row * n + i] = h;
      total = fma(h, ld(C[coefficients + i]), total);
    }
  }
#pragma unroll
  for (int distance = 1; distance < LANES; distance *= 2)
    total += __shfl_xor_sync(0xffffffffu, total, distance);
  if (valid && lane == 0) {
    if (D) total = fma(D[channel], x, total);
    if (z) {
      acc_t gate = ld(z[row]);
      total *= gate * fast_sigmoid(gate);
    }
    st(&y[row], total);
  }
}
