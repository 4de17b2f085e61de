// What each segment of a selective scan adds to the state behind it (REVERSED 0), or to the adjoint before it
// (REVERSED 1, for the backward), and the sums of its steps; starting from zero.
//
// The contribution of token t is x[t] V[t] times the decay over the tokens between t and the end the result leaves by,
// with x = step u and V = B, or x = ds and V = C. If nothing grows there is no recurrence: the segment is
// walked from that end with the running sum of the steps, until all decays of the block have vanished. Else the
// recurrence runs towards that end. Nothing passes a start of a sequence: `starts` says where the last one in each
// segment is (REVERSED: the first), -1 (the length) if there is none. A thread owns SHARE states of PAIR channels.
#include "scan.cuh"

constexpr int PAIR = LANES == 1 ? 1 : 2;
constexpr int THREADS = 64;
constexpr int CHANNELS = THREADS / LANES * PAIR;
constexpr int TILE = tile_of(CHANNELS, THREADS);
constexpr int LOADED = CHANNELS * TILE / THREADS;      // tokens that a thread loads for one channel
constexpr int STRIDE = THREADS / CHANNELS;             // between two of them
constexpr int PAIRS = 2 * TILE + 4;                    // (step, x) of a channel, rows without bank conflicts
constexpr int COEFFICIENTS = (TILE * WIDTH + THREADS - 1) / THREADS;
constexpr acc_t VANISHED = sizeof(acc_t) == 8 ? -1022 : -126;  // powers of two

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    segment_sums(const T* __restrict__ source, const T* __restrict__ delta, const acc_t* __restrict__ A,
                 const T* __restrict__ V, const T* __restrict__ z, const acc_t* __restrict__ bias,
                 const int* __restrict__ order, const unsigned char* __restrict__ marks,
                 const int* __restrict__ starts, acc_t* __restrict__ sums, acc_t* __restrict__ totals, scan_t s) {
  DYNAMIC_SHARED(acc_t, shared);
  acc_t* pairs = shared;                               // [2][CHANNELS][PAIRS]
  acc_t* coefficients = pairs + 2 * CHANNELS * PAIRS;  // [2][TILE][WIDTH]
  block_t k = block_of<CHANNELS>(s);
  if (REVERSED) {
    // nothing is before the first segment
    k.segment++;
    k.begin += s.segment;
    k.end = min(s.length, k.begin + s.segment);
  }
  if (MARKED && starts) {
    int start = starts[(index_t)k.item * s.segments + k.segment];
    if (REVERSED) k.end = min(k.end, start);
    else k.begin = max(k.begin, start);
  }
#if CROSS
  order += (index_t)k.direction * s.order_apart;
  A += (index_t)k.direction * s.rate_apart;
  bias += (index_t)k.direction * s.bias_apart;
#endif
  const int thread = threadIdx.x, own = thread / LANES * PAIR, state = thread % LANES * SHARE;
  const int tiles = (k.end - k.begin + TILE - 1) / TILE;
  const int column = thread % CHANNELS, row = thread / CHANNELS;  // of what this thread loads
  const bool loads = column < k.count;
  const acc_t shift = loads && bias ? bias[k.channel + column] : acc_t(0);

  acc_t a[PAIR][SHARE], h[PAIR][SHARE], total[PAIR], slowest[PAIR];
  bool grows = !SOFTPLUS;
#pragma unroll
  for (int p = 0; p < PAIR; p++) {
    total[p] = 0;
    slowest[p] = -1e30f;
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      bool valid = own + p < k.count && state + i < STATES;
      a[p][i] = valid ? A[(index_t)(k.channel + own + p) * STATES + state + i] * LOG2_E : acc_t(0);
      h[p][i] = 0;
      // so does a NaN
      if (valid && !(a[p][i] <= 0)) grows = true;
      if (valid) slowest[p] = max(slowest[p], a[p][i]);
    }
  }
  grows = __syncthreads_or(grows);
  // towards the end the result leaves by if there is a recurrence, else away from it
  const bool ascending = REVERSED != grows;

  int next_mark = 0;
  T next_source[LOADED], next_delta[LOADED], next_z[LOADED], next_coefficients[COEFFICIENTS];
  auto first_token = [&](int n) { return k.begin + (ascending ? n : tiles - 1 - n) * TILE; };
  auto fetch = [&](int n) {
    const int start = first_token(n);
    next_mark = fetch_mark(s, marks, k.item, start, min(TILE, k.end - start));
    const index_t at_start =
        ORDERED ? 0 : place(s, order, k.item, start + row) * s.channels + k.channel + column;
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int t = start + row + i * STRIDE;
      bool valid = loads && t < k.end;
      index_t at = valid ? element(s, order, k, column, t, start + row, at_start) : 0;
      next_source[i] = valid ? source[at] : T();
      next_delta[i] = valid ? delta[step_of(s, order, k, column, t, at)] : T();
#if GATED
      next_z[i] = valid ? z[at] : T();
#endif
    }
