// Long convolution: the direct form for short filters, and what surrounds cuFFT for long ones.
// Filters and their spectra are of the computing type, x and y of the storage type T.
#include "common.cuh"

// ---- direct form: a thread owns TILE neighbouring tokens (or taps) of one channel, so that 2 TILE loads
// serve TILE * TILE products. Channels are the lanes; nothing is shared, L1 holds what neighbours reread.
constexpr int TILE = 16;

// token t of a channel, zero outside the sequence
__device__ __forceinline__ acc_t token(const T* x, index_t t, index_t length, index_t step) {
  return t >= 0 && t < length ? ld(x[t * step]) : acc_t(0);
}

// y[n] = sum_j h[j] x[n - j] + D x[n] over j = first .. first + taps - 1.
// Backwards in time (step < 0, x and y at the last token) this is the adjoint in x.
extern "C" __global__ void __launch_bounds__(128)
    direct_forward(const T* __restrict__ x, const acc_t* __restrict__ h, const acc_t* __restrict__ skip,
                   T* __restrict__ y, long long length, long long taps, long long first, int c, int backwards) {
  int groups_of_channels = (c + 31) / 32;
  index_t tiles = (length + TILE - 1) / TILE, groups_of_tiles = (tiles + blockDim.y - 1) / blockDim.y;
  int channel = (int)(blockIdx.x % groups_of_channels) * 32 + threadIdx.x;
  index_t n0 = (blockIdx.x / groups_of_channels % groups_of_tiles * blockDim.y + threadIdx.y) * TILE;
  index_t item = blockIdx.x / groups_of_channels / groups_of_tiles;
  if (channel >= c || n0 >= length) return;
  index_t step = backwards ? -c : c, start = (item * length + (backwards ? length - 1 : 0)) * c + channel;
  const T* line = x + start;

  // taps that meet tokens inside the sequence
  index_t begin = max(first, n0 - length + 1), end = min(first + taps, n0 + TILE);
  acc_t sums[TILE], low[TILE], high[TILE];
#pragma unroll
  for (int r = 0; r < TILE; r++) {
    sums[r] = 0;
    high[r] = token(line, n0 - begin + r, length, step);
  }
  for (index_t j = begin; j < end; j += TILE) {
#pragma unroll
    for (int r = 0; r < TILE; r++) low[r] = token(line, n0 - j - TILE + r, length, step);
    const acc_t* weights = h + (j - first) * c + channel;
#pragma unroll
    for (int u = 0; u < TILE; u++) {
      // a tap beyond the end must not meet a token at all: zero times NaN is NaN
      if (j + u < end) {
        acc_t weight = weights[(index_t)u * c];
#pragma unroll
        for (int r = 0; r < TILE; r++) sums[r] += weight * (r >= u ? high[r - u] : low[TILE + r - u]);
      }
    }
#pragma unroll
    for (int r = 0; r < TILE; r++) high[r] = low[r];
  }
  acc_t weight = skip ? skip[channel] : acc_t(0);
#pragma unroll
  for (int r = 0; r < TILE; r++) {
    if (n0 + r < length) {
      index_t at = (n0 + r) * step;
      st(&y[start + at], skip ? sums[r] + weight * ld(line[at]) : sums[r]);
    }
  }
}

// dh[j] = sum_n dy[n] x[n - j] over the tokens of one chunk of one batch item: partial (items * chunks, taps, c)
extern "C" __global__ void __launch_bounds__(128)
    direct_filter_gradient(const T* __restrict__ x, const T* __restrict__ dy, acc_t* __restrict__ partial,
                           long long length, long long chunk, long long taps, long long first, int c) {
  int groups_of_channels = (c + 31) / 32;
  index_t tiles = (taps + TILE - 1) / TILE, groups_of_tiles = (tiles + blockDim.y - 1) / blockDim.y;
  index_t chunks = (length + chunk - 1) / chunk;
  int channel = (int)(blockIdx.x % groups_of_channels) * 32 + threadIdx.x;
  index_t tap = (blockIdx.x / groups_of_channels % groups_of_tiles * blockDim.y + threadIdx.y) * TILE;
  index_t part = blockIdx.x / groups_of_channels / groups_of_tiles;
  if (channel >= c || tap >= taps) return;
  index_t start = part / chunks * length * c + channel, j0 = tap + first;
  const T* line = x + start;
  index_t begin = part % chunks * chunk, end = min(begin + chunk, length);

  acc_t sums[TILE], low[TILE], high[TILE];
#pragma unroll
  for (int r = 0; r < TILE; r++) {
    sums[r] = 0;
    low[r] = token(line, begin - j0 - TILE + r, length, c);
  }
  for (index_t n = begin; n < end; n += TILE) {
#pragma unroll
    for (int r = 0; r < TILE; r++) high[r] = token(line, n - j0 + r, length, c);
#pragma unroll
    for (int u = 0; u < TILE; u++) {
      if (n + u < end) {
        acc_t cotangent = ld(dy[start + (n + u) * c]);
#pragma unroll
        for (int r = 0; r < TILE; r++) sums[r] += cotangent * (u >= r ? high[u - r] : low[TILE + u - r]);
      }
    }
#pragma unroll
    for (int r = 0; r < TILE; r++) low[r] = high[r];
  }
#pragma unroll
  for (int r = 0; r < TILE; r++)
    if (tap + r < taps) partial[(part * taps + tap + r) * c + channel] = sums[r];
}

