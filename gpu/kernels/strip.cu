// Biases by the distance of a token from the diagonal of its grid: table row clip(column - row, -reach, reach) + reach.
#include "common.cuh"

// y = x + table[distance]
extern "C" __global__ void __launch_bounds__(256)
    add_diagonals(const T* __restrict__ x, const acc_t* __restrict__ table, T* __restrict__ y, int h, int w, int c,
                  int reach, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, k = at / c % w, i = at / c / w % h;
  int distance = min(max(k - i, -reach), reach) + reach;
  st(&y[at], ld(x[at]) + table[(index_t)distance * c + j]);
}

// dtable[row] = sum of dy over the tokens of its diagonal, dy summed over the batch before; the ends of the table
// also hold what is farther
extern "C" __global__ void __launch_bounds__(256)
    sum_diagonals(const T* __restrict__ dy, T* __restrict__ dtable, int h, int w, int c, int reach, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int j = at % c, distance = (int)(at / c) - reach;
  acc_t total = 0;
  for (int i = 0; i < h; i++) {
    int first = distance == -reach ? 0 : max(i + distance, 0);
    int last = distance == reach ? w : min(i + distance + 1, w);
    for (int k = first; k < last; k++) total += ld(dy[((index_t)i * w + k) * c + j]);
  }
  st(&dtable[at], total);
}