#pragma unroll
    for (int i = 0; i < COEFFICIENTS; i++) {
      int q = i * THREADS + thread, of = q % WIDTH, t = start + q / WIDTH;
      bool valid = q < TILE * WIDTH && of < STATES && t < k.end;
      next_coefficients[i] =
          valid ? V[coefficients_of(s, order, k, t, REVERSED) + of] : T();
    }
  };
  auto convert = [&](int n, int half) {
    const int start = first_token(n);
    const marks_t own_marks = gather_marks(next_mark);
    acc_t* target = pairs + (half * CHANNELS + column) * PAIRS;
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int j = row + i * STRIDE;
      bool frozen = is_frozen(own_marks, j);
      acc_t step = loads && start + j < k.end && !frozen ? step_size(ld(next_delta[i]) + shift) : acc_t(0);
      acc_t x = ld(next_source[i]) * (REVERSED ? acc_t(1) : step);
#if GATED
      x *= fast_silu(ld(next_z[i]));
#endif
      if (frozen) x = 0;
      target[2 * j] = step;
      target[2 * j + 1] = x;
    }
#pragma unroll
    for (int i = 0; i < COEFFICIENTS; i++) {
      int q = i * THREADS + thread;
      if (q < TILE * WIDTH)
        coefficients[half * TILE * WIDTH + q] =
            is_frozen(own_marks, q / WIDTH) ? acc_t(0) : ld(next_coefficients[i]);
    }
  };

  fetch(0);
  convert(0, 0);
  __syncthreads();
  for (int n = 0; n < tiles; n++) {
    const int half = n & 1;
    if (n + 1 < tiles) fetch(n + 1);
#pragma unroll 4
    for (int m = 0; m < TILE; m++) {
      const int j = ascending ? m : TILE - 1 - m;
      acc_t v[SHARE];
      ld_row<SHARE>(coefficients + (half * TILE + j) * WIDTH + state, v);
#pragma unroll
      for (int p = 0; p < PAIR; p++) {
        const acc_t* pair = pairs + (half * CHANNELS + own + p) * PAIRS + 2 * j;
        acc_t step = pair[0], x = pair[1], before = total[p];
        total[p] += step;
        if (grows) {
#pragma unroll
          for (int i = 0; i < SHARE; i++) {
            acc_t decay = fast_exp2(step * a[p][i]), added = x * v[i];
            h[p][i] = REVERSED ? decay * (h[p][i] + added) : fma(decay, h[p][i], added);
          }
        } else {
#pragma unroll
          for (int i = 0; i < SHARE; i++)
            h[p][i] = fma(fast_exp2((REVERSED ? total[p] : before) * a[p][i]), x * v[i], h[p][i]);
        }
      }
    }
    if (n + 1 < tiles) convert(n + 1, half ^ 1);
    bool alive = grows;
#pragma unroll
    for (int p = 0; p < PAIR; p++) alive |= own + p < k.count && !(total[p] * slowest[p] < VANISHED);
    if (!__syncthreads_or(alive)) break;
  }

#pragma unroll
  for (int p = 0; p < PAIR; p++) {
    if (own + p < k.count) {
      index_t at = ((index_t)k.row * s.segments + k.segment) * s.channels + k.channel + own + p;
#pragma unroll
      for (int i = 0; i < SHARE; i++)
        if (state + i < STATES) sums[at * STATES + state + i] = h[p][i];
      if (state == 0) totals[at] = total[p];
    }
  }
}
