// What all kernels share: storage types, wide accesses, functions, shared memory, asynchronous copies.
//
// No header is included: NVRTC has every built-in, and the plain branches (#else of __CUDA_ARCH__) let the
// same text run on a CPU in the tests. T is a macro, so no name here may be a short capital.

typedef long long index_t;  // every offset

// ---- storage types: bits only, all arithmetic in float

struct f16_t {
  unsigned short bits;
};
struct bf16_t {
  unsigned short bits;
};

// the type that values of a storage type are computed in
template <class storage>
struct accumulator {
  typedef float type;
};
template <>
struct accumulator<double> {
  typedef double type;
};
#ifdef T
typedef accumulator<T>::type acc_t;
#endif

__device__ __forceinline__ float ld(float value) { return value; }
__device__ __forceinline__ double ld(double value) { return value; }
__device__ __forceinline__ float ld(bf16_t value) { return __uint_as_float((unsigned)value.bits << 16); }
__device__ __forceinline__ float ld(f16_t value) {
#ifdef __CUDA_ARCH__
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  _Float16 half;
  __builtin_memcpy(&half, &value.bits, 2);
  return (float)half;
#endif
}

__device__ __forceinline__ void st(float* target, float value) { *target = value; }
__device__ __forceinline__ void st(double* target, double value) { *target = value; }
__device__ __forceinline__ void st(bf16_t* target, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(target->bits) : "f"(value));
#else
  unsigned bits = __float_as_uint(value);
  bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  target->bits = (unsigned short)(nan ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}
__device__ __forceinline__ void st(f16_t* target, float value) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(target->bits) : "f"(value));
#else
  _Float16 half = (_Float16)value;
  __builtin_memcpy(&target->bits, &half, 2);
#endif
}

// ---- several items in one access: 16 bytes is the widest

template <class storage, int count>
struct __align__(sizeof(storage) * count) pack {
  storage item[count];
};

template <int count, class storage>
__device__ __forceinline__ void ld_pack(const storage* source,
                                        typename accumulator<storage>::type (&values)[count]) {
  pack<storage, count> items = *reinterpret_cast<const pack<storage, count>*>(source);
#pragma unroll
  for (int i = 0; i < count; i++) values[i] = ld(items.item[i]);
}

template <int count, class storage>
__device__ __forceinline__ void st_pack(storage* target,
                                        const typename accumulator<storage>::type (&values)[count]) {
  pack<storage, count> items;
#pragma unroll
  for (int i = 0; i < count; i++) st(&items.item[i], values[i]);
  *reinterpret_cast<pack<storage, count>*>(target) = items;
}

// true if the pointer allows 16-byte accesses; a null pointer does
__device__ __forceinline__ bool aligned16(const void* pointer) {
  return ((unsigned long long)pointer & 15) == 0;
}

// ---- threads

__device__ __forceinline__ index_t global_index() { return (index_t)blockIdx.x * blockDim.x + threadIdx.x; }

// sum over the lanes of a warp, the same bits in every lane; blockDim.x must be a multiple of 32
template <class value_t>
__device__ __forceinline__ value_t warp_sum(value_t value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// sum over a one-dimensional block in a fixed order, in every thread; scratch holds one value per warp and
// may be used again at once
template <class value_t>
__device__ __forceinline__ value_t block_sum(value_t value, value_t* scratch) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value_t total = scratch[0];
  for (int warp = 1; warp < (int)blockDim.x / 32; warp++) total += scratch[warp];
  __syncthreads();
  return total;
}

// ---- shared memory sized at the launch: one such array per kernel

#ifdef CUDA_EMULATOR
#define DYNAMIC_SHARED(type, name) type* name = (type*)emulator_dynamic_shared()
#else
#define DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  type* name = reinterpret_cast<type*>(name##_bytes)
#endif

// ---- asynchronous copies to shared memory: 4, 8 or 16 bytes, both addresses aligned to that.
// Of a copy only the first `valid` bytes are read, the rest becomes zero.

#ifdef __CUDA_ARCH__
template <int bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int valid = bytes) {
#if __CUDA_ARCH__ >= 800
  unsigned target = (unsigned)__cvta_generic_to_shared(shared);
  if (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(global), "n"(bytes),
                 "r"(valid)
                 : "memory");
#else
  for (int i = 0; i < bytes; i++) ((char*)shared)[i] = i < valid ? ((const char*)global)[i] : 0;
#endif
}
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// waits until at most `pending` of the groups this thread committed are under way; a barrier must follow
// before other threads read what was copied
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}
#elif defined(CUDA_EMULATOR)
template <int bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int valid = bytes) {
  emulator_copy_async(shared, global, bytes, valid);
}
__device__ __forceinline__ void copy_async_commit() { emulator_copy_commit(); }
template <int pending>
__device__ __forceinline__ void copy_async_wait(int line = __builtin_LINE(),
                                                const char* file = __builtin_FILE()) {
  emulator_copy_wait(pending, line, file);
}
#endif

// ---- special functions in two grades. fast_*: a few instructions, relative error stated, for inner loops;
// in double they are the exact ones.

// 2^x; 2 ulp, results below 2^-126 become 0
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef __CUDA_ARCH__
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
#else
  return exp2f(x);
