// Depthwise convolutions on channels-last arrays. The macros choose what a module holds:
// RING  square odd kernels of TAPS x TAPS taps that keep the grid: 1 the convolution, 2 the gradient of its
//       weights, 3 the whole backward
// ITEMS the causal 1-D convolution with TAPS taps
// none  any 2-D kernel, dilation and padding
#include "columns.cuh"

// out[i] = sum of partial[.., i] over the parts
extern "C" __global__ void __launch_bounds__(256)
    sum_parts(const acc_t* __restrict__ partial, acc_t* __restrict__ out, int parts, int size) {
  index_t i = global_index();
  if (i >= size) return;
  acc_t sums[4] = {0, 0, 0, 0};
  int part = 0;
  for (; part + 4 <= parts; part += 4)
#pragma unroll
    for (int k = 0; k < 4; k++) sums[k] += partial[(index_t)(part + k) * size + i];
  for (; part < parts; part++) sums[0] += partial[(index_t)part * size + i];
  out[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

#if defined(RING)
// A block has some images, CHANNELS channels, TILES tiles of TILE columns and some rows; a thread has one
// channel of one tile. Rows arrive in rings of shared memory, AHEAD of their use, with the columns beside the
// block that the kernel reaches; cells outside the grid hold zeros. WIDTH is the width of the grid, or 0 if
// blocks share its rows.

constexpr int REACH = TAPS / 2, SPAN = TILE * TILES, WIDE = SPAN + 2 * REACH, THREADS = CHANNELS * TILES;
constexpr int VALUES = TILE + TAPS - 1, AREA = TAPS * TAPS;

struct place_t {
  int lane, tile;   // channel within the block, tile within the block
  int channels;     // of the block that exist
  int left, width;  // first column of the block, width of the grid
  int top, bottom;  // rows of the block
  int images;       // of the block, one after the other
  index_t image;    // offset of the first one's first pixel at the block's first channel
  index_t part;     // number of the block among those of its channels
  index_t channel;  // own channel
  bool active;      // whether that exists
};

__device__ __forceinline__ place_t place(int batch, int height, int width, int c, int images, int rows) {
  place_t own;
  own.width = WIDTH ? WIDTH : width;
  const int across = WIDTH ? 1 : (width + SPAN - 1) / SPAN, down = (height + rows - 1) / rows;
  const int groups = (c + CHANNELS - 1) / CHANNELS;
  const int first = (int)(blockIdx.x % groups) * CHANNELS;
  own.part = blockIdx.x / groups;
  own.left = (int)(own.part % across) * SPAN;
  own.top = (int)(own.part / across % down) * rows;
  own.bottom = min(height, own.top + rows);
  const index_t image = own.part / across / down * images;
  own.images = min(images, (int)(batch - image));
  own.image = image * height * own.width * c + first;
  own.lane = threadIdx.x % CHANNELS;
  own.tile = threadIdx.x / CHANNELS;
  own.channels = min(c - first, CHANNELS);
  own.channel = first + own.lane;
  own.active = own.lane < own.channels;
  return own;
}

// the columns of the grid that a shared row holds; its first cell is column left - reach
struct columns_t {
  int from, to, start;
};

__device__ __forceinline__ columns_t columns(const place_t& own, int reach) {
  const int start = own.left - reach;
  return {max(start, 0), min(own.left + SPAN + reach, own.width), start};
}

// starts copying one row of the block; `row` is its first pixel at the block's first channel
__device__ __forceinline__ void fetch(T* target, const T* row, columns_t held, int c, int channels,
                                      bool wide) {
  target += (held.from - held.start) * CHANNELS;
  row += (index_t)held.from * c;
  constexpr int GROUP = 16 / sizeof(T), PARTS = CHANNELS / GROUP;
  if (wide) {
#pragma unroll
    for (int i = threadIdx.x; i < (held.to - held.from) * PARTS; i += THREADS) {
      const int pixel = i / PARTS, item = i % PARTS * GROUP;
      if (item < channels) copy_async<16>(target + pixel * CHANNELS + item, row + pixel * c + item);
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < (held.to - held.from) * CHANNELS; i += THREADS) {
      const int pixel = i / CHANNELS, item = i % CHANNELS;
      if (item < channels) {
        if constexpr (sizeof(T) >= 4)
          copy_async<sizeof(T)>(target + i, row + pixel * c + item);
        else
          target[i] = row[pixel * c + item];
      }
    }
  }
}

// zeros in all cells of a ring that no copy writes
__device__ __forceinline__ void clear(T* ring, int rows, int pixels, columns_t held, int channels) {
  for (int i = threadIdx.x; i < rows * pixels * CHANNELS; i += THREADS) {
    const int column = held.start + i / CHANNELS % pixels;
    if (column < held.from || column >= held.to || i % CHANNELS >= channels) ring[i] = T();
  }
}

template <int count>
__device__ __forceinline__ void take(acc_t (&values)[count], const T* cells) {
#pragma unroll
  for (int i = 0; i < count; i++) values[i] = ld(cells[i * CHANNELS]);
}

// adds one row to the TAPS rows of sums that it reaches and moves these up by one; sums[0] is complete then
__device__ __forceinline__ void roll(acc_t (&sums)[TAPS][TILE], const acc_t (&values)[VALUES],
                                     const acc_t (&weights)[AREA], acc_t offset) {
#pragma unroll
  for (int k = 0; k < TAPS; k++) {
    const int i = TAPS - 1 - k;
#pragma unroll
    for (int t = 0; t < TILE; t++) {
      acc_t sum = k < TAPS - 1 ? sums[k < TAPS - 1 ? k + 1 : 0][t] : offset;
#pragma unroll
      for (int j = 0; j < TAPS; j++) sum = fma(weights[i * TAPS + j], values[t + j], sum);
      sums[k][t] = sum;
    }
  }
}

// adds to the sums of every tap and of dy what row r of x, in `values`, meets; `cells` is the tile in the
// ring of dy
__device__ __forceinline__ void meet(acc_t (&sums)[AREA + 1], const acc_t (&values)[VALUES], const T* cells,
                                     int row, int slots, int r, int height) {
#pragma unroll
  for (int i = 0; i < TAPS; i++) {
    const int p = r - i + REACH;
    if (p < 0 || p >= height) continue;
    acc_t g[TILE];
    take(g, cells + (p & (slots - 1)) * row);
#pragma unroll
    for (int t = 0; t < TILE; t++)
#pragma unroll
      for (int j = 0; j < TAPS; j++) sums[i * TAPS + j] = fma(g[t], values[t + j], sums[i * TAPS + j]);
    if (i == REACH)
#pragma unroll
      for (int t = 0; t < TILE; t++) sums[AREA] += g[t];
  }
}

// partial[block][tap][channel]: the sums of the tiles added in order, TAPS of them at a time; shared memory
// may be overwritten
__device__ __forceinline__ void write_sums(const acc_t (&sums)[AREA + 1], acc_t* shared, acc_t* partial,
                                           const place_t& own, int c) {
  partial += own.part * (AREA + 1) * c + own.channel - own.lane;
#pragma unroll
  for (int first = 0; first <= AREA; first += TAPS) {
    const int count = first < AREA ? TAPS : 1;
    // whoever still reads the rings or the last sums
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TAPS; k++)
      if (k < count)
        shared[(own.tile * TAPS + k) * CHANNELS + own.lane] = sums[first + k < AREA ? first + k : AREA];
    __syncthreads();
    for (int i = threadIdx.x; i < count * CHANNELS; i += THREADS) {
      const int k = i / CHANNELS, lane = i % CHANNELS;
      acc_t total = 0;
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) total += shared[(tile * TAPS + k) * CHANNELS + lane];
      if (lane < own.channels) partial[(index_t)(first + k) * c + lane] = total;
    }
  }
}

