// Shifts of channel groups. x is (lines, n, inner, c); channel j moves by shifts[j] along n.
// MODE 0: zeros come in from outside, 1: the border line repeats, 2: the axis is a ring.
#include "common.cuh"

// y[i] = x[i - s]
extern "C" __global__ void __launch_bounds__(256)
    shift_forward(const T* __restrict__ x, T* __restrict__ y, const long long* __restrict__ shifts, int n,
                  long long inner, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c;
  index_t position = at / c, i = position / inner % n;
  index_t source = i - shifts[j];
#if MODE == 1
  source = source < 0 ? 0 : source > n - 1 ? n - 1 : source;
#elif MODE == 2
  source = (source % n + n) % n;
#endif
  bool inside = source >= 0 && source < n;
  y[at] = inside ? x[at + (source - i) * inner * c] : T();
}

// dx[m] = sum of all dy[i] that read line m
extern "C" __global__ void __launch_bounds__(256)
    shift_backward(const T* __restrict__ dy, T* __restrict__ dx, const long long* __restrict__ shifts, int n,
                   long long inner, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c;
  index_t position = at / c, m = position / inner % n;
  index_t first = m + shifts[j];
#if MODE == 2
  first = (first % n + n) % n;
#endif
  index_t last = first + 1;
#if MODE == 1
  // the border lines are also read by all that lie beyond them
  if (m == 0) first = 0;
  if (m == n - 1) last = n;
#endif
  first = first < 0 ? 0 : first;
  last = last > n ? n : last;
  acc_t total = 0;
  for (index_t i = first; i < last; i++) total += ld(dy[at + (i - m) * inner * c]);
  st(&dx[at], total);
}
