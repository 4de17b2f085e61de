// Unary functions over flat arrays: OP is the name of a value_ and a slope_ function of common.cuh.
// A thread takes the items of one 16-byte access; arrays that are not aligned to that go item by item.
#include "common.cuh"

#define JOIN_NAMES(left, right) left##right
#define JOIN(left, right) JOIN_NAMES(left, right)

constexpr int ITEMS = 16 / sizeof(T);

// y = f(x)
extern "C" __global__ void __launch_bounds__(256)
    unary_forward(const T* __restrict__ x, T* __restrict__ y, long long n) {
  index_t start = global_index() * ITEMS;
  if (start + ITEMS <= n && aligned16(x) && aligned16(y)) {
    acc_t values[ITEMS];
    ld_pack<ITEMS>(x + start, values);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) values[i] = JOIN(value_, OP)(values[i]);
    st_pack<ITEMS>(y + start, values);
  } else {
    for (index_t i = start; i < n && i < start + ITEMS; i++) st(&y[i], JOIN(value_, OP)(ld(x[i])));
  }
}

// dx = dy f'(x)
extern "C" __global__ void __launch_bounds__(256)
    unary_backward(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, long long n) {
  index_t start = global_index() * ITEMS;
  if (start + ITEMS <= n && aligned16(dy) && aligned16(x) && aligned16(dx)) {
    acc_t values[ITEMS], cotangents[ITEMS];
    ld_pack<ITEMS>(x + start, values);
    ld_pack<ITEMS>(dy + start, cotangents);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) values[i] = cotangents[i] * JOIN(slope_, OP)(values[i]);
    st_pack<ITEMS>(dx + start, values);
  } else {
    for (index_t i = start; i < n && i < start + ITEMS; i++)
      st(&dx[i], ld(dy[i]) * JOIN(slope_, OP)(ld(x[i])));
  }
}
