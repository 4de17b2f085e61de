// Kolmogorov-Arnold layers: products with an expansion that exists in tiles of shared memory only. Feature k = i g + f
// is function f of input i. Tiles are 64 x 64, with 4 x 4 of them per thread of 16 x 16; x is (m, i), w (i g, o).
//
// With WINDOWS the rows are the windows of an image, whose inputs (tap, channel) are read where they are. In the
// gradient of x the rows are its pixels, and dy (tap, output) is read at the windows that hold the pixel.
//
// Macros: T storage type; BASIS 0 B-splines of degree ORDER, 1 Fourier, 2 radial, 3 Chebyshev, 4 ReLU, 5 SiLU; WINDOWS.
#include "angles.cuh"

constexpr int TILE = 64, DEPTH = 64 / sizeof(acc_t), PITCH = TILE + 4, THREADS = 256;

struct sizes_t {
  index_t m;
  int i, g, o;
  int step;  // from input to input in what the basis has: 0 if it is the same for all
  int order;
  int h, w, c, down, across, size, stride, padding;  // with WINDOWS: image, windows
};

#ifdef WINDOWS

// input i = (tap, channel) of a window; zero beyond the image
__device__ __forceinline__ acc_t input(const T* __restrict__ x, const sizes_t& s, index_t row, int i) {
  int tap = i / s.c, q = row % s.across;
  index_t above = row / s.across, item = above / s.down;
  int y = (int)(above % s.down) * s.stride + tap / s.size - s.padding, z = q * s.stride + tap % s.size - s.padding;
  bool inside = y >= 0 && y < s.h && z >= 0 && z < s.w;
  return inside ? ld(x[((item * s.h + y) * s.w + z) * s.c + i % s.c]) : acc_t(0);
}

// dy (tap, output) of a pixel: of the window in which the pixel is at this tap; zero if there is none
__device__ __forceinline__ acc_t cotangent(const T* __restrict__ dy, const sizes_t& s, index_t pixel, int c) {
  int outputs = s.o / (s.size * s.size), tap = c / outputs;
  index_t above = pixel / s.w, item = above / s.h;
  int y = (int)(above % s.h) + s.padding - tap / s.size, z = (int)(pixel % s.w) + s.padding - tap % s.size;
  int p = y / s.stride, q = z / s.stride;
  bool found = y >= 0 && z >= 0 && p * s.stride == y && q * s.stride == z && p < s.down && q < s.across;
  return found ? ld(dy[((item * s.down + p) * s.across + q) * outputs + c % outputs]) : acc_t(0);
}

#else

__device__ __forceinline__ acc_t input(const T* __restrict__ x, const sizes_t& s, index_t row, int i) {
  return ld(x[row * s.i + i]);
}

__device__ __forceinline__ acc_t cotangent(const T* __restrict__ dy, const sizes_t& s, index_t row, int c) {
  return ld(dy[row * s.o + c]);
}

#endif

struct basis_t {
  const acc_t *first, *second;
  int step, g;
  acc_t rho;

  __device__ __forceinline__ basis_t(const acc_t* first, const acc_t* second, const sizes_t& s)
      : first(first), second(second), step(s.step), g(s.g),
        rho(acc_t(4) * (s.g - s.order) * (s.g - s.order) / (acc_t(s.order + 1) * (s.order + 1))) {}
};

// ---- the functions. put(f, value) is called once for every f of [from, to).

#if BASIS == 0

// index of the interval that holds x, or -1
__device__ __forceinline__ int interval(const acc_t* t, int last, acc_t x) {
  if (!(x >= t[0] && x < t[last])) return -1;
  int low = 0, high = last;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (x >= t[middle])
      low = middle;
    else
      high = middle;
  }
  return low;
}

// n[r] = B-spline m - degree + r of this degree for r <= degree; what would need further knots becomes 0
template <int degree>
__device__ __forceinline__ void triangle(const acc_t* t, int last, int m, acc_t x, acc_t (&n)[ORDER + 1]) {
  n[0] = 1;
#pragma unroll
  for (int q = 1; q <= degree; q++) {
    acc_t carry = 0;
#pragma unroll
    for (int r = 0; r < q; r++) {
      int a = m - q + 1 + r;
      bool valid = a >= 0 && a + q <= last;
      acc_t low = valid ? t[a] : acc_t(0), high = valid ? t[a + q] : acc_t(1);
      acc_t part = valid ? n[r] / (high - low) : acc_t(0);
      n[r] = carry + (high - x) * part;
      carry = (x - low) * part;
    }
    n[q] = carry;
  }
}

