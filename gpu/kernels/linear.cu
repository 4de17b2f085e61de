// What linear maps need besides the matrix product: adding the bias, and its gradient.
#include "columns.cuh"

constexpr int ITEMS = 16 / sizeof(acc_t), ROWS = 64;

template <int count>
__device__ __forceinline__ void add_to_columns(const acc_t* product, const acc_t* bias, T* y, index_t rows,
                                               index_t columns, int n, bool by_row, index_t block, index_t column) {
  acc_t values[count], offsets[count];
#pragma unroll
  for (int i = 0; i < count; i++) offsets[i] = by_row ? (acc_t)0 : bias[column + i];
  index_t first = block * ROWS, last = first + ROWS < rows ? first + ROWS : rows;
  for (index_t row = first + threadIdx.y; row < last; row += STRIPES) {
    acc_t offset = by_row ? bias[row % n] : (acc_t)0;
    ld_pack<count>(product + row * columns + column, values);
#pragma unroll
    for (int i = 0; i < count; i++) values[i] += offsets[i] + offset;
    st_pack<count>(y + row * columns + column, values);
  }
}

// y = product + bias for (rows, columns): the bias goes with the column or, by_row, with the row modulo n. product
// may be y itself. A block of 32 x 8 threads takes 64 rows of 32 wide accesses; such blocks go along a row first.
extern "C" __global__ void __launch_bounds__(256)
    add_bias(const acc_t* product, const acc_t* __restrict__ bias, T* y, long long rows, long long columns, int n,
             bool by_row) {
  const index_t across = (columns + LANES * ITEMS - 1) / (LANES * ITEMS), block = blockIdx.x / across;
  const index_t start = (blockIdx.x % across * LANES + threadIdx.x) * ITEMS;
  if (columns % ITEMS == 0) {
    if (start < columns) add_to_columns<ITEMS>(product, bias, y, rows, columns, n, by_row, block, start);
  } else {
    for (index_t column = start; column < columns && column < start + ITEMS; column++)
      add_to_columns<1>(product, bias, y, rows, columns, n, by_row, block, column);
  }
}

// sums of each block of rows down the columns
extern "C" __global__ void __launch_bounds__(256)
    column_sums(const T* __restrict__ x, acc_t* __restrict__ sums, long long rows, int columns, int block) {
  __shared__ acc_t scratch[STRIPES][LANES];
  strip_t s = strip(rows, columns, block);
  acc_t total = 0;
  if (s.valid)
    for (index_t row = s.first + threadIdx.y; row < s.last; row += STRIPES) total += ld(x[row * columns + s.column]);
  total = stripe_sum(total, scratch);
  if (s.valid && threadIdx.y == 0) sums[s.target] = total;
}

// the sum of each row; a warp per row
extern "C" __global__ void __launch_bounds__(256)
    row_sums(const T* __restrict__ x, acc_t* __restrict__ sums, long long rows, long long columns) {
  index_t row = (index_t)blockIdx.x * STRIPES + threadIdx.y;
  acc_t total = 0;
  if (row < rows)
    for (index_t column = threadIdx.x; column < columns; column += LANES) total += ld(x[row * columns + column]);
  total = warp_sum(total);
  if (row < rows && threadIdx.x == 0) sums[row] = total;
}
