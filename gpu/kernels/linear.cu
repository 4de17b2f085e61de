// What linear maps need besides the matrix product: adding the bias, the activation, and the bias' gradient.
#include "columns.cuh"

#define JOIN_NAMES(left, right) left##right
#define JOIN(left, right) JOIN_NAMES(left, right)

constexpr int ITEMS = 16 / sizeof(acc_t), ROWS = 64;

// y = f(product + bias) for (rows, columns): the bias, if any, goes with the column or, by_row, with the row modulo n.
// f is the function of common.cuh that ACTIVATION names, if it does; then the sum itself goes to `before`, if that is
// not null. A block of 32 x 8 threads takes 64 rows of 32 wide accesses; such blocks go along a row first.
struct epilogue_t {
  const acc_t *product, *bias;
  T *before, *y;
  index_t rows, columns;
  int n;
  bool by_row;
};

template <int count>
__device__ __forceinline__ void finish_columns(const epilogue_t& e, index_t block, index_t column) {
  acc_t values[count], offsets[count];
#pragma unroll
  for (int i = 0; i < count; i++) offsets[i] = e.by_row || !e.bias ? (acc_t)0 : e.bias[column + i];
  index_t first = block * ROWS, last = first + ROWS < e.rows ? first + ROWS : e.rows;
  for (index_t row = first + threadIdx.y; row < last; row += STRIPES) {
    acc_t offset = e.by_row && e.bias ? e.bias[row % e.n] : (acc_t)0;
    ld_pack<count>(e.product + row * e.columns + column, values);
#pragma unroll
    for (int i = 0; i < count; i++) values[i] += offsets[i] + offset;
#ifdef ACTIVATION
    if (e.before) st_pack<count>(e.before + row * e.columns + column, values);
#pragma unroll
    for (int i = 0; i < count; i++) values[i] = JOIN(value_, ACTIVATION)(values[i]);
#endif
    st_pack<count>(e.y + row * e.columns + column, values);
  }
}

// product may be y or before itself
extern "C" __global__ void __launch_bounds__(256)
    finish(const acc_t* product, const acc_t* __restrict__ bias, T* before, T* y, long long rows, long long columns,
           int n, bool by_row) {
  const epilogue_t e = {product, bias, before, y, rows, columns, n, by_row};
  const index_t across = (columns + LANES * ITEMS - 1) / (LANES * ITEMS), block = blockIdx.x / across;
  const index_t start = (blockIdx.x % across * LANES + threadIdx.x) * ITEMS;
  if (columns % ITEMS == 0) {
    if (start < columns) finish_columns<ITEMS>(e, block, start);
  } else {
    for (index_t column = start; column < columns && column < start + ITEMS; column++)
      finish_columns<1>(e, block, column);
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
