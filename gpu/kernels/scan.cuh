// What the kernels of the selective scan share. Macros: T, STATES, SHARE (states of a thread), LANES (threads that
// share a channel, a power of two), SOFTPLUS, GATED, ORDERED, MARKED (some tokens have marks), CROSS: 0, or
// 1 for one of several scans, by other orders or states, whose results are added up, or 2 if steps and coefficients
// do not follow the order: the token visited as the t-th takes those of token t in memory.
#pragma once
#include "common.cuh"

constexpr int WIDTH = SHARE * LANES;  // states with padding, whose A, B and C are zero
constexpr int CHUNK = 16;             // tokens between two saved states
constexpr acc_t LOG2_E = 1.4426950408889634074;

struct scan_t {
  int length, channels, groups;          // tokens, channels of all groups
  int parts;                             // blocks per group
  int segments, segment;                 // and tokens of a segment, a multiple of 32
  int first, step;                       // token t of the scan is stored at first + step t, unless ORDERED
  // CROSS: batch items; how many directions this launch takes from which on
  int items, directions, direction;
  // values between the tokens of delta, B and C; values between two directions of arrays, 0 where they share one
  int delta_row, b_row, c_row, order_apart, delta_apart, rate_apart, b_apart, c_apart, skip_apart, bias_apart;
  // states of all scans that share `states`; whether y, du and dz hold earlier scans, and whether ddelta does
  int all_states, add, add_steps;
};

// what y, du and dz are made in; sums over scans are rounded when they are complete
#if CROSS
typedef acc_t sum_t;
#else
typedef T sum_t;
#endif

// the bits of a mark, a byte by item and visit: a frozen token leaves the state as it is, whatever the arrays hold
// there; at a reset the state is forgotten first
constexpr int FROZEN = 1, RESET = 2;

// the marks of up to 32 tokens in a row, a bit for each
struct marks_t {
  unsigned frozen, resets;
};

// the mark of the token that this lane stands for, of `count` from `start` on
__device__ __forceinline__ int fetch_mark(const scan_t& s, const unsigned char* marks, int item, int start, int count) {
  int lane = threadIdx.x & 31;
  return MARKED && lane < count ? marks[(index_t)item * s.length + start + lane] : 0;
}

__device__ __forceinline__ marks_t gather_marks(int mark) {
  marks_t gathered = {0, 0};
  if (MARKED) {
    gathered.frozen = __ballot_sync(0xffffffffu, mark & FROZEN);
    gathered.resets = __ballot_sync(0xffffffffu, mark & RESET);
  }
  return gathered;
}

__device__ __forceinline__ bool is_frozen(const marks_t& m, int token) { return MARKED && m.frozen >> token & 1; }

__device__ __forceinline__ bool is_reset(const marks_t& m, int token) { return MARKED && m.resets >> token & 1; }

// tokens of a tile in shared memory; a block must have as many elements to load as threads
constexpr int tile_of(int channels, int threads) { return sizeof(acc_t) == 8 && channels * 16 >= threads ? 16 : 32; }

// what a block works on: blockIdx = (part of a group of a batch item, for a direction, segment)
struct block_t {
  int item, group, segment, direction;
  int row;             // of what each direction of a launch has for itself: the batch item, if there is one direction
  int channel, count;  // the first channel, and how many there are
  int begin, end;      // tokens
};

template <int span>
__device__ __forceinline__ block_t block_of(const scan_t& s) {
  block_t k;
  int part = blockIdx.x % s.parts, rest = blockIdx.x / s.parts, per_group = s.channels / s.groups;
  k.group = rest % s.groups;
  k.item = k.row = rest / s.groups;
  k.direction = 0;
  if (CROSS) {
    k.item = k.row % s.items;
    k.direction = s.direction + k.row / s.items;
  }
  k.segment = blockIdx.y;
  k.channel = k.group * per_group + part * span;
  k.count = min(span, per_group - part * span);
  k.begin = k.segment * s.segment;
  k.end = min(s.length, k.begin + s.segment);
  return k;
}

