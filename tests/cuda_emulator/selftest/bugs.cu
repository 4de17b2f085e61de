// What must be caught: each kernel has one deliberate fault, most of them only with WITH_FAULT defined.
#include "common.cuh"

#ifdef WITH_FAULT
#define UNLESS_FAULTY(statement)
#else
#define UNLESS_FAULTY(statement) statement
#endif

// reverses each row through dynamic shared memory; the fault: read after write without a barrier
extern "C" __global__ void __launch_bounds__(128) reverse_rows(const float* x, float* y, int n) {
  DYNAMIC_SHARED(float, row);
  for (int i = threadIdx.x; i < n; i += blockDim.x) row[i] = x[(index_t)blockIdx.x * n + i];
  UNLESS_FAULTY(__syncthreads());
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[(index_t)blockIdx.x * n + i] = row[n - 1 - i];
}

// the fault: the next round writes what slower threads still read
extern "C" __global__ void __launch_bounds__(128) write_after_read(const float* x, float* y, int rounds) {
  __shared__ float row[128];
  float total = 0;
  for (int r = 0; r < rounds; r++) {
    row[threadIdx.x] = x[r * blockDim.x + threadIdx.x];
    __syncthreads();
    total += row[blockDim.x - 1 - threadIdx.x];
    UNLESS_FAULTY(__syncthreads());
  }
  y[threadIdx.x] = total;
}

extern "C" __global__ void exchange_in_warp(float* y) {
  __shared__ float row[32];
  row[threadIdx.x] = threadIdx.x;
  UNLESS_FAULTY(__syncwarp());
  y[threadIdx.x] = row[threadIdx.x ^ 1];
}

// many threads read a cell that one of the readers then writes
extern "C" __global__ void write_after_many_reads(float* y) {
  __shared__ float cell;
  if (threadIdx.x == 0) cell = 1;
  __syncthreads();
  float seen = cell;
  UNLESS_FAULTY(__syncthreads());
  if (threadIdx.x == 0) cell = 2;
  y[threadIdx.x] = seen;
}

// legal: warps hand values on within themselves, several times between block barriers
extern "C" __global__ void warps_on_their_own(float* y) {
  __shared__ float row[64];
  row[threadIdx.x] = threadIdx.x;
  for (int i = 0; i < 3; i++) {
    __syncwarp();
    float next = row[threadIdx.x ^ 1];
    __syncwarp();
    row[threadIdx.x] = next + 1;
  }
  __syncthreads();
  y[threadIdx.x] = row[63 - threadIdx.x];
}

extern "C" __global__ void barrier_in_two_branches(float* y, int n) {
  if (threadIdx.x < n) {
    __syncthreads();
    y[threadIdx.x] = 1;
  } else {
    __syncthreads();
    y[threadIdx.x] = 2;
  }
}

extern "C" __global__ void return_before_barrier(float* y, int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}

extern "C" __global__ void shuffle_in_branch(float* y, int n) {
  float value = threadIdx.x;
  if (threadIdx.x < n) value += __shfl_xor_sync(0xffffffffu, value, 1);
  y[threadIdx.x] = value;
  __syncthreads();
}

extern "C" __global__ void global_index_off(float* y, index_t offset) { y[threadIdx.x + offset] = 1; }

extern "C" __global__ void static_shared_off(float* y, int offset) {
  __shared__ float row[32];
  row[threadIdx.x + offset] = 1;
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void dynamic_shared_off(float* y, int offset) {
  DYNAMIC_SHARED(float, row);
  row[threadIdx.x + offset] = 1;
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void uninitialised(float* y) {
  __shared__ float row[80];
  row[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x + 1];
}

extern "C" __global__ void endless(volatile float* y) {
  while (y[0] == 0) {
  }
}

extern "C" __global__ void all_blocks_one_cell(float* y) { y[threadIdx.x] = blockIdx.x; }

extern "C" __global__ void read_by_earlier_block(float* y) {
  if (blockIdx.x == 0) y[1] = y[0];
  if (blockIdx.x == 1) y[2] = y[0];
  if (blockIdx.x == 2) y[0] = 1;
}

extern "C" __global__ void misaligned(const float* x, float* y, int offset) {
  float4 four = *(const float4*)(x + offset);
  y[0] = four.x + four.y + four.z + four.w;
}

extern "C" __global__ void counts(float* y, int* n) {
  atomicAdd(y, 1.5f);
  atomicAdd(&n[threadIdx.x & 1], 1);
}

extern "C" __global__ void stack_overflow(float* y, int n) {
  volatile float large[40000];
  large[threadIdx.x + n] = 1;
  y[0] = large[n];
}

extern "C" __global__ void local_array_off(float* y, int n) {
  float few[4];
  for (int i = 0; i < 4; i++) few[i] = i;
  y[0] = few[n];
}

extern "C" __global__ void traps() { __trap(); }

// the fault: the copies have not landed
extern "C" __global__ void copies_asynchronously(const float* x, float* y) {
  __shared__ __align__(16) float row[128];
  copy_async<16>(&row[4 * threadIdx.x], x + 4 * threadIdx.x, threadIdx.x == 31 ? 8 : 16);
  copy_async_commit();
  UNLESS_FAULTY(copy_async_wait<0>());
  __syncthreads();
  for (int i = 0; i < 4; i++) y[i * 32 + threadIdx.x] = row[127 - i * 32 - threadIdx.x];
}

// shared memory of a template must be found, poisoned and checked like any other
template <int size>
__device__ void read_before_write(float* y) {
  __shared__ float row[size];
  y[threadIdx.x] = row[threadIdx.x];
  __syncthreads();
  row[threadIdx.x] = 1;
}
extern "C" __global__ void uninitialised_in_template(float* y) { read_before_write<32>(y); }

// 32-bit offsets: wrong from the 2^31st item on
extern "C" __global__ void copy_narrow(const bf16_t* x, bf16_t* y, long long n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
extern "C" __global__ void copy_wide(const bf16_t* x, bf16_t* y, long long n) {
  index_t i = global_index();
  if (i < n) y[i] = x[i];
}
