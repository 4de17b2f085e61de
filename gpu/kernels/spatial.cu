// Matrix products over the two axes of images, channel by channel: y[h, w] = sum_m x[h, m] z[m, w].
//
// A thread computes a tile of ROWS x COLUMNS tokens of one channel; the lanes of a warp are neighbouring channels. The
// steps between rows and columns of x and z are arguments, so that either may be exchanged.
#include "common.cuh"

constexpr int ROWS = 4, COLUMNS = 4;

extern "C" __global__ void __launch_bounds__(256)
    spatial_product(const T* __restrict__ x, const T* __restrict__ z, T* __restrict__ y, int h, int m, int w, int c,
                    long long x_item, long long x_row, long long x_column, long long z_item, long long z_row,
                    long long z_column) {
  int strips = (c + 31) / 32, tiles_w = (w + COLUMNS - 1) / COLUMNS, tiles_h = (h + ROWS - 1) / ROWS;
  int channel = (int)(blockIdx.x % strips) * 32 + threadIdx.x;
  index_t tiles = (index_t)tiles_h * tiles_w, groups = (tiles + 7) / 8;
  index_t item = blockIdx.x / strips / groups, tile = blockIdx.x / strips % groups * 8 + threadIdx.y;
  if (channel >= c || tile >= tiles) return;
  int row = (int)(tile / tiles_w) * ROWS, column = (int)(tile % tiles_w) * COLUMNS;
  const T *left[ROWS], *right[COLUMNS];
#pragma unroll
  for (int i = 0; i < ROWS; i++) left[i] = x + item * x_item + min(row + i, h - 1) * x_row + channel;
#pragma unroll
  for (int j = 0; j < COLUMNS; j++) right[j] = z + item * z_item + min(column + j, w - 1) * z_column + channel;
  acc_t sums[ROWS][COLUMNS] = {};
  for (int k = 0; k < m; k++) {
    acc_t a[ROWS], b[COLUMNS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) a[i] = ld(left[i][k * x_column]);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) b[j] = ld(right[j][k * z_row]);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) sums[i][j] += a[i] * b[j];
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
      if (row + i < h && column + j < w)
        st(&y[((item * h + row + i) * w + column + j) * c + channel], sums[i][j]);
}