template <class put_t>
__device__ __forceinline__ void basis_values(const basis_t& b, int i, acc_t x, int from, int to, put_t put) {
  const acc_t* t = b.first + (index_t)i * b.step;
  int last = b.g + ORDER, m = interval(t, last, x);
  // NaN of what is no finite number
  acc_t outside = x - x;
  for (int f = from; f < to; f++)
    if (m < 0 || f < m - ORDER || f > m) put(f, outside);
  if (m < 0) return;
  acc_t n[ORDER + 1];
  triangle<ORDER>(t, last, m, x, n);
#pragma unroll
  for (int r = 0; r <= ORDER; r++)
    if (m - ORDER + r >= from && m - ORDER + r < to) put(m - ORDER + r, n[r]);
}

// sum over f of [from, to) of beta'_f(x) e(f)
template <class e_t>
__device__ __forceinline__ acc_t basis_pull(const basis_t& b, int i, acc_t x, int from, int to, e_t e) {
  const acc_t* t = b.first + (index_t)i * b.step;
  int last = b.g + ORDER, m = interval(t, last, x);
  if (m < 0) return x - x;
  acc_t total = 0;
#if ORDER
  acc_t n[ORDER + 1];
  triangle<ORDER - 1>(t, last, m, x, n);
#pragma unroll
  for (int r = 0; r < ORDER; r++) {
    int a = m - ORDER + 1 + r;
    if (a >= 0 && a + ORDER <= last) {
      acc_t part = acc_t(ORDER) * n[r] / (t[a + ORDER] - t[a]);
      if (a >= from && a < to) total += part * e(a);
      if (a - 1 >= from && a - 1 < to) total -= part * e(a - 1);
    }
  }
#endif
  return total;
}

#elif BASIS == 1

template <class put_t>
__device__ __forceinline__ void basis_values(const basis_t& b, int i, acc_t x, int from, int to, put_t put) {
  int half = b.g / 2;
  acc_t sine_1, cosine_1, sine, cosine;
  sine_cosine(x, sine_1, cosine_1);
  for (int f = from; f < to; f++) {
    int m = (f < half ? f : f - half) + 1;
    if (f == from || m % RESEED == 1)
      sine_cosine(x, m, sine, cosine);
    else
      turn(sine_1, cosine_1, sine, cosine);
    put(f, f < half ? cosine : sine);
  }
}

template <class e_t>
__device__ __forceinline__ acc_t basis_pull(const basis_t& b, int i, acc_t x, int from, int to, e_t e) {
  int half = b.g / 2;
  acc_t sine_1, cosine_1, sine, cosine, total = 0;
  sine_cosine(x, sine_1, cosine_1);
  for (int f = from; f < to; f++) {
    int m = (f < half ? f : f - half) + 1;
    if (f == from || m % RESEED == 1)
      sine_cosine(x, m, sine, cosine);
    else
      turn(sine_1, cosine_1, sine, cosine);
    total += (acc_t)m * (f < half ? -sine : cosine) * e(f);
  }
  return total;
}

#elif BASIS == 3

template <class put_t>
__device__ __forceinline__ void basis_values(const basis_t& b, int i, acc_t x, int from, int to, put_t put) {
  acc_t tau = value_tanh(x), before = tau, value = 1;
  for (int f = 0; f < to; f++) {
    if (f >= from) put(f, value);
    acc_t next = 2 * tau * value - before;
    before = value, value = next;
  }
}

template <class e_t>
__device__ __forceinline__ acc_t basis_pull(const basis_t& b, int i, acc_t x, int from, int to, e_t e) {
  // U_-1 = 0, U_0 = 1
  acc_t tau = value_tanh(x), before = 0, value = 1, total = 0;
  for (int f = 1; f < to; f++) {
    if (f >= from) total += (acc_t)f * value * e(f);
    acc_t next = 2 * tau * value - before;
    before = value, value = next;
  }
  return total * slope_tanh(x);
}

#elif BASIS == 5

template <class put_t>
__device__ __forceinline__ void basis_values(const basis_t& b, int i, acc_t x, int from, int to, put_t put) {
  for (int f = from; f < to; f++) put(f, value_silu(x));
}

template <class e_t>
__device__ __forceinline__ acc_t basis_pull(const basis_t& b, int i, acc_t x, int from, int to, e_t e) {
  return from < to ? slope_silu(x) * e(from) : acc_t(0);
}

#else

// the function's value and its slopes by x and its two parameters
struct bump_t {
  acc_t value, by_x, by_first, by_second;
};