// ---- around the transforms: between (items, length, c) and lines (items, c, n) along the tokens.
// Row t of the first form is place (t + offset) mod n of a line. Tiles of 32 x 32 turn in shared memory.

// lines from rows; places without a row become zero
extern "C" __global__ void __launch_bounds__(256)
    to_lines(const ROWS_T* __restrict__ rows, acc_t* __restrict__ lines, long long length, long long n,
             long long offset, int c) {
  __shared__ acc_t tile[32][33];
  int groups_of_channels = (c + 31) / 32;
  index_t groups = (n + 31) / 32;
  int channel = (int)(blockIdx.x % groups_of_channels) * 32;
  index_t place = blockIdx.x / groups_of_channels % groups * 32;
  index_t item = blockIdx.x / groups_of_channels / groups;
  for (int i = threadIdx.y; i < 32; i += blockDim.y) {
    index_t t = place + i - offset;
    if (t < 0) t += n;
    bool inside = t < length && place + i < n && channel + threadIdx.x < c;
    tile[i][threadIdx.x] = inside ? ld(rows[(item * length + t) * c + channel + threadIdx.x]) : acc_t(0);
  }
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += blockDim.y)
    if (channel + i < c && place + threadIdx.x < n)
      lines[(item * c + channel + i) * n + place + threadIdx.x] = tile[threadIdx.x][i];
}

// rows from lines, plus skip times the rows of x
extern "C" __global__ void __launch_bounds__(256)
    to_rows(const acc_t* __restrict__ lines, const ROWS_T* __restrict__ x, const acc_t* __restrict__ skip,
            ROWS_T* __restrict__ rows, long long length, long long n, long long offset, int c) {
  __shared__ acc_t tile[32][33];
  int groups_of_channels = (c + 31) / 32;
  index_t groups = (length + 31) / 32;
  int channel = (int)(blockIdx.x % groups_of_channels) * 32;
  index_t row = blockIdx.x / groups_of_channels % groups * 32;
  index_t item = blockIdx.x / groups_of_channels / groups;
  index_t place = row + threadIdx.x + offset;
  if (place >= n) place -= n;
  for (int i = threadIdx.y; i < 32; i += blockDim.y) {
    bool inside = channel + i < c && row + threadIdx.x < length;
    tile[threadIdx.x][i] = inside ? lines[(item * c + channel + i) * n + place] : acc_t(0);
  }
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += blockDim.y) {
    if (row + i < length && channel + threadIdx.x < c) {
      index_t at = (item * length + row + i) * c + channel + threadIdx.x;
      acc_t value = tile[i][threadIdx.x];
      st(&rows[at], skip ? value + skip[channel + threadIdx.x] * ld(x[at]) : value);
    }
  }
}

struct __align__(2 * sizeof(acc_t)) complex_t {
  acc_t re, im;
};

// X[item] <- X[item] H for the spectra of all lines, H shared by the items
extern "C" __global__ void __launch_bounds__(256)
    multiply_spectra(complex_t* __restrict__ spectra, const complex_t* __restrict__ filter, long long size,
                     int items) {
  index_t at = global_index();
  if (at >= size) return;
  complex_t f = filter[at];
  for (index_t i = at; i < items * size; i += size) {
    complex_t z = spectra[i];
    spectra[i] = {z.re * f.re - z.im * f.im, z.re * f.im + z.im * f.re};
  }
}

// G[item] <- G[item] conj(H), H <- sum over the items of G conj(X), in their order
extern "C" __global__ void __launch_bounds__(256)
    multiply_gradients(complex_t* __restrict__ gradients, const complex_t* __restrict__ spectra,
                       const complex_t* __restrict__ filter, complex_t* __restrict__ filter_gradient,
                       long long size, int items) {
  index_t at = global_index();
  if (at >= size) return;
  complex_t f = filter[at], sum = {0, 0};
  for (index_t i = at; i < items * size; i += size) {
    complex_t g = gradients[i], z = spectra[i];
    sum.re += g.re * z.re + g.im * z.im;
    sum.im += g.im * z.re - g.re * z.im;
    gradients[i] = {g.re * f.re + g.im * f.im, g.im * f.re - g.re * f.im};
  }
  filter_gradient[at] = sum;
}
