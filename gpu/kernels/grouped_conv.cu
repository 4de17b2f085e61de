// Convolutions that mix the channels of a group: x (b, h, w, c_in), weights (kh, kw, c_in / groups, c_out).
// Neighbouring threads have neighbouring output channels.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    grouped_convolve(const T* __restrict__ x, const acc_t* __restrict__ weights, const acc_t* __restrict__ bias,
                     T* __restrict__ y, int h, int w, int c_in, int c_out, int kh, int kw, int groups, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int inputs = c_in / groups, o = at % c_out, g = o / (c_out / groups), q = at / c_out % w;
  index_t row = at / c_out / w, item = row / h;
  int p = row % h;
  acc_t total = bias ? bias[o] : (acc_t)0;
  for (int i = 0; i < kh; i++) {
    int r = p + i - kh / 2;
    if (r < 0 || r >= h) continue;
    for (int j = 0; j < kw; j++) {
      int s = q + j - kw / 2;
      if (s < 0 || s >= w) continue;
      const T* values = x + ((item * h + r) * w + s) * c_in + g * inputs;
      const acc_t* column = weights + (index_t)(i * kw + j) * inputs * c_out + o;
      for (int m = 0; m < inputs; m++) total += ld(values[m]) * column[(index_t)m * c_out];
    }
  }
  st(&y[at], total);
}

// one weight per thread, summed over a slice of the rows; partial (slices, weights)
extern "C" __global__ void __launch_bounds__(256)
    grouped_weights(const T* __restrict__ x, const T* __restrict__ dy, acc_t* __restrict__ partial, int h, int w,
                    int c_in, int c_out, int kh, int kw, int groups, long long rows, long long share) {
  int inputs = c_in / groups;
  index_t count = (index_t)kh * kw * inputs * c_out, at = global_index();
  if (at >= count) return;
  int o = at % c_out, m = at / c_out % inputs, tap = at / c_out / inputs;
  int i = tap / kw - kh / 2, j = tap % kw - kw / 2, channel = o / (c_out / groups) * inputs + m;
  index_t first = blockIdx.y * share, last = first + share < rows ? first + share : rows;
  acc_t total = 0;
  for (index_t row = first; row < last; row++) {
    int r = row % h + i;
    if (r < 0 || r >= h) continue;
    acc_t line = 0;
    for (int q = j < 0 ? -j : 0; q < w && q + j < w; q++)
      line += ld(x[((row + i) * w + q + j) * c_in + channel]) * ld(dy[(row * w + q) * c_out + o]);
    total += line;
  }
  partial[blockIdx.y * count + at] = total;
}
