// Cosine transforms of short axes: a thread holds a whole line in registers, the tables are constants.
//
// The cosines are symmetric about the middle of a line, alternately even and odd: sums of mirrored values
// give the even coefficients, differences the odd ones, each through a table of half the size. All loops
// are unrolled and the tables are const, so that their values become operands of the instructions.
// W (and H) are the lengths of the axes, COLUMNS and ROWS the values of their tables: the even rows, then
// the odd ones. INVERSE chooses the transposed transform; its tables are transposed too.
#include "common.cuh"

__device__ const acc_t columns_table[] = {COLUMNS};
#ifdef H
__device__ const acc_t rows_table[] = {ROWS};
#endif

template <int n, int count>
__device__ __forceinline__ acc_t product(const acc_t* table, int row, const acc_t (&values)[count]) {
  acc_t sum = 0;
#pragma unroll
  for (int k = 0; k < n; k++) sum += table[row * n + k] * values[k];
  return sum;
}

// transform the values source(0) .. source(n - 1) and hand the results to target(i, value)
template <int n, class source_t, class target_t>
__device__ __forceinline__ void transform(const acc_t* table, source_t source, target_t target) {
  constexpr int even = (n + 1) / 2, odd = n / 2;
  const acc_t* second_table = table + even * even;
  acc_t first[even], second[odd + 1];
#if INVERSE
#pragma unroll
  for (int i = 0; i < odd; i++) {
    first[i] = source(2 * i);
    second[i] = source(2 * i + 1);
  }
  if (even > odd) first[even - 1] = source(n - 1);
#pragma unroll
  for (int i = 0; i < odd; i++) {
    acc_t a = product<even>(table, i, first), b = product<odd>(second_table, i, second);
    target(i, a + b);
    target(n - 1 - i, a - b);
  }
  if (even > odd) target(odd, product<even>(table, odd, first));
#else
#pragma unroll
  for (int i = 0; i < odd; i++) {
    acc_t a = source(i), b = source(n - 1 - i);
    first[i] = a + b;
    second[i] = a - b;
  }
  if (even > odd) first[even - 1] = source(odd);
#pragma unroll
  for (int i = 0; i < even; i++) target(2 * i, product<even>(table, i, first));
#pragma unroll
  for (int i = 0; i < odd; i++) target(2 * i + 1, product<odd>(second_table, i, second));
#endif
}

#ifndef H
// x and y are (items, W, inner): one thread per item and inner position
extern "C" __global__ void __launch_bounds__(256)
    transform_lines(const T* __restrict__ x, T* __restrict__ y, long long lines, long long inner) {
  index_t line = global_index();
  if (line >= lines) return;
  index_t start = line / inner * W * inner + line % inner;
  transform<W>(
      columns_table, [&](int i) { return ld(x[start + i * inner]); },
      [&](int i, acc_t value) { st(&y[start + i * inner], value); });
}
#else
// x and y are (images, H, W, c): a block takes CHANNELS channels of one image, its rows from memory into
// the tile, then the columns of the tile back to memory
extern "C" __global__ void __launch_bounds__(256)
    transform_images(const T* __restrict__ x, T* __restrict__ y, int blocks, int c) {
  DYNAMIC_SHARED(acc_t, tile);
  int c0 = (int)(blockIdx.x % blocks) * CHANNELS;
  index_t start = (index_t)(blockIdx.x / blocks) * H * W * c + c0;
  for (int i = threadIdx.x; i < H * CHANNELS; i += blockDim.x) {
    int channel = i % CHANNELS, row = i / CHANNELS;
    bool inside = c0 + channel < c;
    const T* line = x + start + (index_t)row * W * c + channel;
    transform<W>(
        columns_table, [&](int j) { return inside ? ld(line[(index_t)j * c]) : acc_t(0); },
        [&](int j, acc_t value) { tile[row * PITCH + j * CHANNELS + channel] = value; });
  }
  __syncthreads();
  for (int i = threadIdx.x; i < W * CHANNELS; i += blockDim.x) {
    int channel = i % CHANNELS, column = i / CHANNELS;
    bool inside = c0 + channel < c;
    T* line = y + start + (index_t)column * c + channel;
    transform<H>(
        rows_table, [&](int j) { return tile[j * PITCH + column * CHANNELS + channel]; },
        [&](int j, acc_t value) {
          if (inside) st(&line[(index_t)j * W * c], value);
        });
  }
}
#endif