__device__ __forceinline__ void write_tile(T* row, const acc_t (&values)[TILE], const place_t& own, int c) {
  if (!own.active) return;
#pragma unroll
  for (int t = 0; t < TILE; t++)
    if (SPAN == WIDTH || own.left + own.tile * TILE + t < own.width) st(&row[t * c], values[t]);
}

__device__ __forceinline__ bool allows_wide(const void* pointer, int c) {
  return c % (int)(16 / sizeof(T)) == 0 && aligned16(pointer);
}

#if RING == 1
// y = conv(x) + bias; with FLIP the kernel is flipped in both axes, which makes it the gradient of its input
extern "C" __global__ void __launch_bounds__(CHANNELS* TILES, BLOCKS)
    ring_convolve(const T* __restrict__ x, const acc_t* __restrict__ w, const acc_t* __restrict__ bias,
                  T* __restrict__ y, int batch, int height, int width, int c, int rows) {
  DYNAMIC_SHARED(T, ring);
  constexpr int SLOTS = AHEAD + 1, ROW = WIDE * CHANNELS;
  const place_t own = place(batch, height, width, c, 1, rows);
  const columns_t held = columns(own, REACH);
  const bool wide = allows_wide(x, c);
  x += own.image;
  y += own.image + (index_t)(own.left + own.tile * TILE) * c + own.lane;
  const index_t step = (index_t)own.width * c;

  clear(ring, SLOTS, WIDE, held, own.channels);
  acc_t weights[AREA], sums[TAPS][TILE];
#pragma unroll
  for (int i = 0; i < AREA; i++)
    weights[i] = own.active ? w[(index_t)(FLIP ? AREA - 1 - i : i) * c + own.channel] : (acc_t)0;
  const acc_t offset = bias && own.active ? bias[own.channel] : (acc_t)0;
#pragma unroll
  for (int k = 0; k < TAPS; k++)
#pragma unroll
    for (int t = 0; t < TILE; t++) sums[k][t] = offset;

  const int begin = max(own.top - REACH, 0), end = min(own.bottom + REACH, height);
  auto issue = [&](int r, int slot) {
    if (r < end) fetch(ring + slot * ROW, x + r * step, held, c, own.channels, wide);
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < AHEAD; i++) issue(begin + i, i);
  int slot = 0, free_slot = AHEAD;
#pragma unroll 1
  for (int r = begin; r < end; r++) {
    copy_async_wait<AHEAD - 1>();
    __syncthreads();
    issue(r + AHEAD, free_slot);
    acc_t values[VALUES];
    take(values, ring + slot * ROW + own.tile * TILE * CHANNELS + own.lane);
    roll(sums, values, weights, offset);
    if (r - REACH >= own.top) write_tile(y + (r - REACH) * step, sums[0], own, c);
    slot = slot + 1 == SLOTS ? 0 : slot + 1;
    free_slot = free_slot + 1 == SLOTS ? 0 : free_slot + 1;
  }
  // at the bottom of the grid the last rows get nothing more
#pragma unroll
  for (int k = 1; k <= REACH; k++) {
    const int p = end - 1 - REACH + k;
    if (p >= own.top && p < own.bottom) write_tile(y + p * step, sums[k], own, c);
  }
}

