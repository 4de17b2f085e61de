// Bands of frequencies: `order` lists the tokens of a grid band by band, `edges` where each band begins.
#include "common.cuh"

// y[item, channel, band] = sum over the band of x, or of x dy, divided by its size unless dy is given. A block of 32
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
    st(&y[(item * c + channel) * bands + band], total);
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
  acc_t factor = ld(gain[(item * c + channel) * bands + band]);
  st(&y[at], x ? factor * ld(x[at]) : factor / (acc_t)(edges[band + 1] - edges[band]));
}
