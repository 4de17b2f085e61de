// Kolmogorov-Arnold attention with Fourier functions. Nothing of size n x n exists: logits live in registers and
// in tiles of 32 x 32 in shared memory. A block owns 64 queries (or keys), 32 per warp, and walks over all keys
// (or queries) in tiles of 32. Each thread of a warp has the logits of 8 own rows and 4 of the others.
//
// Macros: T storage type; RANKS and FREQUENCIES, how many of them are in registers at once (more are chunks);
// BASE the base function: 0 none, 1 silu, 2 identity, 3 gelu.
#include "angles.cuh"

constexpr int WARPS = 2, THREADS = 32 * WARPS, OWN = 32 * WARPS, TILE = 32;
constexpr int OWN_PITCH = OWN + 4, PITCH = TILE + 4;
// channels in shared memory at once, and how many of them a thread sums for its 8 rows
constexpr int DEPTH = 256 / sizeof(acc_t), COLUMNS = DEPTH / 8;

// (b, n, h, d) in memory; channels are contiguous
struct steps_t {
  index_t item, token, head;
};

// ---- base function

__device__ __forceinline__ acc_t base_value(acc_t a) {
  return BASE == 1 ? value_silu(a) : BASE == 3 ? value_gelu(a) : a;
}
__device__ __forceinline__ acc_t base_slope(acc_t a) {
  return BASE == 1 ? slope_silu(a) : BASE == 3 ? slope_gelu(a) : acc_t(1);
}

// ---- tiles

__device__ __forceinline__ void load4(acc_t* values, const acc_t* source) {
  pack<acc_t, 4> items = *reinterpret_cast<const pack<acc_t, 4>*>(source);
#pragma unroll
  for (int i = 0; i < 4; i++) values[i] = items.item[i];
}

// `rows` rows of a head with the channels from `first` on, as target[channel][row]; zero beyond count and d
template <int rows>
__device__ __forceinline__ void load_turned(acc_t (*target)[rows + 4], const T* x, index_t step, int count, int first,
                                            int d, acc_t factor) {
  for (int at = threadIdx.x; at < rows * DEPTH; at += THREADS) {
    int row = at / DEPTH, e = at % DEPTH;
    bool valid = row < count && first + e < d;
    target[e][row] = valid ? ld(x[row * step + first + e]) * factor : acc_t(0);
  }
}

// a[j][i] += products of own row i and other row j of this thread over `depth` channels
__device__ __forceinline__ void add_logits(const acc_t (*own)[OWN_PITCH], const acc_t (*other)[PITCH], int depth,
                                           acc_t (&a)[4][8]) {
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 32 + lane / 8 * 8;
#pragma unroll 4
  for (int e = 0; e < depth; e++) {
    acc_t x[8], y[4];
    load4(x, &own[e][row]);
    load4(x + 4, &own[e][row + 4]);
    load4(y, &other[e][lane % 8 * 4]);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 8; i++) a[j][i] = fma(x[i], y[j], a[j][i]);
  }
}