#elif RING == 2
// partial[block] = sums of x dy for every tap, and of dy: a row of x belongs to one block, those of dy are
// the ones it meets
extern "C" __global__ void __launch_bounds__(CHANNELS* TILES, BLOCKS)
    ring_weights(const T* __restrict__ x, const T* __restrict__ dy, acc_t* __restrict__ partial, int batch,
                 int height, int width, int c, int images, int rows) {
  DYNAMIC_SHARED(T, ring);
  constexpr int SLOTS = 2, DY_SLOTS = TAPS < 4 ? 4 : 8, ROW = WIDE * CHANNELS, DY_ROW = SPAN * CHANNELS;
  T* dy_ring = ring + SLOTS * ROW;
  const place_t own = place(batch, height, width, c, images, rows);
  const columns_t held = columns(own, REACH), dy_held = columns(own, 0);
  const bool wide = allows_wide(x, c) && aligned16(dy);
  x += own.image;
  dy += own.image;
  const index_t step = (index_t)own.width * c;

  clear(ring, SLOTS, WIDE, held, own.channels);
  clear(dy_ring, DY_SLOTS, SPAN, dy_held, own.channels);
  acc_t sums[AREA + 1];
#pragma unroll
  for (int i = 0; i <= AREA; i++) sums[i] = 0;

  auto fetch_x = [&](int r) { fetch(ring + (r & 1) * ROW, x + r * step, held, c, own.channels, wide); };
  auto fetch_dy = [&](int p) {
    T* target = dy_ring + (p & (DY_SLOTS - 1)) * DY_ROW;
    if (p < height) fetch(target, dy + p * step, dy_held, c, own.channels, wide);
  };
  for (int n = 0; n < own.images; n++, x += height * step, dy += height * step) {
    // whoever still reads the last image
    if (n > 0) __syncthreads();
    for (int p = max(own.top - REACH, 0); p <= own.top + REACH; p++) fetch_dy(p);
    fetch_x(own.top);
    copy_async_commit();
#pragma unroll 1
    for (int r = own.top; r < own.bottom; r++) {
      copy_async_wait<0>();
      __syncthreads();
      if (r + 1 < own.bottom) {
        fetch_dy(r + REACH + 1);
        fetch_x(r + 1);
      }
      copy_async_commit();
      acc_t values[VALUES];
      const int cell = own.tile * TILE * CHANNELS + own.lane;
      take(values, ring + (r & 1) * ROW + cell);
      meet(sums, values, dy_ring + cell, DY_ROW, DY_SLOTS, r, height);
    }
  }
  write_sums(sums, reinterpret_cast<acc_t*>(ring), partial, own, c);
}

