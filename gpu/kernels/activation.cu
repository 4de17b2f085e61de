// StarReLU, y = s max(x, 0)^2 + t, and gates, y = act(x) z. A thread takes the items of one 16-byte access;
// arrays that are not aligned to that go item by item.
#include "common.cuh"

#define JOIN_NAMES(left, right) left##right
#define JOIN(left, right) JOIN_NAMES(left, right)

constexpr int ITEMS = 16 / sizeof(T);

// no activation
template <class real>
__device__ __forceinline__ real value_none(real x) { return x; }
template <class real>
__device__ __forceinline__ real slope_none(real) { return real(1); }

#ifndef OP
#define OP none
#endif

// scale and bias may be null
extern "C" __global__ void __launch_bounds__(256)
    star_relu_forward(const T* __restrict__ x, const acc_t* __restrict__ scale, const acc_t* __restrict__ bias,
                      T* __restrict__ y, long long n) {
  acc_t s = scale ? *scale : (acc_t)1, t = bias ? *bias : (acc_t)0;
  index_t start = global_index() * ITEMS;
  if (start + ITEMS <= n && aligned16(x) && aligned16(y)) {
    acc_t values[ITEMS];
    ld_pack<ITEMS>(x + start, values);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
      acc_t r = value_relu(values[i]);
      values[i] = s * (r * r) + t;
    }
    st_pack<ITEMS>(y + start, values);
  } else {
    for (index_t i = start; i < n && i < start + ITEMS; i++) {
      acc_t r = value_relu(ld(x[i]));
      st(&y[i], s * (r * r) + t);
    }
  }
}

// dx = 2 s r dy, and per block the sums of dy r^2 and of dy; sums may be null. A block takes ROUNDS times as many
// items as its threads have in one access.
constexpr int ROUNDS = 8;

extern "C" __global__ void __launch_bounds__(256)
    star_relu_backward(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ scale,
                       T* __restrict__ dx, acc_t* __restrict__ sums, long long n) {
  __shared__ acc_t scratch[8];
  acc_t s = scale ? *scale : (acc_t)1, squares = 0, total = 0;
  bool wide = aligned16(x) && aligned16(dy) && aligned16(dx);
  for (int round = 0; round < ROUNDS; round++) {
    index_t start = (((index_t)blockIdx.x * ROUNDS + round) * blockDim.x + threadIdx.x) * ITEMS;
    if (start + ITEMS <= n && wide) {
      acc_t values[ITEMS], cotangents[ITEMS];
      ld_pack<ITEMS>(x + start, values);
      ld_pack<ITEMS>(dy + start, cotangents);
#pragma unroll
      for (int i = 0; i < ITEMS; i++) {
        acc_t r = value_relu(values[i]);
        squares += cotangents[i] * (r * r);
        total += cotangents[i];
        values[i] = (acc_t)2 * s * (r * cotangents[i]);
      }
      st_pack<ITEMS>(dx + start, values);
    } else {
      for (index_t i = start; i < n && i < start + ITEMS; i++) {
        acc_t r = value_relu(ld(x[i])), d = ld(dy[i]);
        squares += d * (r * r);
        total += d;
        st(&dx[i], (acc_t)2 * s * (r * d));
      }
    }
  }
  if (!sums) return;
  squares = block_sum(squares, scratch);
  total = block_sum(total, scratch);
  if (threadIdx.x == 0) {
    sums[2 * (index_t)blockIdx.x] = squares;
    sums[2 * (index_t)blockIdx.x + 1] = total;
  }
}

// Gates read rows of c items that lie x_row, z_row, ... items apart; results are contiguous.
extern "C" __global__ void __launch_bounds__(256)
    gate_forward(const T* __restrict__ x, const T* __restrict__ z, T* __restrict__ y, long long n, long long c,
                 long long x_row, long long z_row) {
  index_t start = global_index() * ITEMS;
  if (start >= n) return;
  if ((c | x_row | z_row) % ITEMS == 0 && aligned16(x) && aligned16(z) && aligned16(y)) {
    index_t row = start / c, column = start - row * c;
    acc_t values[ITEMS], factors[ITEMS];
    ld_pack<ITEMS>(x + row * x_row + column, values);
    ld_pack<ITEMS>(z + row * z_row + column, factors);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) values[i] = JOIN(value_, OP)(values[i]) * factors[i];
    st_pack<ITEMS>(y + start, values);
  } else {
    for (index_t i = start; i < n && i < start + ITEMS; i++) {
      index_t row = i / c, column = i - row * c;
      st(&y[i], JOIN(value_, OP)(ld(x[row * x_row + column])) * ld(z[row * z_row + column]));
    }
  }
}

// dx = dy z act'(x), dz = dy act(x)
extern "C" __global__ void __launch_bounds__(256)
    gate_backward(const T* __restrict__ x, const T* __restrict__ z, const T* __restrict__ dy, T* __restrict__ dx,
                  T* __restrict__ dz, long long n, long long c, long long x_row, long long z_row,
                  long long dy_row) {
  index_t start = global_index() * ITEMS;
  if (start >= n) return;
  if ((c | x_row | z_row | dy_row) % ITEMS == 0 && aligned16(x) && aligned16(z) && aligned16(dy) && aligned16(dx) &&
      aligned16(dz)) {
    index_t row = start / c, column = start - row * c;
    acc_t values[ITEMS], factors[ITEMS], cotangents[ITEMS];
    ld_pack<ITEMS>(x + row * x_row + column, values);
    ld_pack<ITEMS>(z + row * z_row + column, factors);
    ld_pack<ITEMS>(dy + row * dy_row + column, cotangents);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
      factors[i] *= cotangents[i] * JOIN(slope_, OP)(values[i]);
      values[i] = cotangents[i] * JOIN(value_, OP)(values[i]);
    }
    st_pack<ITEMS>(dx + start, factors);
    st_pack<ITEMS>(dz + start, values);
  } else {
    for (index_t i = start; i < n && i < start + ITEMS; i++) {
      index_t row = i / c, column = i - row * c;
      acc_t value = ld(x[row * x_row + column]), d = ld(dy[row * dy_row + column]);
      st(&dx[i], d * JOIN(slope_, OP)(value) * ld(z[row * z_row + column]));
      st(&dz[i], d * JOIN(value_, OP)(value));
    }
  }
}
