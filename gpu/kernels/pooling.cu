// Average pooling: y = after S(before x) (- x), S the box sum; the weights are reciprocal counts of the positions
// inside the window, taken after the sum (forward) or before it (backward, BEFORE = 1). MINUS = 1 subtracts x.
#include "common.cuh"

// 1 / (positions within `reach` of i on an axis of length n), for i on the axis or one beside it
__device__ __forceinline__ acc_t reciprocal_count(int i, int n, int reach) {
  int first = reach < i ? i - reach : 0, last = reach < n - 1 - i ? i + reach : n - 1;
  return (acc_t)1 / (acc_t)(last - first + 1);
}

#ifdef ITEMS
// Windows of 3 on images (b, h, w, c): a thread takes ITEMS channels of COLUMNS columns and rolls over ROWS rows,
// with the sums along the columns of the last two rows in registers.
__device__ __forceinline__ void read(const T* source, acc_t (&values)[ITEMS], bool wide, int valid) {
  if (wide) {
    ld_pack<ITEMS>(source, values);
  } else {
#pragma unroll
    for (int i = 0; i < ITEMS; i++) values[i] = i < valid ? ld(source[i]) : (acc_t)0;
  }
}

__device__ __forceinline__ void write(T* target, const acc_t (&values)[ITEMS], bool wide, int valid) {
  if (wide) {
    st_pack<ITEMS>(target, values);
  } else {
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
      if (i < valid) st(&target[i], values[i]);
  }
}

extern "C" __global__ void __launch_bounds__(256, 2)
    pool_three(const T* __restrict__ x, T* __restrict__ y, long long threads, int h, int w, int c) {
  index_t rest = global_index();
  if (rest >= threads) return;
  const int groups = (c + ITEMS - 1) / ITEMS, across = (w + COLUMNS - 1) / COLUMNS, down = (h + ROWS - 1) / ROWS;
  const int channel = (int)(rest % groups) * ITEMS;
  rest /= groups;
  const int left = (int)(rest % across) * COLUMNS;
  rest /= across;
  const int top = (int)(rest % down) * ROWS, bottom = min(h, top + ROWS);
  const index_t step = (index_t)w * c, start = rest / down * h * step + (index_t)left * c + channel;
  const bool wide = c % ITEMS == 0 && aligned16(x) && aligned16(y);
  const int valid = c - channel;

  acc_t column_weight[COLUMNS + 2];
#pragma unroll
  for (int t = 0; t < COLUMNS + 2; t++) column_weight[t] = reciprocal_count(left + t - 1, w, 1);
  acc_t older[COLUMNS][ITEMS], newer[COLUMNS][ITEMS], centre[COLUMNS][ITEMS];
#pragma unroll
  for (int t = 0; t < COLUMNS; t++)
#pragma unroll
    for (int i = 0; i < ITEMS; i++) older[t][i] = newer[t][i] = centre[t][i] = 0;

  for (int r = top - 1; r <= bottom; r++) {
    acc_t values[COLUMNS + 2][ITEMS], sums[COLUMNS][ITEMS];
    const bool inside = r >= 0 && r < h;
    const T* row = x + start + r * step;
#pragma unroll
    for (int t = 0; t < COLUMNS + 2; t++) {
      int column = left + t - 1;
      if (inside && column >= 0 && column < w) {
        read(row + (t - 1) * c, values[t], wide, valid);
      } else {
#pragma unroll
        for (int i = 0; i < ITEMS; i++) values[t][i] = 0;
      }
    }
    const acc_t row_weight = reciprocal_count(r, h, 1);
#pragma unroll
    for (int t = 0; t < COLUMNS; t++)
#pragma unroll
      for (int i = 0; i < ITEMS; i++)
#if BEFORE
        sums[t][i] = row_weight * (values[t][i] * column_weight[t] + values[t + 1][i] * column_weight[t + 1] +
                                   values[t + 2][i] * column_weight[t + 2]);
#else
        sums[t][i] = values[t][i] + values[t + 1][i] + values[t + 2][i];
#endif
    if (r > top) {
      T* target = y + start + (r - 1) * step;
#if !BEFORE
      const acc_t above_weight = reciprocal_count(r - 1, h, 1);
#endif
#pragma unroll
      for (int t = 0; t < COLUMNS; t++)
        if (left + t < w) {
          acc_t out[ITEMS];
#pragma unroll
          for (int i = 0; i < ITEMS; i++) {
            out[i] = older[t][i] + newer[t][i] + sums[t][i];
#if !BEFORE
            out[i] *= above_weight * column_weight[t + 1];
#endif
#if MINUS
            out[i] -= centre[t][i];
#endif
          }
          write(target + t * c, out, wide, valid);
        }
    }
#pragma unroll
    for (int t = 0; t < COLUMNS; t++)
#pragma unroll
      for (int i = 0; i < ITEMS; i++) {
        older[t][i] = newer[t][i];
        newer[t][i] = sums[t][i];
        centre[t][i] = values[t + 1][i];
      }
  }
}
#else
// Any window along one axis of (outer, n, inner): a thread per element adds up its window.
extern "C" __global__ void __launch_bounds__(256)
    pool_axis(const SOURCE* __restrict__ x, const T* __restrict__ own, TARGET* __restrict__ y, long long size, int n,
              long long inner, int reach) {
  index_t index = global_index();
  if (index >= size) return;
  const int i = (int)(index / inner % n);
  const SOURCE* line = x + (index - i * inner);
  const int first = reach < i ? i - reach : 0, last = reach < n - 1 - i ? i + reach : n - 1;
  acc_t total = 0;
  for (int k = first; k <= last; k++) {
    acc_t value = ld(line[k * inner]);
    total += BEFORE ? value * reciprocal_count(k, n, reach) : value;
  }
  if (!BEFORE) total *= reciprocal_count(i, n, reach);
#if MINUS
  total -= ld(own[index]);
#endif
  st(&y[index], total);
}
#endif