#else
// dx, and partial as in ring_weights, with one reading of dy: a block owns rows of x and of dx
extern "C" __global__ void __launch_bounds__(CHANNELS* TILES, BLOCKS)
    ring_backward(const T* __restrict__ x, const acc_t* __restrict__ w, const T* __restrict__ dy,
                  T* __restrict__ dx, acc_t* __restrict__ partial, int batch, int height, int width, int c,
                  int images, int rows) {
  DYNAMIC_SHARED(T, ring);
  constexpr int SLOTS = 4, DY_SLOTS = 8, ROW = WIDE * CHANNELS;
  static_assert(AHEAD < SLOTS && 2 * REACH + AHEAD < DY_SLOTS, "a row would arrive where another is in use");
  T* dy_ring = ring + SLOTS * ROW;
  const place_t own = place(batch, height, width, c, images, rows);
  const columns_t held = columns(own, REACH);
  const bool wide = allows_wide(x, c) && aligned16(dy);
  x += own.image;
  dy += own.image;
  dx += own.image + (index_t)(own.left + own.tile * TILE) * c + own.lane;
  const index_t step = (index_t)own.width * c;

  clear(ring, SLOTS + DY_SLOTS, WIDE, held, own.channels);
  acc_t weights[AREA], sums[AREA + 1], dx_sums[TAPS][TILE];
#pragma unroll
  for (int i = 0; i < AREA; i++)
    weights[i] = own.active ? w[(index_t)(AREA - 1 - i) * c + own.channel] : (acc_t)0;
#pragma unroll
  for (int i = 0; i <= AREA; i++) sums[i] = 0;

  // step r completes row r of dx, for which row r + REACH of dy arrives
  auto issue = [&](int r) {
    const int p = r + REACH;
    if (r < own.bottom) {
      if (p < height) fetch(dy_ring + (p & (DY_SLOTS - 1)) * ROW, dy + p * step, held, c, own.channels, wide);
      if (r >= own.top) fetch(ring + (r & (SLOTS - 1)) * ROW, x + r * step, held, c, own.channels, wide);
    }
    copy_async_commit();
  };
  const int begin = max(own.top - 2 * REACH, -REACH), cell = own.tile * TILE * CHANNELS + own.lane;
  for (int n = 0; n < own.images; n++, x += height * step, dy += height * step, dx += height * step) {
    // whoever still reads the last image
    if (n > 0) __syncthreads();
#pragma unroll
    for (int k = 0; k < TAPS; k++)
#pragma unroll
      for (int t = 0; t < TILE; t++) dx_sums[k][t] = 0;
#pragma unroll
    for (int i = 0; i < AHEAD; i++) issue(begin + i);
#pragma unroll 1
    for (int r = begin; r < own.bottom; r++) {
      copy_async_wait<AHEAD - 1>();
      __syncthreads();
      issue(r + AHEAD);
      acc_t values[VALUES];
      if (r + REACH < height) {
        take(values, dy_ring + ((r + REACH) & (DY_SLOTS - 1)) * ROW + cell);
      } else {
#pragma unroll
        for (int i = 0; i < VALUES; i++) values[i] = 0;
      }
      roll(dx_sums, values, weights, 0);
      if (r >= own.top) {
        write_tile(dx + r * step, dx_sums[0], own, c);
        take(values, ring + (r & (SLOTS - 1)) * ROW + cell);
        meet(sums, values, dy_ring + REACH * CHANNELS + cell, ROW, DY_SLOTS, r, height);
      }
    }
  }
  write_sums(sums, reinterpret_cast<acc_t*>(ring), partial, own, c);
}
#endif

