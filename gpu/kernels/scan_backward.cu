// Selective scan, backward. A warp owns 32 / LANES groups of PAIR channels; a thread SHARE states of its PAIR
// channels.
//
// A block walks the chunks between saved states from the last to the first. For a chunk it recomputes the states
// from the saved one, keeps them in registers, and walks back with the adjoints, while the inputs of the next
// chunk arrive in shared memory. Sums over states and over channels are butterflies in which the first rounds need
// no selects: slot j of lane c holds item j ^ c. So each lane reads B and C from a copy permuted for it.
#include "scan.cuh"

constexpr int THREADS = 32 * WARPS;
constexpr int COLUMNS = 32 / LANES;                       // lanes of different channels in a warp
constexpr int SPAN = COLUMNS * PAIR;                      // channels of a warp
constexpr int CHANNELS = SPAN * WARPS;
constexpr int COPIES = SHARE < COLUMNS ? SHARE : COLUMNS;  // permutations of B and C
constexpr int ARRAYS = GATED ? 4 : 3;                     // u, delta, dy, z
constexpr int ROWS = THREADS / CHANNELS;                  // tokens that the block handles side by side
constexpr int OWNED = (CHUNK + ROWS - 1) / ROWS;          // tokens of a chunk that a thread handles
constexpr int ITEMS = 16 / sizeof(T);                     // of one asynchronous copy
constexpr acc_t LN_2 = 0.69314718055994530942;
static_assert(CHANNELS <= THREADS, "a thread handles the elements of one channel");

