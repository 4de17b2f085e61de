// Sums of functions with shapes of their own. x is (m, i); edges (i, TERMS, o): weight, 1 / scale, translation of a
// wavelet, or ABOVE coefficients of the numerator and the rest of the denominator of a rational function.
//
// Macros: T storage type; FUNCTION 0 Mexican hat, 1 Morlet, 2 derivative of a Gaussian, 3 Meyer, 4 Shannon, 5 rational;
// ABOVE and TERMS.
#include "columns.cuh"

constexpr int SUMS = TERMS > 0 ? TERMS : 1;

// value and slope by z or x; for rational functions also what both kinds of coefficients are multiplied with
struct edge_t {
  acc_t value, slope, above, below;
};

__device__ __forceinline__ acc_t sign(acc_t x) { return x > 0 ? acc_t(1) : x < 0 ? acc_t(-1) : x; }

#if FUNCTION == 5

__device__ __forceinline__ edge_t edge(const acc_t* __restrict__ edges, int o, acc_t x) {
  acc_t p = 0, dp = 0, q = 0, dq = 0;
#pragma unroll
  for (int j = ABOVE - 1; j >= 0; j--) {
    dp = fma(dp, x, p);
    p = fma(p, x, edges[(index_t)j * o]);
  }
#pragma unroll
  for (int j = TERMS - 1; j >= ABOVE; j--) {
    dq = fma(dq, x, q);
    q = fma(q, x, edges[(index_t)j * o]);
  }
  // the constant term of the denominator is zero
  dq = fma(dq, x, q), q *= x;
  edge_t e;
  e.above = acc_t(1) / (acc_t(1) + fabs(q));
  e.value = p * e.above;
  e.below = -e.value * e.above * sign(q);
  e.slope = fma(dp, e.above, e.below * dq);
  return e;
}

#else

__device__ __forceinline__ edge_t wavelet(acc_t z) {
  const acc_t pi = acc_t(3.14159265358979323846);
  edge_t e;
  if (FUNCTION == 3) {
    // beyond 1 the window is zero
    acc_t v = fabs(z), inside = v > 1 ? acc_t(1) : v, t = inside + inside - 1;
    t = t < 0 ? acc_t(0) : t;
    acc_t cube = t * t * t, back = 1 - t;
    acc_t nu = cube * t * (35 + t * (-84 + t * (70 + t * -20))), angle = acc_t(0.5) * pi * nu;
    acc_t m = v >= 1 ? acc_t(0) : cos(angle), dm = -140 * pi * cube * (back * back * back) * sin(angle);
    acc_t sine = sin(pi * inside), cosine = cos(pi * inside);
    e.value = sine * m;
    e.slope = sign(z) * (pi * cosine * m + sine * dm);
  } else if (FUNCTION == 4) {
    // the difference of cos z and sin(z) / z vanishes near 0: series in z^2, term by term
    bool near = fabs(z) < 1;
    acc_t safe = near ? acc_t(1) : z, square = z * z, term = 1, series = 1, slope = 0;
#pragma unroll
    for (int k = 1; k < 12; k++) {
      term *= -square / acc_t(2 * k * (2 * k + 1));
      series += term;
      slope += acc_t(2 * k) * term;
    }
    acc_t far = sin(safe) / safe;
    e.value = near ? series : far;
    e.slope = near ? (z == 0 ? z : slope / z) : (cos(safe) - far) / safe;
  } else {
    acc_t square = z * z, bell = exp(acc_t(-0.5) * square);
    const acc_t hat = acc_t(0.86732507058407751832);
    if (FUNCTION == 0) {
      e.value = (square - 1) * bell * hat;
      e.slope = z * (3 - square) * bell * hat;
    } else if (FUNCTION == 1) {
      acc_t sine = sin(5 * z), cosine = cos(5 * z);
      e.value = cosine * bell;
      e.slope = -(5 * sine + z * cosine) * bell;
    } else {
      e.value = -z * bell;
      e.slope = (square - 1) * bell;
    }
  }
  return e;
}