#elif defined(ITEMS)
// The causal convolution p[t] = bias + sum_i w[i] X[t + i], X = (state or zeros, x), y = silu(p) or p. A
// thread takes ITEMS channels of a strip of tokens, with the last TAPS - 1 inputs in registers; the loads of
// GROUP tokens are issued together.

constexpr int CAUSAL_THREADS = 128;

struct strip_of_t {
  index_t batch, part;  // batch item, number of the strip
  int first, last;      // its tokens
  int channel, valid;   // first own channel, number of channels from there on
};

__device__ __forceinline__ strip_of_t own_strip(int l, int c, int tokens) {
  const int groups = (c + CAUSAL_THREADS * ITEMS - 1) / (CAUSAL_THREADS * ITEMS);
  const int strips = (l + tokens - 1) / tokens;
  strip_of_t own;
  own.part = blockIdx.x / groups;
  own.batch = own.part / strips;
  own.first = (int)(own.part % strips) * tokens;
  own.last = min(l, own.first + tokens);
  own.channel = ((int)(blockIdx.x % groups) * CAUSAL_THREADS + threadIdx.x) * ITEMS;
  own.valid = c - own.channel;
  return own;
}

template <class storage>
__device__ __forceinline__ void read_items(acc_t (&values)[ITEMS], const storage* source, bool wide,
                                           int valid) {
  if (wide) {
    ld_pack<ITEMS>(source, values);
  } else {
#pragma unroll
    for (int i = 0; i < ITEMS; i++) values[i] = i < valid ? ld(source[i]) : (acc_t)0;
  }
}

template <class storage>
__device__ __forceinline__ void write_items(storage* target, const acc_t (&values)[ITEMS], bool wide,
                                            int valid) {
  if (wide) {
    st_pack<ITEMS>(target, values);
  } else {
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
      if (i < valid) st(&target[i], values[i]);
  }
}

// weights, bias and the inputs before the strip
__device__ __forceinline__ void prepare(acc_t (&weights)[TAPS][ITEMS], acc_t (&offset)[ITEMS],
                                        acc_t (&window)[TAPS][ITEMS], const T* x, const acc_t* w,
                                        const acc_t* bias, const acc_t* state, const strip_of_t& own, int l,
                                        int c, bool wide) {
#pragma unroll
  for (int k = 0; k < TAPS; k++) read_items(weights[k], w + (index_t)k * c + own.channel, false, own.valid);
#pragma unroll
  for (int i = 0; i < ITEMS; i++) offset[i] = bias && i < own.valid ? bias[own.channel + i] : (acc_t)0;
#pragma unroll
  for (int k = 1; k < TAPS; k++) {
    const int t = own.first - TAPS + k;
    if (t >= 0) {
      read_items(window[k], x + (own.batch * l + t) * c + own.channel, wide, own.valid);
    } else if (state) {
      const acc_t* row = state + (own.batch * (TAPS - 1) + t + TAPS - 1) * c + own.channel;
      read_items(window[k], row, false, own.valid);
    } else {
#pragma unroll
      for (int i = 0; i < ITEMS; i++) window[k][i] = 0;
    }
  }
}

// takes the next input into the window and returns p of its token
__device__ __forceinline__ acc_t advance(acc_t (&window)[TAPS][ITEMS], const acc_t (&weights)[TAPS][ITEMS],
                                         acc_t offset, acc_t value, int i) {
  acc_t p = offset;
#pragma unroll
  for (int k = 0; k < TAPS; k++) {
    window[k][i] = k < TAPS - 1 ? window[k < TAPS - 1 ? k + 1 : k][i] : value;
    p = fma(weights[k][i], window[k][i], p);
  }
  return p;
}

