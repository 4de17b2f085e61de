// What lies between the dense products of the scan with one decay per head. T is float or double throughout.
//
// Tokens come as (b, chunks, q); the last chunk may go beyond l: steps there are 0, so that its tokens change
// nothing. Per token and head there are six numbers: step; high and low whose sum is alpha, the running sum of step A
// within the chunk (its differences would lose digits in one number); growth = e^alpha; fade = e^(alpha[last] - alpha);
// part, how many sequences began in the chunk so far. Where a sequence begins alpha starts anew, and no decay leads
// from one part to another.
#include "common.cuh"

__device__ __forceinline__ T raw_step(const T* dt, const T* bias, index_t at, int head) {
  return bias ? dt[at] + bias[head] : dt[at];
}

// one thread per chunk and head; dt (b, l, h), the numbers (6, b, chunks, q, h)
extern "C" __global__ void __launch_bounds__(128)
    measure_steps(const T* __restrict__ dt, const T* __restrict__ bias, const unsigned char* __restrict__ starts,
                  const unsigned char* __restrict__ mask, const T* __restrict__ A, T* __restrict__ numbers,
                  index_t count, index_t plane, int l, int chunks, int q, int h, int soft, int limited, T lo, T hi) {
  index_t at = global_index();
  if (at >= count) return;
  int head = at % h;
  index_t chunk = at / h % chunks, item = at / h / chunks;
  index_t first = (item * chunks + chunk) * q * h + head;
  double alpha = 0;
  int part = 0;
  for (int t = 0; t < q; t++) {
    T step = 0;
    index_t token = item * l + chunk * q + t;
    bool inside = chunk * q + t < l;
    bool begins = inside && starts && starts[token];
    if (inside && (!mask || mask[token])) {
      T r = raw_step(dt, bias, token * h + head, head);
      step = soft ? value_softplus(r) : r;
      // comparisons that leave a NaN
      if (limited) step = step < lo ? lo : step > hi ? hi : step;
    }
    if (begins) part++;
    alpha = begins ? 0.0 : alpha + (double)step * (double)A[head];
    T high = (T)alpha, low = (T)(alpha - (double)high);
    index_t to = first + (index_t)t * h;
    numbers[to] = step;
    numbers[plane + to] = high;
    numbers[2 * plane + to] = low;
    numbers[3 * plane + to] = part ? (T)0 : exp(high + low);
    numbers[5 * plane + to] = part;
  }
  T high = (T)alpha, low = (T)(alpha - (double)high);
  for (int t = 0; t < q; t++) {
    index_t to = first + (index_t)t * h;
    T power = exp((high - numbers[plane + to]) + (low - numbers[2 * plane + to]));
    numbers[4 * plane + to] = numbers[5 * plane + to] == (T)part ? power : (T)0;
  }
}

// whether s <= t and no sequence begins between; `first` is where the numbers of the chunk and head begin
__device__ __forceinline__ bool joined(const T* numbers, index_t plane, index_t first, int h, int t, int s) {
  const T* part = numbers + 5 * plane + first;
  return s <= t && part[(index_t)t * h] == part[(index_t)s * h];
}

// e^(alpha[t] - alpha[s]) of tokens that are joined
__device__ __forceinline__ T decay(const T* numbers, index_t plane, index_t first, int h, int t, int s) {
  index_t at = first + (index_t)t * h, as = first + (index_t)s * h;
  return exp((numbers[plane + at] - numbers[plane + as]) + (numbers[2 * plane + at] - numbers[2 * plane + as]));
}

// weighed (b, chunks, h, q, q) = products (b, chunks, g, q, q) * decay, one thread per element
extern "C" __global__ void __launch_bounds__(256)
    weigh(const T* __restrict__ products, const T* __restrict__ numbers, T* __restrict__ weighed, index_t count,
          index_t plane, int q, int h, int g) {
  index_t at = global_index();
  if (at >= count) return;
  int s = at % q, t = at / q % q;
  index_t place = at / q / q;
  int head = place % h;
  index_t chunk = place / h;
  index_t first = chunk * q * h + head;
  T value = 0;
  if (joined(numbers, plane, first, h, t, s))
    value = products[((chunk * g + head / (h / g)) * q + t) * q + s] * decay(numbers, plane, first, h, t, s);
  weighed[at] = value;
}

