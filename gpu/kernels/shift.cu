// Shifts of channel groups. x is (lines, n, inner, m, rest, c); channel j moves by shifts[j] along n and by
// shifts[c + j] along m. MODE 0: zeros come in from outside, 1: the border line repeats, 2: the axis is a ring.
#include "common.cuh"

struct place_t {
  int j;
  index_t i, k;  // positions along the two axes
};

__device__ __forceinline__ place_t place(index_t at, int n, index_t inner, int m, index_t rest, int c) {
  place_t p;
  p.j = at % c;
  index_t position = at / c;
  p.k = position / rest % m;
  p.i = position / (rest * m * inner) % n;
  return p;
}

// where position i reads; outside the axis if it reads nothing
__device__ __forceinline__ index_t read_from(index_t i, index_t s, int n) {
  index_t source = i - s;
#if MODE == 1
  source = source < 0 ? 0 : source > n - 1 ? n - 1 : source;
#elif MODE == 2
  source = (source % n + n) % n;
#endif
  return source;
}

// the positions first .. last - 1 that read position i
__device__ __forceinline__ void readers(index_t i, index_t s, int n, index_t* first, index_t* last) {
  index_t source = i + s;
#if MODE == 2
  source = (source % n + n) % n;
#endif
  *first = source < 0 ? 0 : source;
  *last = source + 1 > n ? n : source + 1;
#if MODE == 1
  // the border lines are also read by all that lie beyond them
  if (i == 0) *first = 0;
  if (i == n - 1) *last = n;
#endif
}

// y[i, k] = x[i - s, k - t]
extern "C" __global__ void __launch_bounds__(256)
    shift_forward(const T* __restrict__ x, T* __restrict__ y, const long long* __restrict__ shifts, int n,
                  long long inner, int m, long long rest, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  place_t p = place(at, n, inner, m, rest, c);
  index_t row = read_from(p.i, shifts[p.j], n), column = read_from(p.k, shifts[c + p.j], m);
  bool inside = row >= 0 && row < n && column >= 0 && column < m;
  y[at] = inside ? x[at + ((row - p.i) * inner * m + column - p.k) * rest * c] : T();
}

// dx[i, k] = sum of all dy that read it
extern "C" __global__ void __launch_bounds__(256)
    shift_backward(const T* __restrict__ dy, T* __restrict__ dx, const long long* __restrict__ shifts, int n,
                   long long inner, int m, long long rest, int c, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  place_t p = place(at, n, inner, m, rest, c);
  index_t first, last, left, right;
  readers(p.i, shifts[p.j], n, &first, &last);
  readers(p.k, shifts[c + p.j], m, &left, &right);
  acc_t total = 0;
  for (index_t row = first; row < last; row++)
    for (index_t column = left; column < right; column++)
      total += ld(dy[at + ((row - p.i) * inner * m + column - p.k) * rest * c]);
  st(&dx[at], total);
}