// ---- forward: z[b, h, i, p], blockIdx = (head and block of queries, chunk of ranks)
// phi is (h, chunk, key, frequency, cos or sin, RANKS), keys padded with zeros to whole tiles

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    kan_sums(const T* __restrict__ q, const T* __restrict__ k, const acc_t* __restrict__ phi, acc_t* __restrict__ z,
             acc_t scale, int n, int h, int d, int g, int r, index_t item_step, index_t token_step,
             index_t head_step) {
  __shared__ __align__(32) acc_t own[DEPTH][OWN_PITCH];
  __shared__ __align__(32) acc_t other[DEPTH][PITCH];
  int blocks = (n + OWN - 1) / OWN, tiles = (n + TILE - 1) / TILE;
  index_t pair = blockIdx.x / blocks;
  int first_own = blockIdx.x % blocks * OWN, lane = threadIdx.x % 32;
  bool active = first_own + (int)threadIdx.x / 32 * 32 < n;
  index_t start = pair / h * item_step + pair % h * head_step;
  q += start + first_own * token_step;
  k += start;
  phi += (pair % h * gridDim.y + blockIdx.y) * tiles * TILE * g * (2 * RANKS);
  acc_t sums[8][RANKS] = {}, base[8] = {};
  for (int first = 0; first < n; first += TILE) {
    acc_t a[4][8] = {};
    for (int e = 0; e < d; e += DEPTH) {
      __syncthreads();
      if (first == 0 || d > DEPTH) load_turned<OWN>(own, q, token_step, n - first_own, e, d, scale);
      load_turned<TILE>(other, k + first * token_step, token_step, n - first, e, d, acc_t(1));
      __syncthreads();
      if (active) add_logits(own, other, min(DEPTH, d - e), a);
    }
    if (!active) continue;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const acc_t* weights = phi + (index_t)(first + lane % 8 * 4 + j) * g * (2 * RANKS);
      acc_t sine_1[8], cosine_1[8], sine[8], cosine[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        sine_cosine(a[j][i], sine_1[i], cosine_1[i]);
        sine[i] = sine_1[i], cosine[i] = cosine_1[i];
        if (BASE) base[i] += base_value(a[j][i]);
      }
#pragma unroll 1
      for (int m = 1; m <= g; m++, weights += 2 * RANKS) {
        acc_t w_cos[RANKS], w_sin[RANKS];
#pragma unroll
        for (int p = 0; p < RANKS; p += 4) {
          load4(w_cos + p, weights + p);
          load4(w_sin + p, weights + RANKS + p);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
          for (int p = 0; p < RANKS; p++) sums[i][p] = fma(cosine[i], w_cos[p], fma(sine[i], w_sin[p], sums[i][p]));
        }
        if (m % RESEED) {
#pragma unroll
          for (int i = 0; i < 8; i++) turn(sine_1[i], cosine_1[i], sine[i], cosine[i]);
        } else {
#pragma unroll
          for (int i = 0; i < 8; i++) sine_cosine(a[j][i], m + 1, sine[i], cosine[i]);
        }
      }
    }
  }
  if (!active) return;
  // the eight threads of a row hold the sums over different keys
  int row = first_own + threadIdx.x / 32 * 32 + lane / 8 * 8;
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int p = 0; p < RANKS; p++) {
      acc_t total = sums[i][p] + base[i];
#pragma unroll
      for (int distance = 1; distance < 8; distance *= 2) total += __shfl_xor_sync(0xffffffffu, total, distance);
      int rank = blockIdx.y * RANKS + p;
      if (lane % 8 == i && row + i < n && rank < r) z[(pair * n + row + i) * r + rank] = total;
    }
}

// ---- backward. phi and dphi are (h or b h, tile of 32 keys, chunk, FREQUENCIES, cos or sin, RANKS, 32), chunks
// of ranks fastest: a lane holds a key.

constexpr int CHUNK = FREQUENCIES * 2 * RANKS;

// replaces the logits of 32 queries and the key of this lane, `step` apart, by their gradients as far as this
// chunk gives them; adds to dphi, if wanted, what these queries give
template <bool wants_dphi>
__device__ __forceinline__ void pull_logits(acc_t* tile, int step, const acc_t (*dz)[RANKS], const acc_t* phi,
                                            int first_frequency, acc_t (&dphi)[FREQUENCIES][2][RANKS]) {
  acc_t w[FREQUENCIES][2][RANKS];
#pragma unroll
  for (int at = 0; at < CHUNK; at++) w[at / (2 * RANKS)][at / RANKS % 2][at % RANKS] = phi[at * 32];
#pragma unroll 1
  for (int i = 0; i < 32; i++) {
    acc_t a = tile[i * step], da = 0;
    acc_t factor[RANKS];
#pragma unroll
    for (int p = 0; p < RANKS; p += 4) load4(factor + p, &dz[i][p]);
    acc_t sine_1, cosine_1, sine, cosine;
    sine_cosine(a, sine_1, cosine_1);
    sine = sine_1, cosine = cosine_1;
    if (first_frequency > 1) sine_cosine(a, first_frequency, sine, cosine);
    if (BASE && first_frequency == 1) {
#pragma unroll
      for (int p = 0; p < RANKS; p++) da += factor[p];
      da *= base_slope(a);
    }
#pragma unroll
    for (int f = 0; f < FREQUENCIES; f++) {
      acc_t e_cos = 0, e_sin = 0;
#pragma unroll
      for (int p = 0; p < RANKS; p++) {
        e_cos = fma(factor[p], w[f][0][p], e_cos);
        e_sin = fma(factor[p], w[f][1][p], e_sin);
        if (wants_dphi) {
          dphi[f][0][p] = fma(cosine, factor[p], dphi[f][0][p]);
          dphi[f][1][p] = fma(sine, factor[p], dphi[f][1][p]);
        }
      }
      da = fma((acc_t)(first_frequency + f), fma(cosine, e_sin, -(sine * e_cos)), da);
      if (f + 1 < FREQUENCIES) turn(sine_1, cosine_1, sine, cosine);
    }
    tile[i * step] = da;
  }
}