__device__ __forceinline__ bump_t bump(const basis_t& b, int i, int f, acc_t x) {
  acc_t first = b.first[(index_t)i * b.step + f], second = b.second[(index_t)i * b.step + f];
  bump_t found;
  if (BASIS == 2) {
    acc_t u = (x - first) / second;
    found.value = exp(-u * u);
    found.by_x = acc_t(-2) * u * found.value / second;
    found.by_first = -found.by_x, found.by_second = -found.by_x * u;
  } else {
    acc_t p = value_relu(x - first), q = value_relu(second - x), product = b.rho * p * q;
    acc_t slope = 2 * b.rho * b.rho * p * q;
    found.value = product * product;
    found.by_x = slope * (q - p);
    found.by_first = -slope * q, found.by_second = slope * p;
  }
  return found;
}

template <class put_t>
__device__ __forceinline__ void basis_values(const basis_t& b, int i, acc_t x, int from, int to, put_t put) {
  for (int f = from; f < to; f++) put(f, bump(b, i, f, x).value);
}

template <class e_t>
__device__ __forceinline__ acc_t basis_pull(const basis_t& b, int i, acc_t x, int from, int to, e_t e) {
  acc_t total = 0;
  for (int f = from; f < to; f++) total += bump(b, i, f, x).by_x * e(f);
  return total;
}

#endif

// ---- tiles

// features [k, k + count) of `rows` rows from `row` on: target[(feature - k) along + (row - first) across]; zero beyond
__device__ __forceinline__ void expand(const basis_t& b, const T* __restrict__ x, const sizes_t& s, index_t row,
                                       int rows, int k, int count, acc_t* target, int along, int across) {
  int features = s.i * s.g, end = min(k + count, features), first = k / s.g;
  int inputs = end > k ? (end - 1) / s.g - first + 1 : 0;
  for (int at = threadIdx.x; at < rows * inputs; at += THREADS) {
    int r = at % rows, i = first + at / rows;
    acc_t* place = target + r * across + (i * s.g - k) * along;
    int from = max(0, k - i * s.g), to = min(s.g, end - i * s.g);
    if (row + r < s.m)
      basis_values(b, i, input(x, s, row + r, i), from, to, [&](int f, acc_t value) { place[f * along] = value; });
    else
      for (int f = from; f < to; f++) place[f * along] = 0;
  }
  for (int at = threadIdx.x; at < rows * (k + count - end); at += THREADS)
    target[at % rows * across + (end - k + at / rows) * along] = 0;
}

// sums[a][c] += left[.][4 ty + a] right[.][4 tx + c]
__device__ __forceinline__ void add_products(const acc_t (*left)[PITCH], const acc_t (*right)[PITCH],
                                             acc_t (&sums)[4][4]) {
  int ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;
#pragma unroll
  for (int k = 0; k < DEPTH; k++) {
    acc_t a[4], c[4];
#pragma unroll
    for (int n = 0; n < 4; n++) a[n] = left[k][ty + n], c[n] = right[k][tx + n];
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int p = 0; p < 4; p++) sums[n][p] = fma(a[n], c[p], sums[n][p]);
  }
}

// blockIdx = (rows / 64, outputs / 64)
extern "C" __global__ void __launch_bounds__(256)
    kan_contract(const T* __restrict__ x, const acc_t* __restrict__ w, T* __restrict__ y, const acc_t* __restrict__ first,
                 const acc_t* __restrict__ second, sizes_t s) {
  __shared__ acc_t left[DEPTH][PITCH];
  __shared__ acc_t right[DEPTH][PITCH];
  const basis_t b(first, second, s);
  index_t row = (index_t)blockIdx.x * TILE;
  int c = blockIdx.y * TILE, features = s.i * s.g;
  acc_t sums[4][4] = {};
  for (int k = 0; k < features; k += DEPTH) {
    __syncthreads();
    expand(b, x, s, row, TILE, k, DEPTH, &left[0][0], PITCH, 1);
    for (int at = threadIdx.x; at < DEPTH * TILE; at += THREADS) {
      int d = at / TILE, e = at % TILE;
      right[d][e] = k + d < features && c + e < s.o ? w[(index_t)(k + d) * s.o + c + e] : acc_t(0);
    }
    __syncthreads();
    add_products(left, right, sums);
  }
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int p = 0; p < 4; p++) {
      index_t r = row + threadIdx.x / 16 * 4 + n;
      int e = c + threadIdx.x % 16 * 4 + p;
      if (r < s.m && e < s.o) st(&y[r * s.o + e], sums[n][p]);
    }
}

