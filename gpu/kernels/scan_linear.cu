// Linear scan h[t] = a[t] h[t-1] + b[t]. A warp owns 32 channels side by side and STEPS tokens; the WARPS of a block
// stand one behind the other in the sequence. Each reduces its tokens to a decay and a state, these pass through
// shared memory, and each goes over its tokens again with the state before them. Tokens are read once.
// KIND: 0 writes h; 1 writes the state before each token; 2 is the adjoint of 0, which takes those states.
#include "common.cuh"

constexpr int LANES = 32;
constexpr int THREADS = LANES * WARPS;
constexpr int TOKENS = WARPS * STEPS;

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_scan(const T* __restrict__ a, const T* __restrict__ b, const acc_t* __restrict__ start,
                const acc_t* __restrict__ states, T* __restrict__ out, acc_t* __restrict__ before,
                T* __restrict__ da, acc_t* __restrict__ last, int length, int channels, bool reversed) {
  __shared__ acc_t decays[WARPS][LANES], carried[WARPS][LANES];
  const int lane = threadIdx.x, warp = threadIdx.y, parts = (channels + LANES - 1) / LANES;
  const int item = blockIdx.x / parts, channel = blockIdx.x % parts * LANES + lane;
  const bool valid = channel < channels;
  const index_t state_at = (index_t)item * channels + channel;
  acc_t state = valid && start ? start[state_at] : acc_t(0);
  const int step = reversed ? -1 : 1, first = reversed ? length - 1 : 0;
  for (int begin = 0; begin < length; begin += TOKENS) {
    acc_t decay[STEPS], input[STEPS], total = 1, end = 0;
    const int own = begin + warp * STEPS;
    auto place = [&](int i) {
      return ((index_t)item * length + (first + step * (own + i))) * channels + channel;
    };
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      bool here = valid && own + i < length;
      decay[i] = here ? ld(a[place(i)]) : acc_t(1);
      input[i] = here ? ld(b[place(i)]) : acc_t(0);
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      end = KIND == 2 ? decay[i] * (end + input[i]) : fma(decay[i], end, input[i]);
      total *= decay[i];
    }
    decays[warp][lane] = total;
    carried[warp][lane] = end;
    __syncthreads();
    acc_t own_state = state;
    for (int w = 0; w < WARPS; w++) {
      if (w == warp) own_state = state;
      // nothing grows out of a zero, whatever the product of the decays
      state = (state == acc_t(0) ? state : decays[w][lane] * state) + carried[w][lane];
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      bool here = valid && own + i < length;
      if (KIND == 1 && here) before[place(i)] = own_state;
      if (KIND == 2) {
        acc_t adjoint = own_state + input[i];
        if (here) {
          st(&out[place(i)], adjoint);
          st(&da[place(i)], adjoint * states[place(i)]);
        }
        own_state = decay[i] * adjoint;
      } else {
        own_state = fma(decay[i], own_state, input[i]);
        if (KIND == 0 && here) st(&out[place(i)], own_state);
      }
    }
    __syncthreads();
  }
  if (warp == 0 && valid && last) last[state_at] = state;
}