#endif

// blockIdx = (rows / 8, outputs / 32), threads (32, 8)
extern "C" __global__ void __launch_bounds__(256)
    edge_sums(const T* __restrict__ x, const acc_t* __restrict__ edges, T* __restrict__ y, index_t m, int i, int o) {
  index_t row = (index_t)blockIdx.x * STRIPES + threadIdx.y;
  int c = blockIdx.y * LANES + threadIdx.x;
  if (row >= m || c >= o) return;
  acc_t total = 0;
  for (int j = 0; j < i; j++) {
    const acc_t* at = edges + (index_t)j * TERMS * o + c;
    acc_t value = ld(x[row * i + j]);
#if FUNCTION == 5
    total += edge(at, o, value).value;
#else
    total = fma(at[0], wavelet((value - at[2 * (index_t)o]) * at[o]).value, total);
#endif
  }
  st(&y[row * o + c], total);
}

// dx; a warp per row and input. blockIdx = (rows, inputs / 8), threads (32, 8)
extern "C" __global__ void __launch_bounds__(256)
    edge_pull(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ edges, T* __restrict__ dx,
              int i, int o) {
  index_t row = blockIdx.x;
  int j = blockIdx.y * STRIPES + threadIdx.y;
  acc_t value = j < i ? ld(x[row * i + j]) : acc_t(0), total = 0;
  for (int c = threadIdx.x; c < o && j < i; c += LANES) {
    const acc_t* at = edges + (index_t)j * TERMS * o + c;
    acc_t d = ld(dy[row * o + c]);
#if FUNCTION == 5
    total += d * edge(at, o, value).slope;
#else
    acc_t inverse = at[o];
    total += d * at[0] * wavelet((value - at[2 * (index_t)o]) * inverse).slope * inverse;
#endif
  }
  total = warp_sum(total);
  if (j < i && threadIdx.x == 0) st(&dx[row * i + j], total);
}

// gradients of the edges over a slice of `share` rows: parts (slices, i, TERMS, o).
// blockIdx = (inputs, outputs / 32, slices), threads (32, 8)
extern "C" __global__ void __launch_bounds__(256)
    edge_parameters(const T* __restrict__ x, const T* __restrict__ dy, const acc_t* __restrict__ edges,
                    acc_t* __restrict__ parts, index_t m, int i, int o, index_t share) {
  __shared__ acc_t scratch[STRIPES][LANES];
  int j = blockIdx.x, c = blockIdx.y * LANES + threadIdx.x;
  index_t begin = blockIdx.z * share, end = begin + share < m ? begin + share : m;
  const acc_t* at = edges + (index_t)j * TERMS * o + c;
  acc_t sums[SUMS] = {};
  if (c < o)
    for (index_t row = begin + threadIdx.y; row < end; row += STRIPES) {
      acc_t value = ld(x[row * i + j]), d = ld(dy[row * o + c]);
#if FUNCTION == 5
      edge_t e = edge(at, o, value);
      acc_t above = d * e.above, below = d * e.below;
#pragma unroll
      for (int term = 0; term < ABOVE; term++) sums[term] += above, above *= value;
#pragma unroll
      for (int term = ABOVE; term < TERMS; term++) below *= value, sums[term] += below;
#else
      acc_t inverse = at[o], z = (value - at[2 * (index_t)o]) * inverse;
      edge_t e = wavelet(z);
      acc_t pulled = d * at[0] * e.slope * inverse;
      sums[0] = fma(d, e.value, sums[0]);
      sums[1] -= pulled * z;
      sums[2] -= pulled;
#endif
    }
#pragma unroll
  for (int term = 0; term < TERMS; term++) {
    acc_t total = stripe_sum(sums[term], scratch);
    if (c < o && threadIdx.y == 0) parts[(((index_t)blockIdx.z * i + j) * TERMS + term) * o + c] = total;
  }
}