// dx, and with parts the sums for the parameters of the basis over `share` tiles of rows: (blocks, i g, 2).
// blockIdx = (blocks of rows, blocks of `inputs` inputs); several inputs have at most 64 features together
extern "C" __global__ void __launch_bounds__(256)
    kan_pull(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ w, acc_t* __restrict__ dx,
             acc_t* __restrict__ parts, const acc_t* __restrict__ table, const acc_t* __restrict__ second, sizes_t s,
             int inputs, int share) {
  __shared__ acc_t left[DEPTH][PITCH];
  __shared__ acc_t right[DEPTH][PITCH];
  __shared__ acc_t e[TILE][TILE + 1];  // feature, row
  const basis_t b(table, second, s);
  int first = blockIdx.y * inputs, count = min(inputs, s.i - first), features = count * s.g;
  for (int k = 0; k < features; k += TILE) {
    acc_t by_first = 0, by_second = 0;
    for (int tile = 0; tile < share; tile++) {
      index_t row = ((index_t)blockIdx.x * share + tile) * TILE;
      acc_t sums[4][4] = {};
      for (int c = 0; c < s.o; c += DEPTH) {
        __syncthreads();
        for (int at = threadIdx.x; at < DEPTH * TILE; at += THREADS) {
          int d = at % DEPTH, n = at / DEPTH;
          bool valid = c + d < s.o;
          left[d][n] = valid && row + n < s.m ? cotangent(dy, s, row + n, c + d) : acc_t(0);
          right[d][n] = valid && k + n < features ? w[((index_t)first * s.g + k + n) * s.o + c + d] : acc_t(0);
        }
        __syncthreads();
        add_products(left, right, sums);
      }
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int p = 0; p < 4; p++) e[threadIdx.x % 16 * 4 + p][threadIdx.x / 16 * 4 + n] = sums[n][p];
      __syncthreads();
      for (int at = threadIdx.x; at < TILE * count; at += THREADS) {
        int r = at % TILE, i = at / TILE, from = max(0, k - i * s.g), to = min(s.g, k + TILE - i * s.g);
        if (row + r < s.m && from < to) {
          index_t place = (row + r) * s.i + first + i;
          auto gradient = [&](int f) { return e[i * s.g + f - k][r]; };
          acc_t total = basis_pull(b, first + i, ld(x[place]), from, to, gradient);
          // several windows of one input: the sum so far is in its place
          dx[place] = k ? dx[place] + total : total;
        }
      }
#if BASIS == 2 || BASIS == 4
      int k_own = k + threadIdx.x;
      if (parts && threadIdx.x < TILE && k_own < features)
        for (int r = 0; r < TILE && row + r < s.m; r++) {
          acc_t value = ld(x[(row + r) * s.i + first + k_own / s.g]);
          bump_t found = bump(b, first + k_own / s.g, k_own % s.g, value);
          by_first += found.by_first * e[threadIdx.x][r];
          by_second += found.by_second * e[threadIdx.x][r];
        }
#endif
    }
    if (parts && threadIdx.x < TILE && k + (int)threadIdx.x < features) {
      index_t at = ((index_t)blockIdx.x * s.i + first) * s.g + k + threadIdx.x;
      parts[2 * at] = by_first;
      parts[2 * at + 1] = by_second;
    }
  }
}

// dw of a slice of `share` rows: parts (slices, i g, o). blockIdx = (features / 64, outputs / 64, slices)
extern "C" __global__ void __launch_bounds__(256)
    kan_weights(const T* __restrict__ x, const T* __restrict__ dy, acc_t* __restrict__ parts,
                const acc_t* __restrict__ first, const acc_t* __restrict__ second, sizes_t s, index_t share) {
  __shared__ acc_t left[DEPTH][PITCH];
  __shared__ acc_t right[DEPTH][PITCH];
  const basis_t b(first, second, s);
  int k = blockIdx.x * TILE, c = blockIdx.y * TILE, features = s.i * s.g;
  index_t begin = blockIdx.z * share, end = begin + share < s.m ? begin + share : s.m;
  acc_t sums[4][4] = {};
  for (index_t row = begin; row < end; row += DEPTH) {
    __syncthreads();
    expand(b, x, s, row, DEPTH, k, TILE, &left[0][0], 1, PITCH);
    for (int at = threadIdx.x; at < DEPTH * TILE; at += THREADS) {
      int d = at / TILE, n = at % TILE;
      right[d][n] = row + d < end && c + n < s.o ? ld(dy[(row + d) * s.o + c + n]) : acc_t(0);
    }
    __syncthreads();
    add_products(left, right, sums);
  }
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int p = 0; p < 4; p++) {
      int feature = k + threadIdx.x / 16 * 4 + n, e = c + threadIdx.x % 16 * 4 + p;
      if (feature < features && e < s.o) parts[((index_t)blockIdx.z * features + feature) * s.o + e] = sums[n][p];
    }
}
