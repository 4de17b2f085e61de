// Attention within windows of a grid. A warp owns one query (or key) of one window and head; `rows` and `labels` say
// which token of the grid is which of a window, and from which region it comes. `tokens` is the size of the grid, m2
// that of a window.
#include "common.cuh"

constexpr int WARPS = 4;

struct spot_t {
  index_t item;  // of the batch
  int window, head, index;
  index_t pairs;  // where the row (item, window, head, index) of a table (.., m2) begins
  bool valid;
};

__device__ __forceinline__ spot_t spot(index_t count, int windows, int heads, int m2) {
  spot_t p;
  index_t at = (index_t)blockIdx.x * WARPS + threadIdx.x / 32;
  p.valid = at < count;
  if (!p.valid) at = 0;
  p.pairs = at * m2;
  p.index = at % m2;
  at /= m2;
  p.head = at % heads;
  at /= heads;
  p.window = at % windows;
  p.item = at / windows;
  return p;
}

// where a token of the window has its d channels
__device__ __forceinline__ index_t channels_of(const spot_t& p, const int* rows, int tokens, int heads, int d, int m2, int i) {
  return ((p.item * tokens + rows[p.window * m2 + i]) * heads + p.head) * d;
}

__device__ __forceinline__ acc_t dot(const T* a, const T* b, int d) {
  acc_t sum = 0;
  for (int c = 0; c < d; c++) sum += ld(a[c]) * ld(b[c]);
  return sum;
}

template <class value_t>
__device__ __forceinline__ value_t warp_max(value_t value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) {
    value_t other = __shfl_xor_sync(0xffffffffu, value, distance);
    value = value < other ? other : value;
  }
  return value;
}

// weights (b, windows, heads, m2, m2) of each query, bias (heads, m2, m2)
extern "C" __global__ void __launch_bounds__(128)
    attend(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, const acc_t* __restrict__ bias,
           const int* __restrict__ rows, const int* __restrict__ labels, acc_t* __restrict__ weights, T* __restrict__ y,
           index_t count, int tokens, int windows, int heads, int d, int m2, acc_t scale) {
  spot_t p = spot(count, windows, heads, m2);
  int lane = threadIdx.x % 32;
  index_t own = channels_of(p, rows, tokens, heads, d, m2, p.index);
  const acc_t* added = bias + ((index_t)p.head * m2 + p.index) * m2;
  int label = labels[p.window * m2 + p.index];
  acc_t top = -1e30;
  for (int j = lane; p.valid && j < m2; j += 32) {
    acc_t score = scale * dot(q + own, k + channels_of(p, rows, tokens, heads, d, m2, j), d) + added[j];
    // tokens that only a roll brought together
    if (labels[p.window * m2 + j] != label) score -= (acc_t)100;
    weights[p.pairs + j] = score;
    top = top < score ? score : top;
  }
  top = warp_max(top);
  acc_t total = 0;
  for (int j = lane; p.valid && j < m2; j += 32) {
    acc_t weight = exp(weights[p.pairs + j] - top);
    weights[p.pairs + j] = weight;
    total += weight;
  }
  total = warp_sum(total);
  for (int j = lane; p.valid && j < m2; j += 32) weights[p.pairs + j] /= total;
  __syncwarp();
  for (int c = lane; y && p.valid && c < d; c += 32) {
    acc_t sum = 0;
    for (int j = 0; j < m2; j++)
      sum += weights[p.pairs + j] * ld(v[channels_of(p, rows, tokens, heads, d, m2, j) + c]);
    st(&y[own + c], sum);
  }
}

// ds (b, windows, heads, m2, m2), the adjoints of the scores of each query, and dq
extern "C" __global__ void __launch_bounds__(128)
    pull_queries(const T* __restrict__ k, const T* __restrict__ v, const T* __restrict__ dy, const int* __restrict__ rows,
                 const acc_t* __restrict__ weights, acc_t* __restrict__ ds, T* __restrict__ dq, index_t count, int tokens,
                 int windows, int heads, int d, int m2, acc_t scale) {
  spot_t p = spot(count, windows, heads, m2);
  int lane = threadIdx.x % 32;
  index_t own = channels_of(p, rows, tokens, heads, d, m2, p.index);
  acc_t mean = 0;
  for (int j = lane; p.valid && j < m2; j += 32) {
    acc_t pulled = dot(dy + own, v + channels_of(p, rows, tokens, heads, d, m2, j), d);
    ds[p.pairs + j] = pulled;
    mean += pulled * weights[p.pairs + j];
  }
  mean = warp_sum(mean);
  for (int j = lane; p.valid && j < m2; j += 32)
    ds[p.pairs + j] = weights[p.pairs + j] * (ds[p.pairs + j] - mean);
  __syncwarp();
  for (int c = lane; p.valid && c < d; c += 32) {
    acc_t sum = 0;
    for (int j = 0; j < m2; j++) sum += ds[p.pairs + j] * ld(k[channels_of(p, rows, tokens, heads, d, m2, j) + c]);
    st(&dq[own + c], scale * sum);
  }
}

// dk and dv of each key
extern "C" __global__ void __launch_bounds__(128)
    pull_keys(const T* __restrict__ q, const T* __restrict__ dy, const int* __restrict__ rows,
              const acc_t* __restrict__ weights, const acc_t* __restrict__ ds, T* __restrict__ dk, T* __restrict__ dv,
              index_t count, int tokens, int windows, int heads, int d, int m2, acc_t scale) {
  spot_t p = spot(count, windows, heads, m2);
  index_t own = channels_of(p, rows, tokens, heads, d, m2, p.index);
  index_t first = p.pairs - (index_t)p.index * m2 + p.index;
  for (int c = threadIdx.x % 32; p.valid && c < d; c += 32) {
    acc_t key = 0, value = 0;
    for (int i = 0; i < m2; i++) {
      index_t from = channels_of(p, rows, tokens, heads, d, m2, i) + c, pair = first + (index_t)i * m2;
      key += ds[pair] * ld(q[from]);
      value += weights[pair] * ld(dy[from]);
    }
    st(&dk[own + c], scale * key);
    st(&dv[own + c], value);
  }
}

// dtable ((2 m - 1)^2, heads) from the sums of ds over batch and windows (heads, m2, m2): one thread per entry
extern "C" __global__ void __launch_bounds__(128)
    gather_table(const acc_t* __restrict__ sums, acc_t* __restrict__ dtable, index_t count, int heads, int m) {
  index_t at = global_index();
  if (at >= count) return;
  int head = at % heads, side = 2 * m - 1, m2 = m * m;
  int down = at / heads / side - (m - 1), right = at / heads % side - (m - 1);
  acc_t sum = 0;
  for (int i = 0; i < m; i++)
    for (int j = 0; j < m; j++) {
      int row = i - down, column = j - right;
      if (row >= 0 && row < m && column >= 0 && column < m)
        sum += sums[((index_t)head * m2 + i * m + j) * m2 + row * m + column];
    }
  dtable[at] = sum;
}
