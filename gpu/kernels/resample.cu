// Changes of the token grid: every thread writes one value, channels are neighbours.
#include "common.cuh"

// mean of the four tokens of a block; an odd last row or column is dropped
extern "C" __global__ void __launch_bounds__(256)
    pool_blocks(const T* __restrict__ x, T* __restrict__ y, int h, int w, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, q = at / c % (w / 2);
  index_t row = at / c / (w / 2), item = row / (h / 2);
  index_t first = ((item * h + row % (h / 2) * 2) * w + 2 * q) * c + j, below = first + (index_t)w * c;
  acc_t total = ld(x[first]) + ld(x[first + c]);
  total += ld(x[below]) + ld(x[below + c]);
  st(&y[at], total * (acc_t)0.25);
}

// a quarter of the block's cotangent, zero on what was dropped
extern "C" __global__ void __launch_bounds__(256)
    unpool_blocks(const T* __restrict__ dy, T* __restrict__ dx, int h, int w, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, q = at / c % w;
  index_t row = at / c / w, item = row / h;
  int p = row % h;
  acc_t value = 0;
  if (p / 2 < h / 2 && q / 2 < w / 2) value = ld(dy[((item * (h / 2) + p / 2) * (w / 2) + q / 2) * c + j]);
  st(&dx[at], value * (acc_t)0.25);
}

// y[p, q] = x[p h / H, q w / W]
extern "C" __global__ void __launch_bounds__(256)
    copy_cells(const T* __restrict__ x, T* __restrict__ y, int h, int w, int high, int wide, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, q = at / c % wide;
  index_t row = at / c / wide, item = row / high;
  index_t from_row = row % high * h / high, from_column = (index_t)q * w / wide;
  y[at] = x[((item * h + from_row) * w + from_column) * c + j];
}

// dx = sum of dy over the cells that read a token: rows ceil(i H / h) .. ceil((i + 1) H / h) - 1
extern "C" __global__ void __launch_bounds__(256)
    sum_cells(const T* __restrict__ dy, T* __restrict__ dx, int h, int w, int high, int wide, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, k = at / c % w;
  index_t row = at / c / w, item = row / h, i = row % h;
  index_t first = (i * high + h - 1) / h, last = ((i + 1) * high + h - 1) / h;
  index_t left = ((index_t)k * wide + w - 1) / w, right = ((index_t)(k + 1) * wide + w - 1) / w;
  acc_t total = 0;
  for (index_t p = first; p < last; p++)
    for (index_t q = left; q < right; q++) total += ld(dy[((item * high + p) * wide + q) * c + j]);
  st(&dx[at], total);
}
