// Attention over three branches. Each is (items, tokens, c). Sums over tokens: blockIdx = (item and block of tokens,
// channels / 32); in a block of 32 x 8 threads, thread (i, k) walks the tokens k, k + 8, ... of channel i.
#include "columns.cuh"

struct tokens_t {
  int channel;
  index_t first, last;  // tokens of the block, counted over all items
  bool valid;
};

__device__ __forceinline__ tokens_t block_tokens(int tokens, int c, int size, int blocks) {
  tokens_t t;
  t.channel = blockIdx.y * LANES + threadIdx.x;
  t.valid = t.channel < c;
  index_t item = blockIdx.x / blocks;
  int first = blockIdx.x % blocks * size;
  t.first = item * tokens + first;
  t.last = item * tokens + min(tokens, first + size);
  return t;
}

// sum of all branches over each block of tokens
extern "C" __global__ void __launch_bounds__(256)
    pool(const T* __restrict__ z0, const T* __restrict__ z1, const T* __restrict__ z2, acc_t* __restrict__ sums,
         int tokens, int c, int size, int blocks) {
  __shared__ acc_t scratch[STRIPES][LANES];
  tokens_t t = block_tokens(tokens, c, size, blocks);
  acc_t total = 0;
  if (t.valid)
    for (index_t r = t.first + threadIdx.y; r < t.last; r += STRIPES) {
      index_t at = r * c + t.channel;
      total += ld(z0[at]) + ld(z1[at]) + ld(z2[at]);
    }
  total = stripe_sum(total, scratch);
  if (t.valid && threadIdx.y == 0) sums[(index_t)blockIdx.x * c + t.channel] = total;
}

// sums of dy z_k over each block of tokens
extern "C" __global__ void __launch_bounds__(256)
    products(const T* __restrict__ z0, const T* __restrict__ z1, const T* __restrict__ z2, const T* __restrict__ dy,
             acc_t* __restrict__ sums, int tokens, int c, int size, int blocks) {
  __shared__ acc_t scratch[STRIPES][LANES];
  tokens_t t = block_tokens(tokens, c, size, blocks);
  acc_t total[3] = {0, 0, 0};
  if (t.valid)
    for (index_t r = t.first + threadIdx.y; r < t.last; r += STRIPES) {
      index_t at = r * c + t.channel;
      acc_t d = ld(dy[at]);
      total[0] += d * ld(z0[at]);
      total[1] += d * ld(z1[at]);
      total[2] += d * ld(z2[at]);
    }
  for (int k = 0; k < 3; k++) {
    acc_t sum = stripe_sum(total[k], scratch);
    if (t.valid && threadIdx.y == 0) sums[((index_t)blockIdx.x * 3 + k) * c + t.channel] = sum;
  }
}

// weights (items, 3, c) = softmax over the branches of o, read at branch_step k + channel_step c
extern "C" __global__ void __launch_bounds__(256)
    soften(const acc_t* __restrict__ o, acc_t* __restrict__ weights, int c, int branch_step, int channel_step,
           long long size) {
  index_t at = global_index();
  if (at >= size) return;
  index_t item = at / c, start = item * 3 * c;
  int channel = at % c;
  const acc_t* logits = o + start + (index_t)channel * channel_step;
  acc_t l0 = logits[0], l1 = logits[branch_step], l2 = logits[2 * branch_step];
  acc_t largest = fmax(l0, fmax(l1, l2));
  acc_t e0 = exp(l0 - largest), e1 = exp(l1 - largest), e2 = exp(l2 - largest);
  acc_t sum = e0 + e1 + e2;
  weights[start + channel] = e0 / sum;
  weights[start + c + channel] = e1 / sum;
  weights[start + 2 * c + channel] = e2 / sum;
}

// y = sum of weights[k] z_k
extern "C" __global__ void __launch_bounds__(256)
    weigh(const T* __restrict__ z0, const T* __restrict__ z1, const T* __restrict__ z2,
          const acc_t* __restrict__ weights, T* __restrict__ y, long long tokens, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  const acc_t* w = weights + at / c / tokens * 3 * c + at % c;
  st(&y[at], w[0] * ld(z0[at]) + w[c] * ld(z1[at]) + w[2 * c] * ld(z2[at]));
}

// dz_k = weights[k] dy + dpooled
extern "C" __global__ void __launch_bounds__(256)
    pull(const T* __restrict__ dy, const acc_t* __restrict__ weights, const acc_t* __restrict__ dpooled,
         T* __restrict__ dz0, T* __restrict__ dz1, T* __restrict__ dz2, long long tokens, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  index_t item = at / c / tokens;
  int channel = at % c;
  const acc_t* w = weights + item * 3 * c + channel;
  acc_t d = ld(dy[at]), common = dpooled[item * c + channel];
  st(&dz0[at], w[0] * d + common);
  st(&dz1[at], w[c] * d + common);
  st(&dz2[at], w[2 * c] * d + common);
}
