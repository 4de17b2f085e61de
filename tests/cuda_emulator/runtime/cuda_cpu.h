// CUDA for g++: put in front of a .cu file, it gives the keywords, index variables and built-ins that the
// kernels use a meaning on the CPU. What waits or exchanges values calls the runtime (runtime.cpp).
//
// No name here may be a short capital (T, N, ...): kernels define those as macros. Only what kernels may
// use by the style of gpu/kernels is here: no half headers, no cooperative groups, no __activemask.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
// libstdc++'s Bessel functions and their kind would take half of the compile time
#undef _GLIBCXX_USE_STD_SPEC_FUNCS
#include <math.h>

#include <type_traits>
#include <utility>

#define CUDA_EMULATOR 1
#define __global__ __attribute__((emulator_kernel))
#define __launch_bounds__(...) __attribute__((emulator_bounds(__VA_ARGS__)))
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
// alignas is not allowed after static
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// the caller's place in the source, without macros
#define EMULATOR_PLACE int line = __builtin_LINE(), const char *file = __builtin_FILE()
#define EMULATOR_INLINE static inline __attribute__((always_inline))

namespace emulator {
enum Barrier { barrier_plain, barrier_count, barrier_and, barrier_or };
enum WarpOp {
  warp_sync,
  warp_shuffle,
  warp_ballot,
  warp_add,
  warp_min,
  warp_max,
  warp_unsigned_min,
  warp_unsigned_max,
  warp_and,
  warp_or,
  warp_xor
};
}  // namespace emulator

extern "C" {
int emulator_barrier(int kind, int predicate, int line, const char* file);
uint64_t emulator_warp(int op, unsigned mask, uint64_t value, int source, int line, const char* file);
void* emulator_dynamic_shared();
void emulator_note_atomic(void* address, int bytes, void* caller);
void emulator_copy_async(void* shared, const void* global, int bytes, int valid);
void emulator_copy_commit();
void emulator_copy_wait(int pending, int line, const char* file);
void emulator_trap();
}

// ---- block barriers
EMULATOR_INLINE void __syncthreads(EMULATOR_PLACE) {
  emulator_barrier(emulator::barrier_plain, 0, line, file);
}
EMULATOR_INLINE int __syncthreads_count(int predicate, EMULATOR_PLACE) {
  return emulator_barrier(emulator::barrier_count, predicate != 0, line, file);
}
EMULATOR_INLINE int __syncthreads_and(int predicate, EMULATOR_PLACE) {
  return emulator_barrier(emulator::barrier_and, predicate != 0, line, file);
}
EMULATOR_INLINE int __syncthreads_or(int predicate, EMULATOR_PLACE) {
  return emulator_barrier(emulator::barrier_or, predicate != 0, line, file);
}
EMULATOR_INLINE void __threadfence() {}
EMULATOR_INLINE void __threadfence_block() {}
EMULATOR_INLINE void __trap() { emulator_trap(); }

// ---- warp collectives
namespace emulator {
EMULATOR_INLINE int lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}
template <class value_t>
EMULATOR_INLINE value_t exchange(int op, unsigned mask, value_t value, int source, int line,
                                 const char* file) {
  static_assert(sizeof(value_t) <= 8 && std::is_trivially_copyable<value_t>::value, "not a shuffle type");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = emulator_warp(op, mask, bits, source, line, file);
  memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace emulator

EMULATOR_INLINE void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_PLACE) {
  emulator_warp(emulator::warp_sync, mask, 0, 0, line, file);
}
template <class value_t>
EMULATOR_INLINE value_t __shfl_sync(unsigned mask, value_t value, int source, int width = 32,
                                    EMULATOR_PLACE) {
  int from = (emulator::lane() & ~(width - 1)) | (source & (width - 1));
  return emulator::exchange(emulator::warp_shuffle, mask, value, from, line, file);
}
template <class value_t>
EMULATOR_INLINE value_t __shfl_xor_sync(unsigned mask, value_t value, int bits, int width = 32,
                                        EMULATOR_PLACE) {
  int own = emulator::lane(), from = own ^ bits;
  if (from > (own | (width - 1))) from = own;
  return emulator::exchange(emulator::warp_shuffle, mask, value, from, line, file);
}
template <class value_t>
EMULATOR_INLINE value_t __shfl_up_sync(unsigned mask, value_t value, unsigned by, int width = 32,
                                       EMULATOR_PLACE) {
  int own = emulator::lane(), from = own - (int)by;
  if (from < (own & ~(width - 1))) from = own;
  return emulator::exchange(emulator::warp_shuffle, mask, value, from, line, file);
}
template <class value_t>
EMULATOR_INLINE value_t __shfl_down_sync(unsigned mask, value_t value, unsigned by, int width = 32,
                                         EMULATOR_PLACE) {
  int own = emulator::lane(), from = own + (int)by;
  if (from > (own | (width - 1))) from = own;
  return emulator::exchange(emulator::warp_shuffle, mask, value, from, line, file);
}
EMULATOR_INLINE unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  return (unsigned)emulator_warp(emulator::warp_ballot, mask, predicate != 0, 0, line, file);
}
EMULATOR_INLINE int __any_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  return __ballot_sync(mask, predicate, line, file) != 0;
}
EMULATOR_INLINE int __all_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  return __ballot_sync(mask, !predicate, line, file) == 0;
}
#define EMULATOR_REDUCE(name, value_t, op)                                             \
  EMULATOR_INLINE value_t name(unsigned mask, value_t value, EMULATOR_PLACE) {         \
    return (value_t)emulator_warp(emulator::op, mask, (uint32_t)value, 0, line, file); \
  }
