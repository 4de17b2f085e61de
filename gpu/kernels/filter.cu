// Spectral filters of small images: transforms, product and the way back in shared memory.
//
// A block takes CHANNELS channels of an image of IMAGE_H x IMAGE_W tokens on a grid of H x W points, zero beyond the
// image. Its tile holds the half spectrum [H][HALF][CHANNELS], HALF = W / 2 + 1. A line is transformed by one thread,
// with its values in registers: sums and differences of mirrored values meet cosines and sines, so that a
// coefficient and its mirror image come together. Transforms are unscaled in both directions.
#include "common.cuh"

constexpr int HALF = W / 2 + 1;

struct point {
  acc_t re, im;
};

// cosines and sines of the multiples of a circle's H-th and W-th part, from a table to shared memory
__device__ __forceinline__ void copy_circles(const acc_t* circles, point* shared) {
  for (int i = threadIdx.x; i < H + W; i += blockDim.x) shared[i] = point{circles[2 * i], circles[2 * i + 1]};
}

// hand X[k] for k <= n / 2 of a real line to target(k, X)
template <int n, class source_t, class target_t>
__device__ __forceinline__ void real_line(const point* circle, source_t source, target_t target) {
  constexpr int pairs = (n - 1) / 2;
  acc_t sums[pairs + 1], differences[pairs + 1];
  acc_t first = source(0), middle = n % 2 == 0 ? source(n / 2) : acc_t(0);
#pragma unroll
  for (int m = 1; m <= pairs; m++) {
    acc_t a = source(m), b = source(n - m);
    sums[m] = a + b;
    differences[m] = a - b;
  }
  for (int k = 0; k <= n / 2; k++) {
    acc_t re = k % 2 ? first - middle : first + middle, im = 0;
    int place = 0;
#pragma unroll
    for (int m = 1; m <= pairs; m++) {
      place += k;
      if (place >= n) place -= n;
      re += sums[m] * circle[place].re;
      im -= differences[m] * circle[place].im;
    }
    target(k, point{re, im});
  }
}

// the way back: values x[q] of the line whose half spectrum source(k) gives; imaginary parts of X[0] and X[n / 2] have
// no effect
template <int n, class source_t, class target_t>
__device__ __forceinline__ void real_line_back(const point* circle, source_t source, target_t target) {
  constexpr int pairs = (n - 1) / 2;
  acc_t re[pairs + 1], im[pairs + 1];
  acc_t first = source(0).re, middle = n % 2 == 0 ? source(n / 2).re : acc_t(0);
#pragma unroll
  for (int k = 1; k <= pairs; k++) {
    point value = source(k);
    re[k] = 2 * value.re;
    im[k] = 2 * value.im;
  }
  for (int q = 0; q <= n / 2; q++) {
    acc_t even = q % 2 ? first - middle : first + middle, odd = 0;
    int place = 0;
#pragma unroll
    for (int k = 1; k <= pairs; k++) {
      place += q;
      if (place >= n) place -= n;
      even += re[k] * circle[place].re;
      odd += im[k] * circle[place].im;
    }
    target(q, even - odd);
    if (q > 0 && 2 * q < n) target(n - q, even + odd);
  }
}

// all X[k] of a complex line; sign -1 forward, 1 back
template <int n, int sign, class source_t, class target_t>
__device__ __forceinline__ void complex_line(const point* circle, source_t source, target_t target) {
  constexpr int pairs = (n - 1) / 2;
  point sums[pairs + 1], differences[pairs + 1];
  point first = source(0), middle = n % 2 == 0 && n > 1 ? source(n / 2) : point{0, 0};
#pragma unroll
  for (int m = 1; m <= pairs; m++) {
    point a = source(m), b = source(n - m);
    sums[m] = point{a.re + b.re, a.im + b.im};
    differences[m] = point{a.re - b.re, a.im - b.im};
  }
  for (int k = 0; k <= n / 2; k++) {
    acc_t turn = k % 2 ? acc_t(-1) : acc_t(1);
    point even = {first.re + turn * middle.re, first.im + turn * middle.im}, odd = {0, 0};
    int place = 0;
#pragma unroll
    for (int m = 1; m <= pairs; m++) {
      place += k;
      if (place >= n) place -= n;
      point c = circle[place];
      even.re += sums[m].re * c.re;
      even.im += sums[m].im * c.re;
      odd.re += differences[m].re * c.im;
      odd.im += differences[m].im * c.im;
    }
    // sign times sqrt(-1) odd
    target(k, point{even.re - sign * odd.im, even.im + sign * odd.re});
    if (k > 0 && 2 * k < n) target(n - k, point{even.re + sign * odd.im, even.im - sign * odd.re});
  }
}

__device__ __forceinline__ point* place_of(point* tile, int row, int k, int channel) {
  return tile + (row * HALF + k) * CHANNELS + channel;
}

// rows of the image into the tile, those beyond it as zeros
__device__ __forceinline__ void enter(const T* image, int c, int valid, const point* circle, point* tile) {
  for (int i = threadIdx.x; i < H * CHANNELS; i += blockDim.x) {
    int channel = i % CHANNELS, row = i / CHANNELS;
    if (row < IMAGE_H && channel < valid) {
      const T* line = image + (index_t)row * IMAGE_W * c + channel;
      real_line<W>(
          circle, [&](int j) { return j < IMAGE_W ? ld(line[(index_t)j * c]) : acc_t(0); },
          [&](int k, point value) { *place_of(tile, row, k, channel) = value; });
    } else {
      for (int k = 0; k < HALF; k++) *place_of(tile, row, k, channel) = point{0, 0};
    }
  }
}

