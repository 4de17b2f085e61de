// Bands of frequencies: `order` lists the tokens of a grid band by band, `edges` where each band begins.
#include "common.cuh"

// y[item, band, channel] = sum over the band of x, or of x dy, divided by its size unless dy is given. A block of 32
// channels and 8 stripes sums one band of one item.
extern "C" __global__ void __launch_bounds__(256)
    sum_bands(const T* __restrict__ x, const T* __restrict__ dy, const int* __restrict__ order,
              const int* __restrict__ edges, SUM_T* __restrict__ y, int n, int c, int bands) {
  __shared__ acc_t sums[8][32];
  int strips = (c + 31) / 32, channel = (int)(blockIdx.x % strips) * 32 + threadIdx.x;
  int band = blockIdx.x / strips % bands;
  index_t item = blockIdx.x / strips / bands;
  acc_t total = 0;
  if (channel < c) {
    for (int i = edges[band] + threadIdx.y; i < edges[band + 1]; i += 8) {
      index_t at = (item * n + order[i]) * c + channel;
      total += dy ? ld(x[at]) * ld(dy[at]) : ld(x[at]);
    }
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && channel < c) {
    total = 0;
    for (int k = 0; k < 8; k++) total += sums[k][threadIdx.x];
    if (!dy) total /= (acc_t)(edges[band + 1] - edges[band]);
    st(&y[(item * bands + band) * c + channel], total);
  }
}

// y = x times the gain of its band; without x the gain divided by the size of the band. One value per thread.
extern "C" __global__ void __launch_bounds__(256)
    scale_bands(const T* __restrict__ x, const GAIN_T* __restrict__ gain, const int* __restrict__ table,
                const int* __restrict__ edges, T* __restrict__ y, int n, int c, int bands, long long size) {
  index_t at = global_index();
  if (at >= size) return;
  int channel = at % c, band = table[at / c % n];
  index_t item = at / c / n;
  acc_t factor = ld(gain[(item * bands + band) * c + channel]);
  st(&y[at], x ? factor * ld(x[at]) : factor / (acc_t)(edges[band + 1] - edges[band]));
}

#ifdef BANDS

// The small network that weighs the bands of a channel, one channel of one item per thread. w1 and b1 contain the scale
// and bias of the norm. Every thread of a warp reads the same weights.
struct network_t {
  acc_t n[BANDS], y[BANDS], rstd;  // the normalised values, then the weights

  __device__ __forceinline__ network_t(const T* z, index_t step, double eps) {
    acc_t mean = 0, square = 0;
    for (int k = 0; k < BANDS; k++) mean += n[k] = ld(z[k * step]);
    mean /= BANDS;
    for (int k = 0; k < BANDS; k++) n[k] -= mean, square += n[k] * n[k];
    rstd = 1 / sqrt(square / BANDS + (acc_t)eps);
    for (int k = 0; k < BANDS; k++) n[k] *= rstd;
  }

  __device__ __forceinline__ acc_t hidden(const acc_t* w1, const acc_t* b1, int width, int j) const {
    acc_t value = b1[j];
    for (int k = 0; k < BANDS; k++) value += n[k] * w1[k * width + j];
    return value;
  }

  __device__ __forceinline__ void soften(const acc_t* w1, const acc_t* b1, const acc_t* w2, const acc_t* b2,
                                         int width) {
    for (int k = 0; k < BANDS; k++) y[k] = b2 ? b2[k] : (acc_t)0;
    for (int j = 0; j < width; j++) {
      acc_t value = value_gelu(hidden(w1, b1, width, j));
      for (int k = 0; k < BANDS; k++) y[k] += value * w2[j * BANDS + k];
    }
    acc_t highest = y[0], sum = 0;
    for (int k = 1; k < BANDS; k++) highest = fmax(highest, y[k]);
    for (int k = 0; k < BANDS; k++) sum += y[k] = exp(y[k] - highest);
    for (int k = 0; k < BANDS; k++) y[k] /= sum;
  }
};

extern "C" __global__ void __launch_bounds__(128)
    weigh_bands(const T* __restrict__ z, const acc_t* __restrict__ w1, const acc_t* __restrict__ b1,
                const acc_t* __restrict__ w2, const acc_t* __restrict__ b2, T* __restrict__ y, int c, int width,
                double eps, long long channels) {
  index_t at = global_index();
  if (at >= channels) return;
  index_t start = at / c * BANDS * c + at % c;
  network_t network(z + start, c, eps);
  network.soften(w1, b1, w2, b2, width);
  for (int k = 0; k < BANDS; k++) st(&y[start + (index_t)k * c], network.y[k]);
}

// dz, and the factors of the gradients of the weights, by item: n and v = gelu(hidden), each with a row of ones behind
// it, dlogits and dhidden
extern "C" __global__ void __launch_bounds__(128)
    pull_weights(const T* __restrict__ z, const T* __restrict__ dy, const acc_t* __restrict__ w1,
                 const acc_t* __restrict__ b1, const acc_t* __restrict__ w2, const acc_t* __restrict__ b2,
                 T* __restrict__ dz, acc_t* __restrict__ n, acc_t* __restrict__ v, acc_t* __restrict__ dlogits,
                 acc_t* __restrict__ dhidden, int c, int width, double eps, long long channels) {
  index_t at = global_index();
  if (at >= channels) return;
  index_t item = at / c, channel = at % c, start = item * BANDS * c + channel;
  network_t network(z + start, c, eps);
  network.soften(w1, b1, w2, b2, width);
  acc_t d[BANDS], dn[BANDS], dot = 0;
  for (int k = 0; k < BANDS; k++) dot += network.y[k] * (d[k] = ld(dy[start + (index_t)k * c]));
  n += item * (BANDS + 1) * c + channel;
  for (int k = 0; k < BANDS; k++) {
    d[k] = network.y[k] * (d[k] - dot), dn[k] = 0;
    dlogits[start + (index_t)k * c] = d[k];
    n[(index_t)k * c] = network.n[k];
  }
  n[(index_t)BANDS * c] = 1;
  v += item * (width + 1) * c + channel;
  dhidden += item * width * c + channel;
  for (int j = 0; j < width; j++) {
    acc_t value = network.hidden(w1, b1, width, j), slope = 0;
    for (int k = 0; k < BANDS; k++) slope += w2[j * BANDS + k] * d[k];
    slope *= slope_gelu(value);
    v[(index_t)j * c] = value_gelu(value), dhidden[(index_t)j * c] = slope;
    for (int k = 0; k < BANDS; k++) dn[k] += w1[k * width + j] * slope;
  }
  v[(index_t)width * c] = 1;
  acc_t mean = 0, along = 0;
  for (int k = 0; k < BANDS; k++) mean += dn[k], along += dn[k] * network.n[k];
  mean /= BANDS, along /= BANDS;
  for (int k = 0; k < BANDS; k++)
    st(&dz[start + (index_t)k * c], network.rstd * (dn[k] - mean - network.n[k] * along));
}

#endif
