// Norms with statistics over tokens. x is (items, rows, c); blockIdx = (item and block of rows, channels / 32).
// A block of 32 x 8 threads takes 32 channels: thread (i, k) walks the rows k, k + 8, ... of channel i.
#include "columns.cuh"

struct place_t {
  int channel, first, last;
  index_t start;  // of row 0 of this item and channel
  index_t per_channel, per_block;
  bool valid;
};

__device__ __forceinline__ place_t place(int rows, int c, int size, int blocks) {
  place_t p;
  int item = blockIdx.x / blocks;
  p.channel = blockIdx.y * LANES + threadIdx.x;
  p.valid = p.channel < c;
  p.first = blockIdx.x % blocks * size;
  p.last = min(rows, p.first + size);
  p.start = (index_t)item * rows * c + p.channel;
  p.per_channel = (index_t)item * c + p.channel;
  p.per_block = (index_t)blockIdx.x * c + p.channel;
  return p;
}

// mean and sum of centred squares of each block of rows
extern "C" __global__ void __launch_bounds__(256)
    moments(const T* __restrict__ x, acc_t* __restrict__ means, acc_t* __restrict__ squares, int rows, int c, int size,
            int blocks) {
  __shared__ acc_t scratch[STRIPES][LANES];
  place_t p = place(rows, c, size, blocks);
  acc_t total = 0;
  if (p.valid)
    for (int r = p.first + threadIdx.y; r < p.last; r += STRIPES) total += ld(x[p.start + (index_t)r * c]);
  acc_t mean = stripe_sum(total, scratch) / (acc_t)(p.last - p.first);
  acc_t square = 0, rest = 0;
  if (p.valid)
    for (int r = p.first + threadIdx.y; r < p.last; r += STRIPES) {
      acc_t centred = ld(x[p.start + (index_t)r * c]) - mean;
      square += centred * centred;
      rest += centred;
    }
  square = stripe_sum(square, scratch);
  rest = stripe_sum(rest, scratch);
  if (p.valid && threadIdx.y == 0) {
    // a large common offset costs the first mean digits; what it left over corrects both
    means[p.per_block] = mean + rest / (acc_t)(p.last - p.first);
    squares[p.per_block] = square - rest * rest / (acc_t)(p.last - p.first);
  }
}

// y = (x - centre) factor + bias
extern "C" __global__ void __launch_bounds__(256)
    normalise(const T* __restrict__ x, T* __restrict__ y, const acc_t* __restrict__ centre,
              const acc_t* __restrict__ factor, const acc_t* __restrict__ bias, int rows, int c, int size, int blocks) {
  place_t p = place(rows, c, size, blocks);
  if (!p.valid) return;
  acc_t m = centre[p.per_channel], f = factor[p.per_channel], b = bias[p.channel];
  for (int r = p.first + threadIdx.y; r < p.last; r += STRIPES) {
    index_t at = p.start + (index_t)r * c;
    st(&y[at], (ld(x[at]) - m) * f + b);
  }
}

// sums of dy and of dy n over each block of rows, n = (x - centre) rstd
extern "C" __global__ void __launch_bounds__(256)
    products(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ centre,
             const acc_t* __restrict__ rstd, acc_t* __restrict__ sums, acc_t* __restrict__ dots, int rows, int c,
             int size, int blocks) {
  __shared__ acc_t scratch[STRIPES][LANES];
  place_t p = place(rows, c, size, blocks);
  acc_t total = 0, dot = 0;
  if (p.valid) {
    acc_t m = centre[p.per_channel], scale = rstd[p.per_channel];
    for (int r = p.first + threadIdx.y; r < p.last; r += STRIPES) {
      index_t at = p.start + (index_t)r * c;
      acc_t d = ld(dy[at]);
      total += d;
      dot += d * ((ld(x[at]) - m) * scale);
    }
  }
  total = stripe_sum(total, scratch);
  dot = stripe_sum(dot, scratch);
  if (p.valid && threadIdx.y == 0) {
    sums[p.per_block] = total;
    dots[p.per_block] = dot;
  }
}

// dx = dy factor - shift - (x - centre) slope
extern "C" __global__ void __launch_bounds__(256)
    pull(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx, const acc_t* __restrict__ centre,
         const acc_t* __restrict__ factor, const acc_t* __restrict__ shift, const acc_t* __restrict__ slope, int rows,
         int c, int size, int blocks) {
  place_t p = place(rows, c, size, blocks);
  if (!p.valid) return;
  acc_t m = centre[p.per_channel], f = factor[p.per_channel], s = shift[p.per_channel], k = slope[p.per_channel];
  for (int r = p.first + threadIdx.y; r < p.last; r += STRIPES) {
    index_t at = p.start + (index_t)r * c;
    st(&dx[at], ld(dy[at]) * f - s - (ld(x[at]) - m) * k);
  }
}