__device__ __forceinline__ void leave(const point* circle, point* tile, T* image, int c, int valid) {
  for (int i = threadIdx.x; i < IMAGE_H * CHANNELS; i += blockDim.x) {
    int channel = i % CHANNELS, row = i / CHANNELS;
    if (channel < valid) {
      T* line = image + (index_t)row * IMAGE_W * c + channel;
      const acc_t scale = acc_t(1.0 / ((double)H * W));
      real_line_back<W>(
          circle, [&](int k) { return *place_of(tile, row, k, channel); },
          [&](int j, acc_t value) {
            if (j < IMAGE_W) st(&line[(index_t)j * c], value * scale);
          });
    }
  }
}

// y = back(S X), or with conj S; the factors S are (H, HALF, c)
extern "C" __global__ void __launch_bounds__(256)
    filter_images(const T* __restrict__ x, const acc_t* __restrict__ s_re, const acc_t* __restrict__ s_im,
                  const acc_t* __restrict__ circles, T* __restrict__ y, int blocks, int c, int conjugate) {
  DYNAMIC_SHARED(point, tile);
  point *rows = tile + H * HALF * CHANNELS, *columns = rows + H;
  int c0 = (int)(blockIdx.x % blocks) * CHANNELS, valid = min(CHANNELS, c - c0);
  index_t start = (index_t)(blockIdx.x / blocks) * IMAGE_H * IMAGE_W * c + c0;
  copy_circles(circles, rows);
  __syncthreads();
  enter(x + start, c, valid, columns, tile);
  __syncthreads();
  for (int i = threadIdx.x; i < HALF * CHANNELS; i += blockDim.x) {
    int channel = i % CHANNELS, k = i / CHANNELS;
    if (channel < valid) {
      auto line = [&](int row) { return *place_of(tile, row, k, channel); };
      complex_line<H, -1>(rows, line, [&](int row, point value) {
        index_t at = ((index_t)row * HALF + k) * c + c0 + channel;
        acc_t re = s_re[at], im = conjugate ? -s_im[at] : s_im[at];
        *place_of(tile, row, k, channel) = point{value.re * re - value.im * im, value.re * im + value.im * re};
      });
      complex_line<H, 1>(rows, line,
                         [&](int row, point value) { *place_of(tile, row, k, channel) = value; });
    }
  }
  __syncthreads();
  leave(columns, tile, y + start, c, valid);
}

// dx = back(conj(S) G), and for every slice of the batch the sum of conj(X) G in ds (slices, 2, H, HALF, c)
extern "C" __global__ void __launch_bounds__(256)
    filter_images_backward(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ s_re,
                           const acc_t* __restrict__ s_im, const acc_t* __restrict__ circles,
                           T* __restrict__ dx, acc_t* __restrict__ ds, int blocks, int c, int items, int share) {
  DYNAMIC_SHARED(point, tile);
  point* other = tile + H * HALF * CHANNELS;
  point *rows = other + H * HALF * CHANNELS, *columns = rows + H;
  int c0 = (int)(blockIdx.x % blocks) * CHANNELS, valid = min(CHANNELS, c - c0);
  int slice = blockIdx.x / blocks, last = min(items, (slice + 1) * share);
  const index_t size = (index_t)H * HALF * c;
  acc_t *sum_re = ds + slice * 2 * size, *sum_im = sum_re + size;
  copy_circles(circles, rows);
  __syncthreads();
  for (int item = slice * share; item < last; item++) {
    index_t start = (index_t)item * IMAGE_H * IMAGE_W * c + c0;
    enter(x + start, c, valid, columns, tile);
    enter(dy + start, c, valid, columns, other);
    __syncthreads();
    for (int i = threadIdx.x; i < HALF * CHANNELS; i += blockDim.x) {
      int channel = i % CHANNELS, k = i / CHANNELS;
      if (channel < valid) {
        complex_line<H, -1>(
            rows, [&](int row) { return *place_of(tile, row, k, channel); },
            [&](int row, point value) { *place_of(tile, row, k, channel) = value; });
        auto line = [&](int row) { return *place_of(other, row, k, channel); };
        complex_line<H, -1>(rows, line, [&](int row, point g) {
          index_t at = ((index_t)row * HALF + k) * c + c0 + channel;
          point z = *place_of(tile, row, k, channel);
          acc_t re = z.re * g.re + z.im * g.im, im = z.re * g.im - z.im * g.re;
          if (item > slice * share) {
            re += sum_re[at];
            im += sum_im[at];
          }
          sum_re[at] = re;
          sum_im[at] = im;
          re = s_re[at];
          im = -s_im[at];
          *place_of(other, row, k, channel) = point{g.re * re - g.im * im, g.re * im + g.im * re};
        });
        complex_line<H, 1>(rows, line,
                           [&](int row, point value) { *place_of(other, row, k, channel) = value; });
      }
    }
    __syncthreads();
    // the same thread fills a row again that empties it here
    leave(columns, other, dx + start, c, valid);
  }
}
