// Selective scan, forward. LANES threads share a channel and own SHARE of its states each, in registers.
//
// A block walks its tokens in tiles of TILE. While it scans one tile out of shared memory it has the loads of the
// next in flight; softplus and gate are done once per token and channel. With few channels the tokens are cut
// into segments: `sums` and `totals` (segment_sums, in scan_segments.cu) say what the earlier ones add.
#include "scan.cuh"

constexpr int THREADS = LANES == 1 ? 64 : 128;
constexpr int CHANNELS = THREADS / LANES;
constexpr int TILE = tile_of(CHANNELS, THREADS);
constexpr int LOADED = CHANNELS * TILE / THREADS;  // tokens that a thread loads for one channel
constexpr int STRIDE = THREADS / CHANNELS;         // between two of them
constexpr int PAIRS = 2 * TILE + 4;                // (step, step u) of a channel, rows without bank conflicts
constexpr int GROUP = 4;                           // tokens whose lanes are summed at once
constexpr int WIDE = sizeof(T) == 8 ? 2 : 4;
constexpr int ITEMS = STATES % WIDE ? 1 : WIDE;    // of B or C in one access
constexpr int COEFFICIENTS = (2 * TILE * STATES / ITEMS + THREADS - 1) / THREADS;

// sums over the lanes of a channel of the outputs of four tokens; each lane keeps those of the tokens it writes
__device__ __forceinline__ void write_sums(acc_t (&values)[GROUP], acc_t* row, int lane) {
  int count = GROUP, token = 0;
#pragma unroll
  for (int distance = 1; distance < LANES; distance *= 2) {
    if (count > 1) {
      count /= 2;
      bool upper = lane & distance;
      if (upper) token += count;
#pragma unroll
      for (int i = 0; i < GROUP / 2; i++) {
        if (i < count) {
          acc_t low = values[i], high = values[i + count];
          values[i] = (upper ? high : low) + __shfl_xor_sync(0xffffffffu, upper ? low : high, distance);
        }
      }
    } else {
      values[0] += __shfl_xor_sync(0xffffffffu, values[0], distance);
    }
  }
  if (lane < GROUP) {
#pragma unroll
    for (int i = 0; i < GROUP; i++)
      if (i < count) row[token + i] = values[i];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    selective_scan_forward(const T* __restrict__ u, const T* __restrict__ delta, const acc_t* __restrict__ A,
                           const T* __restrict__ B, const T* __restrict__ C, const acc_t* __restrict__ D,
                           const T* __restrict__ z, const acc_t* __restrict__ bias, const acc_t* __restrict__ h0,
                           const int* __restrict__ order, const unsigned char* __restrict__ marks,
                           const int* __restrict__ starts, const acc_t* __restrict__ sums,
                           const acc_t* __restrict__ totals, sum_t* __restrict__ y, acc_t* __restrict__ states,
                           acc_t* __restrict__ last_state, scan_t s) {
  DYNAMIC_SHARED(acc_t, shared);
  acc_t* pairs = shared;                                 // [2][CHANNELS][PAIRS]
  acc_t* coefficients = pairs + 2 * CHANNELS * PAIRS;    // [2][B, C][TILE][WIDTH]
  acc_t* outputs = coefficients + 4 * TILE * WIDTH;      // [2][CHANNELS][TILE + 1]
  const block_t k = block_of<CHANNELS>(s);
#if CROSS
  order += (index_t)k.direction * s.order_apart;
  A += (index_t)k.direction * s.rate_apart;
  D += (index_t)k.direction * s.skip_apart;
  bias += (index_t)k.direction * s.bias_apart;
  y += (index_t)(k.row - k.item) * s.length * s.channels;
#endif
  const int thread = threadIdx.x, lane = thread % LANES, own = thread / LANES, state = lane * SHARE;
  const int tiles = (k.end - k.begin + TILE - 1) / TILE;
  const int column = thread % CHANNELS, row = thread / CHANNELS;  // of what this thread loads
  const bool owns = own < k.count, loads = column < k.count;
  const bool packed = ITEMS > 1 && aligned16(B) && aligned16(C);

  acc_t a[SHARE], h[SHARE];
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    bool valid = owns && state + i < STATES;
    index_t at = (index_t)(k.channel + own) * STATES + state + i;
    index_t in_item = (index_t)k.item * s.channels * STATES + at;
    a[i] = valid ? A[at] * LOG2_E : acc_t(0);
    h[i] = valid && h0 ? h0[in_item] : acc_t(0);
    for (int q = 0; q < k.segment; q++) {
      index_t before = ((index_t)k.row * s.segments + q) * s.channels + k.channel + own;
      acc_t added = valid ? sums[before * STATES + state + i] : acc_t(0);
      bool forgets = MARKED && starts && starts[(index_t)k.item * s.segments + q] >= 0;
      if (valid) h[i] = forgets ? added : carry(h[i], a[i] * totals[before], added);
    }
  }
  const acc_t shift = loads && bias ? bias[k.channel + column] : acc_t(0);
  const acc_t skip = loads && D ? D[k.channel + column] : acc_t(0);

  int next_mark = 0;
  marks_t now_marks, next_marks;
  T next_u[LOADED], next_delta[LOADED], next_z[LOADED], now_u[LOADED], next_coefficients[COEFFICIENTS][ITEMS];

  auto token = [&](int tile, int i) { return k.begin + tile * TILE + row + i * STRIDE; };
  auto origin = [&](int tile) {
    return ORDERED ? 0 : place(s, order, k.item, token(tile, 0)) * s.channels + k.channel + column;
  };
  auto fetch = [&](int tile) {
    const index_t at_start = origin(tile);
    next_mark = fetch_mark(s, marks, k.item, k.begin + tile * TILE, min(TILE, k.end - k.begin - tile * TILE));
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int t = token(tile, i);
      bool valid = loads && t < k.end;
      index_t at = valid ? element(s, order, k, column, t, token(tile, 0), at_start) : 0;
      next_u[i] = valid ? u[at] : T();
      next_delta[i] = valid ? delta[step_of(s, order, k, column, t, at)] : T();
    }
#pragma unroll
    for (int i = 0; i < COEFFICIENTS; i++) {
      int q = (i * THREADS + thread) * ITEMS, of_c = q >= TILE * STATES;
      int t = k.begin + tile * TILE + (q - of_c * TILE * STATES) / STATES;
      bool valid = q < 2 * TILE * STATES && t < k.end;
      index_t at = valid ? coefficients_of(s, order, k, t, of_c) + q % STATES : 0;
      const T* source = (of_c ? C : B) + at;
      if (!valid) {
#pragma unroll
        for (int j = 0; j < ITEMS; j++) next_coefficients[i][j] = T();
      } else if (packed) {
        pack<T, ITEMS> items = *reinterpret_cast<const pack<T, ITEMS>*>(source);
#pragma unroll
        for (int j = 0; j < ITEMS; j++) next_coefficients[i][j] = items.item[j];
      } else {
#pragma unroll
        for (int j = 0; j < ITEMS; j++) next_coefficients[i][j] = source[j];
      }
    }
  };
  auto convert = [&](int tile, int half) {
    acc_t* target = pairs + (half * CHANNELS + column) * PAIRS;
    next_marks = gather_marks(next_mark);
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      bool valid = loads && token(tile, i) < k.end && !is_frozen(next_marks, row + i * STRIDE);
      acc_t step = valid ? step_size(ld(next_delta[i]) + shift) : acc_t(0);
      acc_t pair[2] = {step, MARKED && !valid ? acc_t(0) : step * ld(next_u[i])};
      target[2 * (row + i * STRIDE)] = pair[0];
      target[2 * (row + i * STRIDE) + 1] = pair[1];
    }
#pragma unroll
    for (int i = 0; i < COEFFICIENTS; i++) {
      int q = (i * THREADS + thread) * ITEMS;
      acc_t* cell = coefficients + half * 2 * TILE * WIDTH + q / STATES * WIDTH + q % STATES;
      if (q < 2 * TILE * STATES) {
#pragma unroll
        for (int j = 0; j < ITEMS; j++)
          cell[j] = is_frozen(next_marks, q / STATES % TILE) ? acc_t(0) : ld(next_coefficients[i][j]);
      }
    }
  };

  if (WIDTH > STATES) {
    for (int i = thread; i < 4 * TILE * WIDTH; i += THREADS)
      if (i % WIDTH >= STATES) coefficients[i] = 0;
  }
  fetch(0);
  convert(0, 0);