extern "C" __global__ void __launch_bounds__(128)
    causal_forward(const T* __restrict__ x, const acc_t* __restrict__ w, const acc_t* __restrict__ bias,
                   const acc_t* __restrict__ state, T* __restrict__ y, int l, int c, int tokens) {
  const strip_of_t own = own_strip(l, c, tokens);
  if (own.valid <= 0) return;
  const bool wide = c % ITEMS == 0 && aligned16(x) && aligned16(y);
  acc_t weights[TAPS][ITEMS], offset[ITEMS], window[TAPS][ITEMS];
  prepare(weights, offset, window, x, w, bias, state, own, l, c, wide);
  x += own.batch * l * c + own.channel;
  y += own.batch * l * c + own.channel;
#pragma unroll 1
  for (int start = own.first; start < own.last; start += GROUP) {
    acc_t values[GROUP][ITEMS];
#pragma unroll
    for (int g = 0; g < GROUP; g++)
      if (start + g < own.last) read_items(values[g], x + (index_t)(start + g) * c, wide, own.valid);
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      if (start + g >= own.last) break;
      acc_t out[ITEMS];
#pragma unroll
      for (int i = 0; i < ITEMS; i++) {
        const acc_t p = advance(window, weights, offset[i], values[g][i], i);
        out[i] = SILU ? p * fast_sigmoid(p) : p;
      }
      write_items(y + (index_t)(start + g) * c, out, wide, own.valid);
    }
  }
}

// g = dy silu'(p); dX[t + i] += w[i] g[t]; partial[strip]: sums of g[t] X[t + i] for all i, and of g.
// One sweep over the strip and the TAPS - 1 tokens after it, from which gradients reach it; `pending` holds
// the rows of dX that are not complete. dstate are the rows before the first token.
extern "C" __global__ void __launch_bounds__(128)
    causal_backward(const T* __restrict__ x, const acc_t* __restrict__ w, const acc_t* __restrict__ bias,
                    const acc_t* __restrict__ state, const T* __restrict__ dy, T* __restrict__ dx,
                    acc_t* __restrict__ dstate, acc_t* __restrict__ partial, int l, int c, int tokens) {
  const strip_of_t own = own_strip(l, c, tokens);
  if (own.valid <= 0) return;
  const bool wide = c % ITEMS == 0 && aligned16(x) && aligned16(dy) && aligned16(dx);
  acc_t weights[TAPS][ITEMS], offset[ITEMS], window[TAPS][ITEMS], pending[TAPS][ITEMS], sums[TAPS + 1][ITEMS];
  prepare(weights, offset, window, x, w, bias, state, own, l, c, wide);
#pragma unroll
  for (int k = 0; k <= TAPS; k++)
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
      sums[k][i] = 0;
      if (k < TAPS) pending[k < TAPS ? k : 0][i] = 0;
    }
  const index_t base = own.batch * l * c + own.channel;
  x += base;
  dy += base;
  dx += base;
  const int end = own.last + TAPS - 1;
#pragma unroll 1
  for (int start = own.first; start < end; start += GROUP) {
    acc_t values[GROUP][ITEMS], cotangents[GROUP][ITEMS];
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      if (start + g < min(end, l)) {
        read_items(values[g], x + (index_t)(start + g) * c, wide, own.valid);
        read_items(cotangents[g], dy + (index_t)(start + g) * c, wide, own.valid);
      } else {
#pragma unroll
        for (int i = 0; i < ITEMS; i++) values[g][i] = cotangents[g][i] = 0;
      }
    }
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      const int t = start + g, row = t - (TAPS - 1);
      acc_t complete[ITEMS];
#pragma unroll
      for (int i = 0; i < ITEMS; i++) {
        const acc_t p = advance(window, weights, offset[i], values[g][i], i), s = fast_sigmoid(p);
        const acc_t d = SILU ? cotangents[g][i] * (s * fma(p, (acc_t)1 - s, (acc_t)1)) : cotangents[g][i];
        const acc_t counted = t < own.last ? d : (acc_t)0;
        complete[i] = fma(weights[0][i], d, pending[0][i]);
#pragma unroll
        for (int k = 0; k < TAPS; k++) {
          sums[k][i] = fma(counted, window[k][i], sums[k][i]);
          if (k > 0) pending[k > 0 ? k - 1 : 0][i] = fma(weights[k][i], d, pending[k][i]);
        }
        sums[TAPS][i] += counted;
      }
      if (row >= own.first && row < own.last) {
        write_items(dx + (index_t)row * c, complete, wide, own.valid);
      } else if (row < 0 && t < end && dstate) {
        write_items(dstate + (own.batch * (TAPS - 1) + t) * c + own.channel, complete, false, own.valid);
      }
    }
  }
#pragma unroll
  for (int k = 0; k <= TAPS; k++)
    write_items(partial + (own.part * (TAPS + 1) + k) * c + own.channel, sums[k], false, own.valid);
}

