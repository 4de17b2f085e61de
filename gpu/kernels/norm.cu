// Norms over channels. A warp takes a token and sweeps over its channels, which stay in the first-level cache.
// CENTRED is 1 for layer norm and 0 for the root-mean-square norm, whose means are 0. scale and bias may be null.
#include "columns.cuh"

constexpr int ITEMS = 16 / sizeof(T);

// f(place) for the channels of a token, `count` at a time, the lanes side by side
template <int count, class function>
__device__ __forceinline__ void sweep(int c, function f) {
  for (int j = threadIdx.x * count; j < c; j += 32 * count) f(j);
}

template <int count>
__device__ __forceinline__ void normalise_token(const T* x, const acc_t* scale, const acc_t* bias, T* y,
                                                acc_t* mean_out, acc_t* rstd_out, int c, acc_t eps) {
  acc_t values[count], mean = 0, square = 0;
#if CENTRED
  acc_t total = 0;
  sweep<count>(c, [&](int j) {
    ld_pack<count>(x + j, values);
#pragma unroll
    for (int i = 0; i < count; i++) total += values[i];
  });
  mean = warp_sum(total) / (acc_t)c;
#endif
  sweep<count>(c, [&](int j) {
    ld_pack<count>(x + j, values);
#pragma unroll
    for (int i = 0; i < count; i++) square += (values[i] - mean) * (values[i] - mean);
  });
  acc_t rstd = (acc_t)1 / sqrt(warp_sum(square) / (acc_t)c + eps);
  if (threadIdx.x == 0) {
#if CENTRED
    *mean_out = mean;
#endif
    *rstd_out = rstd;
  }
  sweep<count>(c, [&](int j) {
    ld_pack<count>(x + j, values);
#pragma unroll
    for (int i = 0; i < count; i++) {
      acc_t value = (values[i] - mean) * rstd;
      if (scale) value *= scale[j + i];
      values[i] = bias ? value + bias[j + i] : value;
    }
    st_pack<count>(y + j, values);
  });
}

// y = n scale + bias, n = (x - mean) rstd. Block of 32 x 8 threads.
extern "C" __global__ void __launch_bounds__(256)
    normalise(const T* __restrict__ x, const acc_t* __restrict__ scale, const acc_t* __restrict__ bias,
              T* __restrict__ y, acc_t* __restrict__ mean, acc_t* __restrict__ rstd, long long tokens, int c,
              double eps) {
  index_t token = (index_t)blockIdx.x * blockDim.y + threadIdx.y, start = token * c;
  if (token >= tokens) return;
  if (c % ITEMS == 0 && aligned16(x) && aligned16(y))
    normalise_token<ITEMS>(x + start, scale, bias, y + start, mean + token, rstd + token, c, (acc_t)eps);
  else
    normalise_token<1>(x + start, scale, bias, y + start, mean + token, rstd + token, c, (acc_t)eps);
}

template <int count>
__device__ __forceinline__ void pull_token(const T* x, const T* dy, const acc_t* scale, T* dx, acc_t mean, acc_t rstd,
                                           int c) {
  acc_t values[count], cotangents[count], total = 0, product = 0;
  sweep<count>(c, [&](int j) {
    ld_pack<count>(x + j, values);
    ld_pack<count>(dy + j, cotangents);
#pragma unroll
    for (int i = 0; i < count; i++) {
      acc_t q = scale ? cotangents[i] * scale[j + i] : cotangents[i];
      total += q;
      product += q * ((values[i] - mean) * rstd);
    }
  });
  acc_t shift = CENTRED ? warp_sum(total) / (acc_t)c : (acc_t)0, slope = warp_sum(product) / (acc_t)c;
  sweep<count>(c, [&](int j) {
    ld_pack<count>(x + j, values);
    ld_pack<count>(dy + j, cotangents);
#pragma unroll
    for (int i = 0; i < count; i++) {
      acc_t q = scale ? cotangents[i] * scale[j + i] : cotangents[i];
      values[i] = (q - shift - (values[i] - mean) * rstd * slope) * rstd;
    }
    st_pack<count>(dx + j, values);
  });
}

// dx = rstd (q - mean(q) - n mean(q n)), q = dy scale. Block of 32 x 8 threads.
extern "C" __global__ void __launch_bounds__(256)
    pull(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ scale,
         const acc_t* __restrict__ mean, const acc_t* __restrict__ rstd, T* __restrict__ dx, long long tokens, int c) {
  index_t token = (index_t)blockIdx.x * blockDim.y + threadIdx.y, start = token * c;
  if (token >= tokens) return;
  acc_t middle = CENTRED ? mean[token] : (acc_t)0;
  if (c % ITEMS == 0 && aligned16(x) && aligned16(dy) && aligned16(dx))
    pull_token<ITEMS>(x + start, dy + start, scale, dx + start, middle, rstd[token], c);
  else
    pull_token<1>(x + start, dy + start, scale, dx + start, middle, rstd[token], c);
}

// sums of dy n and of dy over each block of tokens, per channel
extern "C" __global__ void __launch_bounds__(256)
    parameter_sums(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ mean,
                   const acc_t* __restrict__ rstd, acc_t* __restrict__ dots, acc_t* __restrict__ sums, long long tokens,
                   int c, int block) {
  __shared__ acc_t scratch[STRIPES][LANES];
  strip_t s = strip(tokens, c, block);
  acc_t dot = 0, total = 0;
  if (s.valid)
    for (index_t token = s.first + threadIdx.y; token < s.last; token += STRIPES) {
      acc_t d = ld(dy[token * c + s.column]), middle = CENTRED ? mean[token] : (acc_t)0;
      dot += d * ((ld(x[token * c + s.column]) - middle) * rstd[token]);
      total += d;
    }
  dot = stripe_sum(dot, scratch);
  total = stripe_sum(total, scratch);
  if (s.valid && threadIdx.y == 0) {
    dots[s.target] = dot;
    sums[s.target] = total;
  }
}