// where token t of a batch item is stored, counted in tokens
__device__ __forceinline__ index_t place(const scan_t& s, const int* order, int item, int t) {
#if ORDERED
  return (index_t)item * s.length + order[t];
#else
  return (index_t)item * s.length + (s.first + s.step * t);
#endif
}

// where token t of one channel is stored, given that for token `start`, not far from it
__device__ __forceinline__ index_t element(const scan_t& s, const int* order, const block_t& k, int column, int t,
                                           int start, index_t at_start) {
#if ORDERED
  return place(s, order, k.item, t) * s.channels + k.channel + column;
#else
  return at_start + (t - start) * (s.step * s.channels);
#endif
}

// where token t takes its step and coefficients from, counted in tokens
__device__ __forceinline__ index_t source_of(const scan_t& s, const int* order, int item, int t) {
  return CROSS == 2 ? (index_t)item * s.length + t : place(s, order, item, t);
}

// where the step of token t of one channel is stored, given where its input is
__device__ __forceinline__ index_t step_of(const scan_t& s, const int* order, const block_t& k, int column, int t,
                                           index_t at) {
  if (!CROSS) return at;
  return source_of(s, order, k.item, t) * s.delta_row + k.direction * s.delta_apart + k.channel + column;
}

// where the coefficients B or C of token t are stored
__device__ __forceinline__ index_t coefficients_of(const scan_t& s, const int* order, const block_t& k, int t,
                                                   bool of_c) {
  if (CROSS)
    return source_of(s, order, k.item, t) * (of_c ? s.c_row : s.b_row) +
           k.direction * (of_c ? s.c_apart : s.b_apart) + k.group * STATES;
  return (place(s, order, k.item, t) * s.groups + k.group) * STATES;
}

// where the first state before a chunk is stored, counted in rows of channels
__device__ __forceinline__ index_t row_of_chunk(const scan_t& s, const block_t& k, int chunk) {
  index_t chunks = (s.length + CHUNK - 1) / CHUNK;
  if (CROSS) return (((index_t)k.direction * s.items + k.item) * chunks + chunk) * s.all_states;
  return (k.item * chunks + chunk) * STATES;
}

__device__ __forceinline__ acc_t step_size(acc_t raw) { return SOFTPLUS ? fast_softplus(raw) : raw; }

__device__ __forceinline__ acc_t fast_silu(acc_t x) { return x * fast_sigmoid(x); }

// several values in a row of shared memory, by 16-byte accesses where the row is a multiple of that
template <int count>
__device__ __forceinline__ void ld_row(const acc_t* source, acc_t (&values)[count]) {
  constexpr int wide = 16 / sizeof(acc_t);
  if (count % wide == 0) {
#pragma unroll
    for (int i = 0; i < count; i += wide) {
      pack<acc_t, wide> items = *reinterpret_cast<const pack<acc_t, wide>*>(source + i);
#pragma unroll
      for (int j = 0; j < wide && i + j < count; j++) values[i + j] = items.item[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; i++) values[i] = source[i];
  }
}

template <int count>
__device__ __forceinline__ void st_row(acc_t* target, const acc_t (&values)[count]) {
  constexpr int wide = 16 / sizeof(acc_t);
  if (count % wide == 0) {
#pragma unroll
    for (int i = 0; i < count; i += wide) {
      pack<acc_t, wide> items;
#pragma unroll
      for (int j = 0; j < wide && i + j < count; j++) items.item[j] = values[i + j];
      *reinterpret_cast<pack<acc_t, wide>*>(target + i) = items;
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; i++) target[i] = values[i];
  }
}

// a state carried over a whole segment, plus what the segment adds to it. The decay is applied in two halves, so
// that a state that grows overflows only where it does; nothing grows out of a zero.
__device__ __forceinline__ acc_t carry(acc_t state, acc_t exponent, acc_t added) {
  acc_t half = fast_exp2(acc_t(0.5) * exponent);
  return (state == acc_t(0) ? state : state * half * half) + added;
}