#pragma unroll
  for (int i = 0; i < LOADED; i++) now_u[i] = next_u[i];
  now_marks = next_marks;
  __syncthreads();

  for (int tile = 0; tile < tiles; tile++) {
    const int half = tile & 1, start = k.begin + tile * TILE;
    const index_t at_start = origin(tile);
#if GATED
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int t = token(tile, i);
      bool valid = loads && t < k.end;
      next_z[i] = valid ? z[element(s, order, k, column, t, token(tile, 0), at_start)] : T();
    }
#endif
#if CROSS
    acc_t earlier[LOADED];
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int t = token(tile, i);
      bool valid = s.add && loads && t < k.end;
      earlier[i] = valid ? y[element(s, order, k, column, t, token(tile, 0), at_start)] : acc_t(0);
    }
#endif
    if (tile + 1 < tiles) fetch(tile + 1);
    const acc_t* own_pairs = pairs + (half * CHANNELS + own) * PAIRS;
    const acc_t* own_b = coefficients + half * 2 * TILE * WIDTH + state;
    const acc_t* own_c = own_b + TILE * WIDTH;
#pragma unroll 2
    for (int j = 0; j < TILE; j += GROUP) {
      if (states && (start + j) % CHUNK == 0 && start + j < k.end) {
        index_t at = (row_of_chunk(s, k, (start + j) / CHUNK) + state) * s.channels;
#pragma unroll
        for (int i = 0; i < SHARE; i++)
          if (owns && state + i < STATES) states[at + (index_t)i * s.channels + k.channel + own] = h[i];
      }
      acc_t steps[2 * GROUP], totals_of_lane[GROUP];
      ld_row<2 * GROUP>(own_pairs + 2 * j, steps);
#pragma unroll
      for (int m = 0; m < GROUP; m++) {
        acc_t b[SHARE], c[SHARE], total = 0;
        const bool forgets = is_reset(now_marks, j + m);
        ld_row<SHARE>(own_b + (j + m) * WIDTH, b);
        ld_row<SHARE>(own_c + (j + m) * WIDTH, c);
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
          acc_t before = forgets ? acc_t(0) : h[i];
          h[i] = fma(fast_exp2(steps[2 * m] * a[i]), before, steps[2 * m + 1] * b[i]);
          total = fma(c[i], h[i], total);
        }
        totals_of_lane[m] = total;
      }
      write_sums(totals_of_lane, outputs + (half * CHANNELS + own) * (TILE + 1) + j, lane);
    }
    if (tile + 1 < tiles) convert(tile + 1, half ^ 1);
    __syncthreads();
    const acc_t* sums_of_column = outputs + (half * CHANNELS + column) * (TILE + 1) + row;
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
      int t = token(tile, i);
      if (loads && t < k.end) {
        acc_t value = sums_of_column[i * STRIDE];
        if (D) value = fma(skip, ld(now_u[i]), value);
#if GATED
        value *= fast_silu(ld(next_z[i]));
#endif
        if (is_frozen(now_marks, row + i * STRIDE)) value = 0;
#if CROSS
        value += earlier[i];
#endif
        st(&y[element(s, order, k, column, t, token(tile, 0), at_start)], value);
      }
      now_u[i] = next_u[i];
    }
    now_marks = next_marks;
  }
  if (last_state && k.segment == s.segments - 1) {
#pragma unroll
    for (int i = 0; i < SHARE; i++)
      if (owns && state + i < STATES)
        last_state[((index_t)k.item * s.channels + k.channel + own) * STATES + state + i] = h[i];
  }
}