// out[t, j] = sum over joined s of weights[t, s] right[s, j]; if `turned`, sum over s that t is joined to of weights[s, t]
// right[s, j]. Other terms are left out, not multiplied by zero: what is not finite there must not come through.
// weights (b, chunks, heads, q, q), one matrix for h / heads heads; right and out (b, chunks, q, heads, columns). A block
// of 8 warps has one matrix and 64 columns, a lane two of them in every eighth row.
extern "C" __global__ void __launch_bounds__(256)
    triangle(const T* __restrict__ weights, const T* __restrict__ numbers, const T* __restrict__ right,
             T* __restrict__ out, index_t plane, int q, int h, int heads, int columns, int turned) {
  __shared__ T held[64][65];
  __shared__ int low[64], high[64];
  int tiles = (columns + 63) / 64;
  index_t matrix = blockIdx.x / tiles, chunk = matrix / heads;
  int head = matrix % heads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  index_t first = chunk * q * h + head * (h / heads);
  for (int i = threadIdx.x; i < q * q; i += blockDim.x) {
    int t = i / q, s = i % q;
    held[turned ? s : t][turned ? t : s] = weights[matrix * q * q + i];
  }
  for (int t = threadIdx.x; t < q; t += blockDim.x) {
    int from = t, to = t + 1;
    while (turned && to < q && joined(numbers, plane, first, h, to, t)) to++;
    while (!turned && from > 0 && joined(numbers, plane, first, h, t, from - 1)) from--;
    low[t] = from;
    high[t] = to;
  }
  __syncthreads();
  index_t token_step = (index_t)heads * columns, base = chunk * q * token_step + (index_t)head * columns;
  int column = blockIdx.x % tiles * 64 + lane;
  bool near = column < columns, far = column + 32 < columns;
  T sums[8][2];
  int from[8], to[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int t = warp + 8 * i;
    sums[i][0] = sums[i][1] = 0;
    from[i] = t < q ? low[t] : 0;
    to[i] = t < q ? high[t] : 0;
  }
  for (int s = 0; s < q; s++) {
    const T* row = right + base + s * token_step + column;
    T a = near ? row[0] : (T)0, b = far ? row[32] : (T)0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (s >= from[i] && s < to[i]) {
        T weight = held[warp + 8 * i][s];
        sums[i][0] += weight * a;
        sums[i][1] += weight * b;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int t = warp + 8 * i;
    T* row = out + base + t * token_step + column;
    if (t < q && near) row[0] = sums[i][0];
    if (t < q && far) row[32] = sums[i][1];
  }
}

// one block of 64 threads per chunk and head, q <= 64: weighed as above; inner (b, chunks, h, q, q) *= decay step;
// crossing[r] (b, chunks, q, h) = the sum of inner products over s < r <= t: what the pairs (t, s) give the adjoint
// of step[r] A, summed up without differences, which would cancel
extern "C" __global__ void __launch_bounds__(64)
    weigh_backward(const T* __restrict__ products, const T* __restrict__ numbers, T* __restrict__ weighed,
                   T* __restrict__ inner, T* __restrict__ crossing, index_t plane, int q, int h, int g) {
  __shared__ T later[64][65];
  int s = threadIdx.x;
  index_t place = blockIdx.x;
  int head = place % h;
  index_t chunk = place / h, first = chunk * q * h + head;
  if (s < q) {
    T total = 0, step = numbers[first + (index_t)s * h];
    for (int t = q - 1; t >= 0; t--) {
      index_t at = (place * q + t) * q + s;
      T product = 0, pulled = 0;
      if (joined(numbers, plane, first, h, t, s)) {
        T d = decay(numbers, plane, first, h, t, s);
        product = products[((chunk * g + head / (h / g)) * q + t) * q + s];
        pulled = inner[at] * d * step;
        total += pulled * product;
        product *= d;
      }
      weighed[at] = product;
      inner[at] = pulled;
      later[t][s] = total;
    }
  }
  __syncthreads();
  if (s < q) {
    T sum = 0;
    for (int i = 0; i < s; i++) sum += later[s][i];
    crossing[first + (index_t)s * h] = sum;
  }
}

// states before each chunk from what each chunk adds, one after the other (or adjoints behind each, backwards):
// one thread per state. local and before (b, chunks, g, n, h / g, p); start, last (b, h, p, n); states
// (b, chunks, h, n, p)
extern "C" __global__ void __launch_bounds__(256)
    pass_states(const T* __restrict__ local, const T* __restrict__ numbers, const T* __restrict__ start,
                T* __restrict__ before, T* __restrict__ states, T* __restrict__ last, index_t count, index_t plane,
                int chunks, int q, int h, int p, int g, int n, int backward) {
  index_t at = global_index();
  if (at >= count) return;
  int column = at % p, member = at / p % (h / g), row = at / p / (h / g) % n;
  index_t rest = at / p / (h / g) / n;
  int group = rest % g, head = group * (h / g) + member;
  index_t item = rest / g, own = ((item * h + head) * p + column) * n + row;
  index_t size = (index_t)h * n * p;
  index_t place = at - item * size;
  T value = start ? start[own] : (T)0;
  for (int i = 0; i < chunks; i++) {
    index_t chunk = item * chunks + (backward ? chunks - 1 - i : i);
    before[chunk * size + place] = value;
    if (states) states[chunk * size + ((index_t)head * n + row) * p + column] = value;
    index_t end = (chunk * q + q - 1) * h + head;
    T added = local[chunk * size + place];
    // what came before a sequence that began in the chunk is forgotten, finite or not
    value = numbers[5 * plane + end] ? added : numbers[3 * plane + end] * value + added;
  }
  if (last) last[own] = value;
}

// one thread per chunk and head: what crosses each token, from before the chunk, to after it and through all of it,
// gives the gradients of the steps; through (b, chunks, h), all else (b, chunks, q, h), ddt (b, l, h)
extern "C" __global__ void __launch_bounds__(128)
    pull_steps(const T* __restrict__ dt, const T* __restrict__ bias, const unsigned char* __restrict__ mask,
               const T* __restrict__ A, const T* __restrict__ numbers, const T* __restrict__ by_input, const T* __restrict__ from_before,
               const T* __restrict__ to_after, const T* __restrict__ through, T* __restrict__ crossing,
               T* __restrict__ ddt, T* __restrict__ dA, index_t count, index_t plane, int l, int chunks, int q, int h,
               int soft, int limited, T lo, T hi) {
  index_t at = global_index();
  if (at >= count) return;
  int head = at % h;
  index_t chunk = at / h % chunks, item = at / h / chunks;
  index_t first = (item * chunks + chunk) * q * h + head;
  index_t end = first + (index_t)(q - 1) * h;
  T later = 0, earlier = numbers[5 * plane + end] ? (T)0 : through[at] * numbers[3 * plane + end], sum = 0;
  for (int t = q - 1; t >= 0; t--) {
    index_t to = first + (index_t)t * h;
    later += from_before[to];
    crossing[to] += later;
  }
  for (int t = 0; t < q; t++) {
    index_t to = first + (index_t)t * h;
    T crossed = crossing[to] + earlier;
    earlier += to_after[to];
    sum += numbers[to] * crossed;
    if (chunk * q + t < l) {
      index_t from = (item * l + chunk * q + t) * h + head;
      T d = by_input[to] + A[head] * crossed, r = raw_step(dt, bias, from, head);
      T free_step = soft ? value_softplus(r) : r;
      if (limited && (free_step < lo || free_step > hi)) d = 0;
      if (mask && !mask[item * l + chunk * q + t]) d = 0;
      ddt[from] = soft ? d * slope_softplus(r) : d;
    }
  }
  dA[at] = sum;
}

// one token, a warp per channel of a head, its lanes along the states: s (b, h, p) = (decay S + step x B) . C
extern "C" __global__ void __launch_bounds__(128)
    update_state(const T* state, const T* __restrict__ x, const T* __restrict__ steps, const T* __restrict__ A,
                 const T* __restrict__ B, const T* __restrict__ C, T* new_state, T* __restrict__ s, index_t count, int h,
                 int p, int g, int n) {
  index_t at = ((index_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
  int lane = threadIdx.x % 32;
  bool valid = at < count;
  index_t place = valid ? at / p : 0;
  index_t of = (place / h * g + place % h / (h / g)) * n;
  T sum = 0;
  if (valid) {
    T step = steps[place], d = exp(step * A[place % h]), drive = step * x[at];
    for (int k = lane; k < n; k += 32) {
      T value = d * state[at * n + k] + drive * B[of + k];
      new_state[at * n + k] = value;
      sum += value * C[of + k];
    }
  }
  sum = warp_sum(sum);
  if (valid && lane == 0) s[at] = sum;
}