// sum over the lanes of different channels; slot j of column c holds state j ^ (c % COPIES)
__device__ __forceinline__ void sum_columns(acc_t (&values)[SHARE], int distance_of_column) {
#pragma unroll
  for (int distance = 1; distance < COPIES; distance *= 2) {
#pragma unroll
    for (int j = 0; j < SHARE; j += 2 * distance)
      values[j] += __shfl_xor_sync(0xffffffffu, values[j + distance], distance * distance_of_column);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    selective_scan_backward(const T* __restrict__ u, const T* __restrict__ delta, const acc_t* __restrict__ A,
                            const T* __restrict__ B, const T* __restrict__ C, const acc_t* __restrict__ D,
                            const T* __restrict__ z, const acc_t* __restrict__ bias, const T* __restrict__ dy,
                            const acc_t* __restrict__ dlast, const acc_t* __restrict__ states,
                            const int* __restrict__ order, const unsigned char* __restrict__ marks,
                            const int* __restrict__ starts, const acc_t* __restrict__ sums,
                            const acc_t* __restrict__ totals, sum_t* __restrict__ du, T* __restrict__ ddelta,
                            acc_t* __restrict__ step_sums, sum_t* __restrict__ dz, acc_t* __restrict__ dh0, acc_t* __restrict__ dA,
                            acc_t* __restrict__ dD, acc_t* __restrict__ dbias, acc_t* __restrict__ partial,
                            scan_t s) {
  // arrays of T first: raw inputs of two chunks
  DYNAMIC_SHARED(T, raw);                                                // [2][ARRAYS][CHUNK][CHANNELS]
  T* raw_coefficients = raw + 2 * ARRAYS * CHUNK * CHANNELS;             // [2][B, C][CHUNK][WIDTH]
  acc_t* pairs = (acc_t*)(raw_coefficients + 4 * CHUNK * WIDTH);         // [CHUNK][CHANNELS][step, step u or output]
  acc_t* cotangents = pairs + 2 * CHUNK * CHANNELS;                      // [CHUNK][CHANNELS]
  acc_t* copies = cotangents + CHUNK * CHANNELS;                         // [B, C][CHUNK][COPIES][WIDTH]
  acc_t* inner_outer = copies + 2 * CHUNK * COPIES * WIDTH;              // [CHUNK][CHANNELS][2]
  acc_t* warp_sums = inner_outer + 2 * CHUNK * CHANNELS;                 // [WARPS][CHUNK][B, C][WIDTH]
  acc_t* starts_of_chunks = warp_sums + WARPS * CHUNK * 2 * WIDTH;       // [2][PAIR][SHARE][THREADS]

  const block_t k = block_of<CHANNELS>(s);
#if CROSS
  order += (index_t)k.direction * s.order_apart;
  A += (index_t)k.direction * s.rate_apart;
  D += (index_t)k.direction * s.skip_apart;
  bias += (index_t)k.direction * s.bias_apart;
#endif
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % LANES, column = thread % 32 / LANES;
  const int part = blockIdx.x % s.parts;
  const int first_chunk = k.begin / CHUNK, last_chunk = (k.end - 1) / CHUNK;
  // what this thread computes: channels within the block, states
  int channel[PAIR], state[SHARE];
#pragma unroll
  for (int p = 0; p < PAIR; p++) channel[p] = warp * SPAN + column * PAIR + (p ^ (lane & (PAIR - 1)));
#pragma unroll
  for (int j = 0; j < SHARE; j++) state[j] = lane * SHARE + (j ^ (column & (COPIES - 1)));
  // what it loads and writes
  const int own = thread % CHANNELS, row = thread / CHANNELS;
  const bool owns = own < k.count;
  const acc_t shift = owns && bias ? bias[k.channel + own] : acc_t(0);
  const acc_t skip = owns && D ? D[k.channel + own] : acc_t(0);
  acc_t skip_sum = 0, bias_sum = 0;
  const bool packed = CHANNELS % ITEMS == 0 && s.channels % ITEMS == 0 && k.channel % ITEMS == 0 && aligned16(u) &&
                      aligned16(delta) && aligned16(dy) && aligned16(z);
  const bool packed_coefficients =
      STATES % ITEMS == 0 && WIDTH % ITEMS == 0 && aligned16(B) && aligned16(C);

  acc_t a[PAIR][SHARE], adjoint[PAIR][SHARE], rate_sum[PAIR][SHARE];
#pragma unroll
  for (int p = 0; p < PAIR; p++) {
#pragma unroll
    for (int j = 0; j < SHARE; j++) {
      bool valid = channel[p] < k.count && state[j] < STATES;
      index_t at = (index_t)(k.channel + channel[p]) * STATES + state[j];
      a[p][j] = valid ? A[at] * LOG2_E : acc_t(0);
      rate_sum[p][j] = 0;
      adjoint[p][j] = valid && dlast ? dlast[(index_t)k.item * s.channels * STATES + at] : acc_t(0);
      for (int q = s.segments - 1; q > k.segment; q--) {
        index_t behind = ((index_t)k.row * s.segments + q) * s.channels + k.channel + channel[p];
        acc_t added = valid ? sums[behind * STATES + state[j]] : acc_t(0);
        bool forgets = MARKED && starts && starts[(index_t)k.item * s.segments + q] < s.length;
        if (valid) adjoint[p][j] = forgets ? added : carry(adjoint[p][j], a[p][j] * totals[behind], added);
      }
    }
  }

  // a state of this thread before a chunk: no other thread reads it
  auto start_of = [&](int chunk, int p, int j) {
    return starts_of_chunks + (((chunk & 1) * PAIR + p) * SHARE + j) * THREADS + thread;
  };
  int next_mark = 0;
  marks_t own_marks;

  auto issue = [&](int chunk) {
    next_mark = fetch_mark(s, marks, k.item, chunk * CHUNK, min(CHUNK, k.end - chunk * CHUNK));
    T* target = raw + (chunk & 1) * ARRAYS * CHUNK * CHANNELS;
    const T* sources[4] = {u, delta, dy, z};
    if (packed) {
      constexpr int across = (CHANNELS + ITEMS - 1) / ITEMS;
      for (int i = thread; i < CHUNK * across; i += THREADS) {
        int j = i / across, q = i % across * ITEMS, t = chunk * CHUNK + j;
        int valid = t < k.end ? max(0, min(ITEMS, k.count - q)) : 0;
        index_t at = valid ? place(s, order, k.item, t) * s.channels + k.channel + q : 0;
#pragma unroll
        for (int n = 0; n < ARRAYS; n++)
          copy_async<16>(target + (n * CHUNK + j) * CHANNELS + q,
                         sources[n] + (n == 1 && valid ? step_of(s, order, k, q, t, at) : at),
                         valid * (int)sizeof(T));
      }
    } else {
      for (int i = thread; i < CHUNK * CHANNELS; i += THREADS) {
        int j = i / CHANNELS, q = i % CHANNELS, t = chunk * CHUNK + j;
        bool valid = t < k.end && q < k.count;
        index_t at = valid ? place(s, order, k.item, t) * s.channels + k.channel + q : 0;
#pragma unroll
        for (int n = 0; n < ARRAYS; n++)
          target[(n * CHUNK + j) * CHANNELS + q] =
              valid ? sources[n][n == 1 ? step_of(s, order, k, q, t, at) : at] : T();
      }
    }
    T* coefficients = raw_coefficients + (chunk & 1) * 2 * CHUNK * WIDTH;
    if (packed_coefficients) {
      constexpr int across = (WIDTH + ITEMS - 1) / ITEMS;
      for (int i = thread; i < CHUNK * across; i += THREADS) {
        int j = i / across, q = i % across * ITEMS, t = chunk * CHUNK + j;
        int valid = t < k.end && q < STATES ? ITEMS : 0;
        index_t at_b = valid ? coefficients_of(s, order, k, t, false) + q : 0;
        index_t at_c = valid ? coefficients_of(s, order, k, t, true) + q : 0;
        copy_async<16>(coefficients + j * WIDTH + q, B + at_b, valid * (int)sizeof(T));
        copy_async<16>(coefficients + (CHUNK + j) * WIDTH + q, C + at_c, valid * (int)sizeof(T));
      }
    } else {
      for (int i = thread; i < CHUNK * WIDTH; i += THREADS) {
        int j = i / WIDTH, q = i % WIDTH, t = chunk * CHUNK + j;
        bool valid = t < k.end && q < STATES;
        coefficients[j * WIDTH + q] = valid ? B[coefficients_of(s, order, k, t, false) + q] : T();
        coefficients[(CHUNK + j) * WIDTH + q] = valid ? C[coefficients_of(s, order, k, t, true) + q] : T();
      }
    }
#pragma unroll
    for (int p = 0; p < PAIR; p++) {
#pragma unroll
      for (int j = 0; j < SHARE; j++) {
        bool valid = channel[p] < k.count && state[j] < STATES;
        index_t row = row_of_chunk(s, k, chunk) + state[j];
        copy_async<sizeof(acc_t)>(start_of(chunk, p, j),
                                  states + (valid ? row * s.channels + k.channel + channel[p] : 0),
                                  valid * (int)sizeof(acc_t));
      }
    }
    copy_async_commit();
  };
  auto transform = [&](int chunk) {
    own_marks = gather_marks(next_mark);
    const T* source = raw + (chunk & 1) * ARRAYS * CHUNK * CHANNELS + own;
#pragma unroll
    for (int j = row; j < CHUNK; j += ROWS) {
      int at = j * CHANNELS;
      bool frozen = is_frozen(own_marks, j), valid = owns && chunk * CHUNK + j < k.end && !frozen;
      acc_t step = valid ? step_size(ld(source[CHUNK * CHANNELS + at]) + shift) : acc_t(0);
      acc_t ds = ld(source[2 * CHUNK * CHANNELS + at]);
#if GATED
      ds *= fast_silu(ld(source[3 * CHUNK * CHANNELS + at]));
#endif
      pairs[2 * (at + own)] = step;
      pairs[2 * (at + own) + 1] = frozen ? acc_t(0) : step * ld(source[at]);
      cotangents[at + own] = frozen ? acc_t(0) : ds;
    }
    const T* coefficients = raw_coefficients + (chunk & 1) * 2 * CHUNK * WIDTH;
    for (int i = thread; i < 2 * CHUNK * LANES; i += THREADS) {
      int at = i / LANES, of = i % LANES * SHARE;  // row of B, then of C; states
      acc_t values[SHARE], permuted[SHARE];
#pragma unroll
      for (int j = 0; j < SHARE; j++)
        values[j] = is_frozen(own_marks, at % CHUNK) ? acc_t(0) : ld(coefficients[at * WIDTH + of + j]);
#pragma unroll
      for (int copy = 0; copy < COPIES; copy++) {
#pragma unroll
        for (int j = 0; j < SHARE; j++) permuted[j] = values[j ^ copy];
        st_row<SHARE>(copies + (at * COPIES + copy) * WIDTH + of, permuted);
      }
    }
  };
#if CROSS
  // sums that directions share have a place for each direction of a launch
  auto place_of_sum = [&](int t) { return place(s, order, k.row, t) * s.channels + k.channel + own; };
  auto step_sum_of = [&](index_t step) {
    return step + (s.delta_apart ? 0 : (index_t)(k.row - k.item) * s.length * s.channels);
  };
  // what earlier scans added to du, to the gradient of the steps and to dz
  acc_t earlier[OWNED], earlier_steps[OWNED], earlier_gates[OWNED];
  auto fetch_sums = [&](int chunk) {
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
      int j = row + i * ROWS, t = chunk * CHUNK + j;
      bool valid = j < CHUNK && owns && t < k.end;
      index_t at = valid ? place(s, order, k.item, t) * s.channels + k.channel + own : 0;
      earlier[i] = valid && s.add ? du[place_of_sum(t)] : acc_t(0);
      earlier_steps[i] = valid && s.add_steps ? step_sums[step_sum_of(step_of(s, order, k, own, t, at))] : acc_t(0);
#if GATED
      earlier_gates[i] = valid && s.add ? dz[at] : acc_t(0);
#endif
    }
  };
#endif
  auto write = [&](int chunk) {
    const T* source = raw + (chunk & 1) * ARRAYS * CHUNK * CHANNELS + own;
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
      int j = row + i * ROWS, at = j * CHANNELS, t = chunk * CHUNK + j;
      if (owns && t < k.end && (ROWS <= CHUNK || j < CHUNK)) {
        index_t target = place(s, order, k.item, t) * s.channels + k.channel + own;
        const bool frozen = is_frozen(own_marks, j);
        acc_t x = frozen ? acc_t(0) : ld(source[at]), step = pairs[2 * (at + own)], ds = cotangents[at + own];
        acc_t inner = inner_outer[2 * (at + own)], outer = inner_outer[2 * (at + own) + 1];
#if GATED
        acc_t gate = frozen ? acc_t(0) : ld(source[3 * CHUNK * CHANNELS + at]), sigmoid = fast_sigmoid(gate);
        acc_t sum = pairs[2 * (at + own) + 1], output = D ? fma(skip, x, sum) : sum;
        acc_t slope = sigmoid * fma(gate, acc_t(1) - sigmoid, acc_t(1));
        acc_t dgate = frozen ? acc_t(0) : ld(source[2 * CHUNK * CHANNELS + at]) * output * slope;
#if CROSS
        dgate += earlier_gates[i];
#endif
        st(&dz[target], dgate);
#endif
        acc_t dstep = fma(x, inner, outer * LN_2);
        if (SOFTPLUS) dstep *= fast_sigmoid(ld(source[CHUNK * CHANNELS + at]) + shift);
        acc_t dx = step * inner;
        if (frozen) dstep = dx = 0;
#if CROSS
        index_t step_target = step_of(s, order, k, own, t, target);
        du[place_of_sum(t)] = (D ? fma(skip, ds, dx) : dx) + earlier[i];
        if (step_sums) step_sums[step_sum_of(step_target)] = dstep + earlier_steps[i];
        else st(&ddelta[step_target], dstep);
#else
        st(&du[target], D ? fma(skip, ds, dx) : dx);
        st(&ddelta[target], dstep);
#endif
        skip_sum = fma(ds, x, skip_sum);
        bias_sum += dstep;
      }
    }
    for (int i = thread; i < CHUNK * 2 * WIDTH; i += THREADS) {
      int j = i / (2 * WIDTH), of = i % (2 * WIDTH), t = chunk * CHUNK + j;
      int n = of % WIDTH;
      if (t < k.end && n < STATES) {
        acc_t total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += warp_sums[(w * CHUNK + j) * 2 * WIDTH + of];
        index_t rows = (index_t)gridDim.x / s.parts * s.length;
        index_t target = part * rows + source_of(s, order, k.row, t) * s.groups + k.group;
        partial[(target * 2 + of / WIDTH) * STATES + n] = is_frozen(own_marks, j) ? acc_t(0) : total;
      }
    }
  };

  issue(last_chunk);
  copy_async_wait<0>();
  __syncthreads();
  transform(last_chunk);
  for (int chunk = last_chunk; chunk >= first_chunk; chunk--) {
    __syncthreads();
    acc_t h[CHUNK][PAIR][SHARE];
    if (chunk > first_chunk) issue(chunk - 1);
    const acc_t* own_b = copies + (column & (COPIES - 1)) * WIDTH + lane * SHARE;
    const acc_t* own_c = own_b + CHUNK * COPIES * WIDTH;
#pragma unroll
    for (int t = 0; t < CHUNK; t++) {
      acc_t b[SHARE];
      const bool forgets = is_reset(own_marks, t);
      ld_row<SHARE>(own_b + t * COPIES * WIDTH, b);
#pragma unroll
      for (int p = 0; p < PAIR; p++) {
        acc_t pair[2];
        ld_row<2>(pairs + 2 * (t * CHANNELS + channel[p]), pair);
#pragma unroll
        for (int j = 0; j < SHARE; j++) {
          acc_t before = forgets ? acc_t(0) : t ? h[t ? t - 1 : 0][p][j] : *start_of(chunk, p, j);
          h[t][p][j] = fma(fast_exp2(pair[0] * a[p][j]), before, pair[1] * b[j]);
        }
      }
    }
#pragma unroll
    for (int t = CHUNK - 1; t >= 0; t--) {
      acc_t b[SHARE], c[SHARE], db[SHARE], dc[SHARE], inner[PAIR], outer[PAIR], output[PAIR];
      const bool forgets = is_reset(own_marks, t);
      ld_row<SHARE>(own_b + t * COPIES * WIDTH, b);
      ld_row<SHARE>(own_c + t * COPIES * WIDTH, c);
#pragma unroll
      for (int p = 0; p < PAIR; p++) {
        acc_t pair[2], ds = cotangents[t * CHANNELS + channel[p]];
        ld_row<2>(pairs + 2 * (t * CHANNELS + channel[p]), pair);
#pragma unroll
        for (int j = 0; j < SHARE; j++) {
          acc_t before = forgets ? acc_t(0) : t ? h[t ? t - 1 : 0][p][j] : *start_of(chunk, p, j);
          acc_t after = h[t][p][j];
          acc_t total = fma(c[j], ds, adjoint[p][j]);
          // no adjoint goes back beyond a start
          adjoint[p][j] = forgets ? acc_t(0) : fast_exp2(pair[0] * a[p][j]) * total;
          acc_t exponent = adjoint[p][j] * before;
          inner[p] = j ? fma(total, b[j], inner[p]) : total * b[j];
          outer[p] = j ? fma(a[p][j], exponent, outer[p]) : a[p][j] * exponent;
          output[p] = j ? fma(c[j], after, output[p]) : c[j] * after;
          rate_sum[p][j] = fma(pair[0], exponent, rate_sum[p][j]);
          db[j] = p ? fma(total, pair[1], db[j]) : total * pair[1];
          dc[j] = p ? fma(ds, after, dc[j]) : ds * after;
        }
      }
      acc_t* target = warp_sums + (warp * CHUNK + t) * 2 * WIDTH;
      sum_columns(db, LANES);
      sum_columns(dc, LANES);
      if (COLUMNS > COPIES) {
        // the next round gives B to one half of the columns and C to the other
        bool upper = column & COPIES;
        acc_t kept = (upper ? dc[0] : db[0]) + __shfl_xor_sync(0xffffffffu, upper ? db[0] : dc[0], COPIES * LANES);
#pragma unroll
        for (int distance = 2 * COPIES; distance < COLUMNS; distance *= 2)
          kept += __shfl_xor_sync(0xffffffffu, kept, distance * LANES);
        if (column < 2 * COPIES) target[upper * WIDTH + state[0]] = kept;
      } else {
#pragma unroll
        for (int j = 0; j < SHARE; j += COPIES) {
          target[state[j]] = db[j];
          target[WIDTH + state[j]] = dc[j];
        }
      }
      acc_t* sums_of_states = inner_outer + 2 * (t * CHANNELS + channel[0]);
      if (PAIR == 2) {
        inner[0] += __shfl_xor_sync(0xffffffffu, inner[PAIR - 1], 1);
        outer[0] += __shfl_xor_sync(0xffffffffu, outer[PAIR - 1], 1);
      }
      if (LANES > PAIR) {
        bool upper = lane & PAIR;
        acc_t kept = (upper ? outer[0] : inner[0]) + __shfl_xor_sync(0xffffffffu, upper ? inner[0] : outer[0], PAIR);
#pragma unroll
        for (int distance = 2 * PAIR; distance < LANES; distance *= 2)
          kept += __shfl_xor_sync(0xffffffffu, kept, distance);
        if (lane < 2 * PAIR) sums_of_states[upper] = kept;
      } else {
        sums_of_states[0] = inner[0];
        sums_of_states[1] = outer[0];
      }
#if GATED
      if (PAIR == 2) output[0] += __shfl_xor_sync(0xffffffffu, output[PAIR - 1], 1);
#pragma unroll
      for (int distance = PAIR; distance < LANES; distance *= 2)
        output[0] += __shfl_xor_sync(0xffffffffu, output[0], distance);
      // in place of step u, which every lane of the channel has read by now
      __syncwarp();
      if (lane < PAIR) pairs[2 * (t * CHANNELS + channel[0]) + 1] = output[0];
#endif
    }
#if CROSS
    fetch_sums(chunk);
#endif
    copy_async_wait<0>();
    __syncthreads();
    write(chunk);
    if (chunk > first_chunk) transform(chunk - 1);
  }

  const index_t own_row = (index_t)k.row * s.segments + k.segment;
#pragma unroll
  for (int p = 0; p < PAIR; p++) {
#pragma unroll
    for (int j = 0; j < SHARE; j++) {
      if (channel[p] < k.count && state[j] < STATES) {
        index_t at = (index_t)(k.channel + channel[p]) * STATES + state[j], size = (index_t)s.channels * STATES;
        dA[own_row * size + at] = rate_sum[p][j];
        if (dh0 && k.segment == 0) dh0[k.item * size + at] = adjoint[p][j];
      }
    }
  }
  // the threads of a channel in order
  __syncthreads();
  acc_t* shares = pairs;
  shares[thread] = skip_sum;
  shares[THREADS + thread] = bias_sum;
  __syncthreads();
  if (thread < CHANNELS && owns) {
    acc_t skips = 0, biases = 0;
    for (int r = 0; r < ROWS; r++) {
      skips += shares[r * CHANNELS + thread];
      biases += shares[THREADS + r * CHANNELS + thread];
    }
    dD[own_row * s.channels + k.channel + thread] = skips;
    dbias[own_row * s.channels + k.channel + thread] = biases;
  }
}

// dB and dC from the shares of the parts, partial (parts, directions rows, 2, STATES): put into rows b_row and c_row
// apart, or added to them
extern "C" __global__ void __launch_bounds__(256)
    sum_coefficients(const acc_t* __restrict__ partial, sum_t* __restrict__ dB, sum_t* __restrict__ dC, long long rows,
                     int parts, int directions, int b_row, int c_row, long long b_apart, long long c_apart, bool add_b,
                     bool add_c) {
  index_t at = global_index(), size = rows * directions * 2 * STATES;
  if (at >= size) return;
  acc_t total = partial[at];
#pragma unroll 4
  for (int part = 1; part < parts; part++) total += partial[part * size + at];
  index_t row = at / (2 * STATES);
  int of = at % (2 * STATES);
#if CROSS
  dB += row / rows * b_apart;
  dC += row / rows * c_apart;
  row %= rows;
#endif
  sum_t* target = of < STATES ? &dB[row * b_row + of] : &dC[row * c_row + of - STATES];
#if CROSS
  if (of < STATES ? add_b : add_c) total += *target;
#endif
  st(target, total);
}