#endif
}
__device__ __forceinline__ double fast_exp2(double x) { return exp2(x); }

// e^x; 2 ulp plus the rounding of x * log2(e), which is |x| * 1e-7
__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * 1.4426950408889634f); }
__device__ __forceinline__ double fast_exp(double x) { return exp(x); }

__device__ __forceinline__ float fast_sigmoid(float x) { return __fdividef(1.0f, 1.0f + fast_exp(-x)); }
__device__ __forceinline__ double fast_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// log(1 + e^x) = max(x, 0) + e * P(e), e = exp(-|x|), P(e) = log1p(e) / e as a polynomial: 1.6e-7.
// log(1 + e) would lose all digits where e is small.
__device__ __forceinline__ float fast_softplus(float x) {
  float e = fast_exp(-fabsf(x));
  float p = 5.253458e-3f;
  p = fmaf(p, e, -2.9588507e-2f);
  p = fmaf(p, e, 7.8361668e-2f);
  p = fmaf(p, e, -1.3674770e-1f);
  p = fmaf(p, e, 1.9111431e-1f);
  p = fmaf(p, e, -2.4844369e-1f);
  p = fmaf(p, e, 3.3319271e-1f);
  p = fmaf(p, e, -4.9999502e-1f);
  p = fmaf(p, e, 1.0f);
  return fmaf(p, e, fmaxf(x, 0.0f));
}
__device__ __forceinline__ double fast_softplus(double x) { return fmax(x, 0.0) + log1p(exp(-fabs(x))); }

// ---- activations: value_<name>(x) and slope_<name>(x), the derivative, accurate to a few ulp in float
// and double. NaN and infinities come out as the formula gives them.

template <class real>
__device__ __forceinline__ real value_exp(real x) { return exp(x); }
template <class real>
__device__ __forceinline__ real slope_exp(real x) { return exp(x); }

template <class real>
__device__ __forceinline__ real value_sin(real x) { return sin(x); }
template <class real>
__device__ __forceinline__ real slope_sin(real x) { return cos(x); }

// a comparison, not max(): a NaN stays one
template <class real>
__device__ __forceinline__ real value_relu(real x) { return x < real(0) ? real(0) : x; }
template <class real>
__device__ __forceinline__ real slope_relu(real x) { return x > real(0) ? real(1) : real(0); }

template <class real>
__device__ __forceinline__ real value_absolute(real x) { return fabs(x); }
// the last choice leaves zeros and NaN
template <class real>
__device__ __forceinline__ real slope_absolute(real x) { return x > real(0) ? real(1) : x < real(0) ? real(-1) : x; }

// the slopes of sigmoid and tanh by e = exp(-|x|): s (1 - s) and 1 - t^2 lose their digits where they are
// small
template <class real>
__device__ __forceinline__ real value_sigmoid(real x) { return real(1) / (real(1) + exp(-x)); }
template <class real>
__device__ __forceinline__ real slope_sigmoid(real x) {
  real e = exp(-fabs(x)), d = real(1) + e;
  return e / (d * d);
}

template <class real>
__device__ __forceinline__ real value_tanh(real x) { return tanh(x); }
template <class real>
__device__ __forceinline__ real slope_tanh(real x) { return real(4) * slope_sigmoid(x + x); }

template <class real>
__device__ __forceinline__ real value_silu(real x) { return x * value_sigmoid(x); }
template <class real>
__device__ __forceinline__ real slope_silu(real x) {
  real s = value_sigmoid(x);
  return s * (real(1) + x * (real(1) - s));
}

template <class real>
__device__ __forceinline__ real value_softplus(real x) { return fmax(x, real(0)) + log1p(exp(-fabs(x))); }
template <class real>
__device__ __forceinline__ real slope_softplus(real x) { return value_sigmoid(x); }

// Phi(x) = erfc(-x / sqrt 2) / 2: unlike 1 + erf it keeps its digits on the left
template <class real>
__device__ __forceinline__ real normal_cdf(real x) {
  return real(0.5) * erfc(x * real(-0.70710678118654752440));
}
template <class real>
__device__ __forceinline__ real value_gelu(real x) { return x * normal_cdf(x); }
template <class real>
__device__ __forceinline__ real slope_gelu(real x) {
  return normal_cdf(x) + x * (real(0.39894228040143267794) * exp(real(-0.5) * x * x));
}

// tanh form: y = x (1 + t) / 2, t = tanh(k (x + 0.044715 x^3)), k = sqrt(2 / pi)
template <class real>
__device__ __forceinline__ real value_gelu_tanh(real x) {
  real inner = real(0.79788456080286535588) * (x + real(0.044715) * x * x * x);
  return real(0.5) * x * (real(1) + tanh(inner));
}
template <class real>
__device__ __forceinline__ real slope_gelu_tanh(real x) {
  real t = tanh(real(0.79788456080286535588) * (x + real(0.044715) * x * x * x));
  real inner_slope = real(0.79788456080286535588) * (real(1) + real(0.134145) * x * x);
  return real(0.5) * (real(1) + t + x * (real(1) - t * t) * inner_slope);
}