#else
// Any kernel, dilation and padding: top rows and left columns of zeros before the grid, maybe negative.
struct grid_t {
  int h, w, c, out_h, out_w, kh, kw, dilation, top, left;
};

constexpr int COLUMNS = 4;

// a thread computes COLUMNS neighbouring pixels of one channel; the kernel is flipped in both axes if asked
extern "C" __global__ void __launch_bounds__(256)
    any_convolve(const T* __restrict__ x, const acc_t* __restrict__ w, const acc_t* __restrict__ bias,
                 T* __restrict__ y, long long threads, grid_t grid, bool flip) {
  index_t rest = global_index();
  if (rest >= threads) return;
  const int across = (grid.out_w + COLUMNS - 1) / COLUMNS;
  const int channel = (int)(rest % grid.c);
  rest /= grid.c;
  const int q = (int)(rest % across) * COLUMNS;
  rest /= across;
  const int p = (int)(rest % grid.out_h);
  const index_t image = rest / grid.out_h;
  acc_t sums[COLUMNS];
#pragma unroll
  for (int t = 0; t < COLUMNS; t++) sums[t] = bias ? bias[channel] : (acc_t)0;
  for (int i = 0; i < grid.kh; i++) {
    const int r = p - grid.top + i * grid.dilation;
    if (r < 0 || r >= grid.h) continue;
    const T* row = x + (image * grid.h + r) * grid.w * grid.c + channel;
    for (int j = 0; j < grid.kw; j++) {
      const int tap = flip ? grid.kh * grid.kw - 1 - (i * grid.kw + j) : i * grid.kw + j;
      const acc_t weight = w[(index_t)tap * grid.c + channel];
#pragma unroll
      for (int t = 0; t < COLUMNS; t++) {
        const int column = q + t - grid.left + j * grid.dilation;
        if (column >= 0 && column < grid.w) sums[t] = fma(weight, ld(row[(index_t)column * grid.c]), sums[t]);
      }
    }
  }
  y += ((image * grid.out_h + p) * grid.out_w + q) * grid.c + channel;
#pragma unroll
  for (int t = 0; t < COLUMNS; t++)
    if (q + t < grid.out_w) st(&y[(index_t)t * grid.c], sums[t]);
}

// partial[part][tap][channel] = sum of dy times the x under that tap, over some rows (image, p); the last tap
// sums dy. A block has one tap and 32 channels, in 32 x 8 threads; blockIdx = (part and tap, channels / 32).
extern "C" __global__ void __launch_bounds__(256)
    any_weights(const T* __restrict__ x, const T* __restrict__ dy, acc_t* __restrict__ partial,
                long long rows, int rows_per_part, grid_t grid) {
  __shared__ acc_t scratch[STRIPES][LANES];
  const int taps = grid.kh * grid.kw + 1;
  const index_t part = blockIdx.x / taps;
  const int tap = (int)(blockIdx.x % taps), channel = blockIdx.y * LANES + threadIdx.x;
  const bool alone = tap == taps - 1;
  // the pixel of x under the tap for p = q = 0, and the columns q for which it is on the grid
  const int above = tap / grid.kw * grid.dilation - grid.top;
  const int beside = tap % grid.kw * grid.dilation - grid.left;
  const int begin = alone ? 0 : max(0, -beside), end = alone ? grid.out_w : min(grid.out_w, grid.w - beside);
  const index_t last = min((part + 1) * rows_per_part, (index_t)rows);
  acc_t sum = 0;
  if (channel < grid.c)
    for (index_t row = part * rows_per_part + threadIdx.y; row < last; row += STRIPES) {
      const int r = (int)(row % grid.out_h) + above;
      const T* g = dy + row * grid.out_w * grid.c + channel;
      if (alone) {
        for (int q = begin; q < end; q++) sum += ld(g[(index_t)q * grid.c]);
      } else if (r >= 0 && r < grid.h) {
        const T* values = x + ((row / grid.out_h * grid.h + r) * grid.w + beside) * grid.c + channel;
        for (int q = begin; q < end; q++)
          sum = fma(ld(g[(index_t)q * grid.c]), ld(values[(index_t)q * grid.c]), sum);
      }
    }
  sum = stripe_sum(sum, scratch);
  if (threadIdx.y == 0 && channel < grid.c) partial[(index_t)blockIdx.x * grid.c + channel] = sum;
}
#endif