EMULATOR_REDUCE(__reduce_add_sync, int, warp_add)
EMULATOR_REDUCE(__reduce_add_sync, unsigned, warp_add)
EMULATOR_REDUCE(__reduce_min_sync, int, warp_min)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, warp_unsigned_min)
EMULATOR_REDUCE(__reduce_max_sync, int, warp_max)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, warp_unsigned_max)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, warp_and)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, warp_or)
EMULATOR_REDUCE(__reduce_xor_sync, unsigned, warp_xor)

// ---- atomics: blocks run one after another and threads switch only at barriers, so plain code is atomic;
// it is kept out of the checker, which is told of the access instead
namespace emulator {
template <class value_t, class change_t>
static __attribute__((noinline, no_sanitize("thread", "undefined"))) value_t modify(value_t* address,
                                                                                    change_t change) {
  emulator_note_atomic(address, sizeof(value_t), __builtin_return_address(0));
  value_t old = *address;
  *address = change(old);
  return old;
}
}  // namespace emulator
#define EMULATOR_ATOMIC(name, result)                                                 \
  template <class value_t>                                                            \
  EMULATOR_INLINE value_t name(value_t* address, std::common_type_t<value_t> value) { \
    return emulator::modify(address, [=](value_t old) -> value_t { return result; }); \
  }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicMax, old > value ? old : value)
EMULATOR_ATOMIC(atomicMin, old < value ? old : value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicAnd, old& value)
EMULATOR_ATOMIC(atomicExch, ((void)old, value))
template <class value_t>
EMULATOR_INLINE value_t atomicCAS(value_t* address, std::common_type_t<value_t> expected,
                                  std::common_type_t<value_t> value) {
  return emulator::modify(address, [=](value_t old) { return old == expected ? value : old; });
}

// ---- vector types
#define EMULATOR_VECTOR(item_t, name)                                                               \
  struct alignas(2 * sizeof(item_t)) name##2 { item_t x, y; };                                      \
  struct name##3 { item_t x, y, z; };                                                               \
  struct alignas(sizeof(item_t) * 4 > 16 ? 16 : sizeof(item_t) * 4) name##4 { item_t x, y, z, w; }; \
  EMULATOR_INLINE name##2 make_##name##2(item_t x, item_t y) { return {x, y}; }                     \
  EMULATOR_INLINE name##3 make_##name##3(item_t x, item_t y, item_t z) { return {x, y, z}; }        \
  EMULATOR_INLINE name##4 make_##name##4(item_t x, item_t y, item_t z, item_t w) { return {x, y, z, w}; }
EMULATOR_VECTOR(float, float)
EMULATOR_VECTOR(double, double)
EMULATOR_VECTOR(int, int)
EMULATOR_VECTOR(short, short)
EMULATOR_VECTOR(unsigned short, ushort)
EMULATOR_VECTOR(unsigned char, uchar)
EMULATOR_VECTOR(long long, longlong)
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
EMULATOR_INLINE uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
EMULATOR_INLINE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- cache hints
#define EMULATOR_LOAD(name)                              \
  template <class value_t>                               \
  EMULATOR_INLINE value_t name(const value_t* address) { \
    return *address;                                     \
  }
#define EMULATOR_STORE(name)                                   \
  template <class value_t>                                     \
  EMULATOR_INLINE void name(value_t* address, value_t value) { \
    *address = value;                                          \
  }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)

