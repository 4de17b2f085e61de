// Sums down the columns of a matrix (rows, columns) in a fixed order. blockIdx = (block of rows, columns / 32); in
// a block of 32 x 8 threads, thread (i, k) walks the rows k, k + 8, ... of column i.
#pragma once
#include "common.cuh"

constexpr int LANES = 32, STRIPES = 8;

struct strip_t {
  int column;
  index_t first, last;  // rows of the block
  index_t target;       // where the block's sum of this column belongs in a table (blocks, columns)
  bool valid;
};

__device__ __forceinline__ strip_t strip(index_t rows, int columns, int block) {
  strip_t s;
  s.column = blockIdx.y * LANES + threadIdx.x;
  s.valid = s.column < columns;
  s.first = (index_t)blockIdx.x * block;
  s.last = s.first + block < rows ? s.first + block : rows;
  s.target = (index_t)blockIdx.x * columns + s.column;
  return s;
}

// sum over the stripes of a column, the same bits in every thread of it; scratch may be used again at once
__device__ __forceinline__ acc_t stripe_sum(acc_t value, acc_t (*scratch)[LANES]) {
  scratch[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  acc_t total = 0;
  for (int k = 0; k < STRIPES; k++) total += scratch[k][threadIdx.x];
  __syncthreads();
  return total;
}