// dx[i][c] += sum over the other rows of tile[other][own row i] times channel 8 c + lane % 8 of the other row
__device__ __forceinline__ void add_products(const acc_t (*tile)[PITCH], const acc_t (*other)[PITCH],
                                             acc_t (&dx)[8][COLUMNS]) {
  int lane = threadIdx.x % 32;
#pragma unroll 2
  for (int o = 0; o < TILE; o++) {
    acc_t da[8];
    load4(da, &tile[o][lane / 8 * 8]);
    load4(da + 4, &tile[o][lane / 8 * 8 + 4]);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      acc_t x = other[8 * c + lane % 8][o];
#pragma unroll
      for (int i = 0; i < 8; i++) dx[i][c] = fma(da[i], x, dx[i][c]);
    }
  }
}

// Owning keys: dk and dphi (per item of the batch); owning queries: dq. Summing over keys and over queries in two
// kernels costs the logits and their gradients twice, and no buffer for partial sums.
// blockIdx = (head and block of own rows, channels / DEPTH)
template <bool own_keys>
__device__ __forceinline__ void pull(const T* q, const T* k, const acc_t* phi, const acc_t* dz, T* out,
                                     acc_t* dphi_sums, acc_t scale, int n, int h, int d, int g, int r, steps_t steps) {
  __shared__ __align__(32) acc_t own[DEPTH][OWN_PITCH];
  __shared__ __align__(32) acc_t other[DEPTH][PITCH];
  __shared__ __align__(32) acc_t tile[WARPS][TILE][PITCH];
  __shared__ __align__(32) acc_t dz_rows[own_keys ? TILE : OWN][RANKS];
  int blocks = (n + OWN - 1) / OWN, tiles = (n + TILE - 1) / TILE, parts = (d + DEPTH - 1) / DEPTH;
  int rank_chunks = (r + RANKS - 1) / RANKS, chunks = max(1, (g + FREQUENCIES - 1) / FREQUENCIES) * rank_chunks;
  index_t pair = blockIdx.x / blocks;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_own = blockIdx.x % blocks * OWN;
  bool active = first_own + warp * 32 < n;
  index_t start = pair / h * steps.item + pair % h * steps.head;
  const T* own_x = (own_keys ? k : q) + start + first_own * steps.token;
  const T* other_x = (own_keys ? q : k) + start;
  phi += pair % h * tiles * chunks * (CHUNK * 32) + lane;
  dz += pair * n * r;
  acc_t dx[8][COLUMNS] = {};
  for (int chunk = 0; chunk < chunks; chunk++) {
    int frequency = chunk / rank_chunks * FREQUENCIES + 1, rank = chunk % rank_chunks * RANKS;
    acc_t dphi[FREQUENCIES][2][RANKS] = {};
    for (int first = 0; first < n; first += TILE) {
      acc_t a[4][8] = {};
      // the block's own part of the channels comes last, and stays for the products
      for (int visit = 1; visit <= parts; visit++) {
        int e = ((int)blockIdx.y + visit) % parts * DEPTH;
        __syncthreads();
        if (parts > 1 || (chunk == 0 && first == 0))
          load_turned<OWN>(own, own_x, steps.token, n - first_own, e, d, own_keys ? acc_t(1) : scale);
        load_turned<TILE>(other, other_x + first * steps.token, steps.token, n - first, e, d,
                          own_keys ? scale : acc_t(1));
        if (visit == 1 && (own_keys || first == 0)) {
          int queries = own_keys ? first : first_own;
          for (int at = threadIdx.x; at < (own_keys ? TILE : OWN) * RANKS; at += THREADS) {
            int i = at / RANKS, p = at % RANKS;
            dz_rows[i][p] = queries + i < n && rank + p < r ? dz[(index_t)(queries + i) * r + rank + p] : acc_t(0);
          }
        }
        __syncthreads();
        if (active) add_logits(own, other, min(DEPTH, d - e), a);
      }
      if (!active) continue;
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 8; i++) tile[warp][lane % 8 * 4 + j][lane / 8 * 8 + i] = a[j][i];
      __syncwarp();
      index_t keys = own_keys ? first_own / TILE + warp : first / TILE;
      pull_logits<own_keys>(own_keys ? &tile[warp][0][lane] : &tile[warp][lane][0], own_keys ? PITCH : 1,
                            own_keys ? dz_rows : dz_rows + warp * 32, phi + (keys * chunks + chunk) * (CHUNK * 32),
                            frequency, dphi);
      __syncwarp();
      add_products(tile[warp], other, dx);
    }
    if (own_keys && active && blockIdx.y == 0) {
      index_t keys = pair * tiles + first_own / TILE + warp;
      acc_t* target = dphi_sums + (keys * chunks + chunk) * (CHUNK * 32) + lane;
#pragma unroll
      for (int at = 0; at < CHUNK; at++) target[at * 32] = dphi[at / (2 * RANKS)][at / RANKS % 2][at % RANKS];
    }
  }
  if (!active) return;
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      int row = first_own + warp * 32 + lane / 8 * 8 + i, e = blockIdx.y * DEPTH + 8 * c + lane % 8;
      index_t at = ((pair / h * n + row) * h + pair % h) * d + e;
      if (row < n && e < d) st(&out[at], own_keys ? dx[i][c] : dx[i][c] * scale);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    kan_pull_keys(const T* __restrict__ q, const T* __restrict__ k, const acc_t* __restrict__ phi,
                  const acc_t* __restrict__ dz, T* __restrict__ dk, acc_t* __restrict__ dphi, acc_t scale, int n, int h,
                  int d, int g, int r, index_t item_step, index_t token_step, index_t head_step) {
  steps_t steps = {item_step, token_step, head_step};
  pull<true>(q, k, phi, dz, dk, dphi, scale, n, h, d, g, r, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    kan_pull_queries(const T* __restrict__ q, const T* __restrict__ k, const acc_t* __restrict__ phi,
                     const acc_t* __restrict__ dz, T* __restrict__ dq, acc_t scale, int n, int h, int d, int g, int r,
                     index_t item_step, index_t token_step, index_t head_step) {
  steps_t steps = {item_step, token_step, head_step};
  pull<false>(q, k, phi, dz, dq, nullptr, scale, n, h, d, g, r, steps);
}

// ---- coefficients in and out of the layouts above, one thread per value

// (h, n, g, r) -> (h, chunk of ranks, key, frequency, cos or sin, RANKS)
extern "C" __global__ void __launch_bounds__(256)
    kan_pack_rows(const acc_t* __restrict__ phi_cos, const acc_t* __restrict__ phi_sin, acc_t* __restrict__ out, int n,
                  int keys, int g, int r, index_t size) {
  index_t at = global_index();
  if (at >= size) return;
  int s = at % RANKS, sine = at / RANKS % 2, m = at / (2 * RANKS) % g;
  index_t rest = at / (2 * RANKS) / g;
  int key = rest % keys, chunks = (r + RANKS - 1) / RANKS, p = rest / keys % chunks * RANKS + s;
  index_t head = rest / keys / chunks;
  bool valid = key < n && p < r;
  out[at] = valid ? (sine ? phi_sin : phi_cos)[((head * n + key) * g + m) * r + p] : acc_t(0);
}

// where a value of the layout by lanes belongs in (h, n, g, r)
struct coefficient_t {
  index_t head, at;
  bool sine, valid;
};

__device__ __forceinline__ coefficient_t coefficient(index_t at, int n, int g, int r) {
  int rank_chunks = (r + RANKS - 1) / RANKS, chunks = max(1, (g + FREQUENCIES - 1) / FREQUENCIES) * rank_chunks;
  int lane = at % 32, s = at / 32 % RANKS, f = at / (64 * RANKS) % FREQUENCIES;
  index_t rest = at / (32 * CHUNK);
  int chunk = rest % chunks, tiles = (n + TILE - 1) / TILE;
  rest /= chunks;
  int key = rest % tiles * TILE + lane, m = chunk / rank_chunks * FREQUENCIES + f, p = chunk % rank_chunks * RANKS + s;
  coefficient_t c;
  c.head = rest / tiles;
  c.at = ((c.head * n + key) * g + m) * r + p;
  c.sine = at / (32 * RANKS) % 2;
  c.valid = key < n && m < g && p < r;
  return c;
}

extern "C" __global__ void __launch_bounds__(256)
    kan_pack_lanes(const acc_t* __restrict__ phi_cos, const acc_t* __restrict__ phi_sin, acc_t* __restrict__ out, int n,
                   int g, int r, index_t size) {
  index_t at = global_index();
  if (at >= size) return;
  coefficient_t c = coefficient(at, n, g, r);
  out[at] = c.valid ? (c.sine ? phi_sin : phi_cos)[c.at] : acc_t(0);
}

// sums over the b items of the batch
extern "C" __global__ void __launch_bounds__(256)
    kan_sum_lanes(const acc_t* __restrict__ parts, acc_t* __restrict__ dphi_cos, acc_t* __restrict__ dphi_sin, int b,
                  int n, int g, int r, index_t size) {
  index_t at = global_index();
  if (at >= size) return;
  coefficient_t c = coefficient(at, n, g, r);
  if (!c.valid) return;
  acc_t total = 0;
  for (int item = 0; item < b; item++) total += parts[item * size + at];
  (c.sine ? dphi_sin : dphi_cos)[c.at] = total;
}

// ---- products of rank r with the rows of a head

constexpr int STRIPES = 8;

// out[b, h, p, e] = sum_i left[i, p] x[b, i, h, e] with left (b, h, n, r), or (h, n, r) if shared by the batch.
// blockIdx = (b h, channels / 32, ranks / RANKS), threads (32 channels, stripes of rows)
extern "C" __global__ void __launch_bounds__(256)
    kan_project(const acc_t* __restrict__ left, const T* __restrict__ x, acc_t* __restrict__ out, int shared_left,
                int n, int h, int d, int r, index_t item_step, index_t token_step, index_t head_step) {
  __shared__ acc_t partial[STRIPES][RANKS][32];
  index_t pair = blockIdx.x;
  int e = blockIdx.y * 32 + threadIdx.x, rank = blockIdx.z * RANKS;
  left += (shared_left ? pair % h : pair) * n * r + rank;
  x += pair / h * item_step + pair % h * head_step + e;
  acc_t sums[RANKS] = {};
  for (int i = threadIdx.y; i < n; i += STRIPES) {
    acc_t value = e < d ? ld(x[i * token_step]) : acc_t(0);
#pragma unroll
    for (int p = 0; p < RANKS; p++)
      if (rank + p < r) sums[p] = fma(left[(index_t)i * r + p], value, sums[p]);
  }
#pragma unroll
  for (int p = 0; p < RANKS; p++) partial[threadIdx.y][p][threadIdx.x] = sums[p];
  __syncthreads();
  for (int p = threadIdx.y; p < RANKS; p += STRIPES) {
    acc_t total = 0;
    for (int stripe = 0; stripe < STRIPES; stripe++) total += partial[stripe][p][threadIdx.x];
    if (e < d && rank + p < r) out[(pair * r + rank + p) * d + e] = total;
  }
}

// out[b, h, i, p] = x[b, i, h] . u[b, h, p], a warp per row
extern "C" __global__ void __launch_bounds__(256)
    kan_contract(const T* __restrict__ x, const acc_t* __restrict__ u, acc_t* __restrict__ out, int n, int h, int d,
                 int r, index_t rows, index_t item_step, index_t token_step, index_t head_step) {
  index_t row = (index_t)blockIdx.x * STRIPES + threadIdx.y;
  bool valid = row < rows;
  if (!valid) row = rows - 1;
  index_t pair = row / n;
  x += pair / h * item_step + row % n * token_step + pair % h * head_step;
  u += pair * r * d;
  for (int p = 0; p < r; p++) {
    acc_t total = 0;
    for (int e = threadIdx.x; e < d; e += 32) total = fma(ld(x[e]), u[(index_t)p * d + e], total);
    total = warp_sum(total);
    if (valid && threadIdx.x == 0) out[row * r + p] = total;
  }
}

// out[b, i, h, e] = sum_p left[i, p] u[b, h, p, e], left as in kan_project.
// blockIdx = (b h, rows / 32, channels / 32), threads (32 channels, rows): 4 rows each
extern "C" __global__ void __launch_bounds__(256)
    kan_expand(const acc_t* __restrict__ left, const acc_t* __restrict__ u, T* __restrict__ out, int shared_left, int n,
               int h, int d, int r) {
  index_t pair = blockIdx.x;
  int first = blockIdx.y * (4 * STRIPES) + threadIdx.y, e = blockIdx.z * 32 + threadIdx.x;
  if (e >= d) return;
  left += (shared_left ? pair % h : pair) * n * r;
  u += pair * r * d + e;
  acc_t sums[4] = {};
  for (int p = 0; p < r; p++) {
    acc_t value = u[(index_t)p * d];
#pragma unroll
    for (int s = 0; s < 4; s++)
      if (first + s * STRIPES < n) sums[s] = fma(left[(index_t)(first + s * STRIPES) * r + p], value, sums[s]);
  }
#pragma unroll
  for (int s = 0; s < 4; s++) {
    index_t row = first + s * STRIPES;
    if (row < n) st(&out[((pair / h * n + row) * h + pair % h) * d + e], sums[s]);
  }
}