// ---- mathematics. glibc declares __expf and its kind, so these are macros
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __exp10f(x) exp10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)
EMULATOR_INLINE float __fdividef(float a, float b) { return a / b; }
EMULATOR_INLINE float __fdiv_rn(float a, float b) { return a / b; }
EMULATOR_INLINE float __frcp_rn(float a) { return 1.0f / a; }
EMULATOR_INLINE float __fsqrt_rn(float a) { return sqrtf(a); }
EMULATOR_INLINE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMULATOR_INLINE float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
EMULATOR_INLINE float __fadd_rn(float a, float b) {
  volatile float sum = a + b;
  return sum;
}
EMULATOR_INLINE float rsqrtf(float a) { return 1.0f / sqrtf(a); }
EMULATOR_INLINE float rsqrt(float a) { return 1.0f / sqrtf(a); }
EMULATOR_INLINE double rsqrt(double a) { return 1.0 / sqrt(a); }
EMULATOR_INLINE void sincospif(float x, float* s, float* c) {
  *s = (float)sin(3.14159265358979323846 * x);
  *c = (float)cos(3.14159265358979323846 * x);
}
EMULATOR_INLINE void sincospi(double x, double* s, double* c) {
  double r = fmod(x, 2.0);
  *s = sin(3.14159265358979323846 * r);
  *c = cos(3.14159265358979323846 * r);
}
EMULATOR_INLINE float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

#define EMULATOR_BITS(name, to_t, from_t)   \
  EMULATOR_INLINE to_t name(from_t value) { \
    to_t bits;                              \
    memcpy(&bits, &value, sizeof bits);     \
    return bits;                            \
  }
EMULATOR_BITS(__float_as_int, int, float)
EMULATOR_BITS(__float_as_uint, unsigned, float)
EMULATOR_BITS(__int_as_float, float, int)
EMULATOR_BITS(__uint_as_float, float, unsigned)
EMULATOR_BITS(__double_as_longlong, long long, double)
EMULATOR_BITS(__longlong_as_double, double, long long)
EMULATOR_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATOR_INLINE int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
EMULATOR_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMULATOR_INLINE unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) reversed |= ((x >> i) & 1u) << (31 - i);
  return reversed;
}

// like CUDA's, only for two operands of one type; fminf and fmaxf prefer the operand that is no NaN
#define EMULATOR_MIN_MAX(value_t)                                             \
  EMULATOR_INLINE value_t min(value_t a, value_t b) { return b < a ? b : a; } \
  EMULATOR_INLINE value_t max(value_t a, value_t b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
EMULATOR_INLINE float min(float a, float b) { return fminf(a, b); }
EMULATOR_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMULATOR_INLINE double min(double a, double b) { return fmin(a, b); }
EMULATOR_INLINE double max(double a, double b) { return fmax(a, b); }

// ---- entry points: the build appends one pair of functions per kernel (build.py), which call these
namespace emulator {
template <class... types, size_t... places>
EMULATOR_INLINE void spread(void (*kernel)(types...), void** arguments, std::index_sequence<places...>) {
  kernel(*(std::remove_const_t<types>*)arguments[places]...);
}
template <class... types>
EMULATOR_INLINE void enter(void (*kernel)(types...), void** arguments) {
  spread(kernel, arguments, std::index_sequence_for<types...>{});
}
// what a parameter is, for the launcher's checks: see Entry in build.py
template <class type>
constexpr char kind() {
  if (std::is_pointer<type>::value) return std::is_const<std::remove_pointer_t<type>>::value ? 'p' : 'P';
  if (std::is_floating_point<type>::value) return 'f';
  return std::is_same<type, bool>::value ? 'b' : std::is_integral<type>::value ? 'i' : 's';
}
template <class type>
struct item {
  typedef std::remove_cv_t<std::remove_pointer_t<std::remove_cv_t<type>>> bare;
  typedef std::conditional_t<std::is_void<bare>::value, char, bare> of;
};
template <class... types>
int describe(void (*)(types...), char* kinds, char* items, int* sizes) {
  int count = 0;
  (void)std::initializer_list<int>{(kinds[count] = kind<types>(),
                                    items[count] = kind<typename item<types>::of>(),
                                    sizes[count] = sizeof(typename item<types>::of), count++)...};
  return count;
}
template <class... rest>
constexpr int first(int value, rest...) {
  return value;
}
}  // namespace emulator
