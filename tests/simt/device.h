// The device side of the emulation: what nvcc would give a kernel, for kernels that the host
// compiler compiles. kernels/device.cuh includes it; README.md says what is honoured.
//
// Every GPU thread is a fiber. Whatever threads do together (barrier, shuffle, vote, mma) is a
// meeting: each participant arrives with a pointer to its operand and is suspended, the last one
// computes for all, and then all go on in an order drawn from the seed.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "simt/async.h"
#include "simt/internal.h"

namespace wrn::cuda::simt {

/// What a thread knows of itself.
struct ThreadContext {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  int lane;       // in its warp
  Groups copies;  // by cp.async
  Groups stores;  // of boxes, by bulk groups
};
extern ThreadContext* current;  // the thread that runs now

/// Computes a warp's operation from the lanes' operands; null where a lane is not in the mask.
using Combine = void (*)(void* const (&operands)[32]);

/// Meets the lanes of `mask`: `what` and `where` are the same for all of them. `orders_memory`:
/// what they wrote before is visible to all of them afterwards (true of __syncwarp alone).
void meet_warp(const char* what, unsigned mask, void* operand, Combine combine, bool orders_memory,
               Where where);
/// The same of the 128 threads of a warpgroup, all of them, in the order of their numbers.
using CombineWarpgroup = void (*)(void* const (&operands)[128]);
void meet_warpgroup(const char* what, void* operand, CombineWarpgroup combine, Where where);
/// Meets `threads` threads of the block at its barrier `number`.
void meet_named(const char* what, unsigned number, unsigned threads, Where where);
/// Meets all threads of the block.
void meet_block(const char* what, Where where);
std::uint64_t shuffle(const char* what, unsigned mask, std::uint64_t bits, int source, Where where);
unsigned ballot(const char* what, unsigned mask, bool predicate, Where where);
void fence(bool whole_device);
/// What kernels before this one have done is seen only from here on.
void wait_for_previous_kernels();

/// The block's shared memory; an error where the launch gave less than `bytes`.
void* shared_memory(std::size_t bytes);
template <typename T>
T& shared_storage() {
  return *static_cast<T*>(shared_memory(sizeof(T)));
}

template <typename T>
T shuffle_value(const char* what, unsigned mask, T value, int source, Where where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto bits = std::bit_cast<Bits>(value);
  return std::bit_cast<T>(static_cast<Bits>(shuffle(what, mask, bits, source, where)));
}
/// The lane a shuffle reads: `source`, or the thread's own where that is outside [first, last].
inline int source_or_own(int source, int first, int last) {
  return source < first || source > last ? current->lane : source;
}
inline int segment_begin(int width) { return current->lane & ~(width - 1); }
inline int segment_last(int width) { return current->lane | (width - 1); }

}  // namespace wrn::cuda::simt

#define threadIdx (::wrn::cuda::simt::current->thread)
#define blockIdx (::wrn::cuda::simt::current->block)
#define blockDim (::wrn::cuda::simt::current->block_dim)
#define gridDim (::wrn::cuda::simt::current->grid_dim)
inline constexpr int warpSize = 32;

#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
// As a plain variable, each thread would have its own.
#undef __shared__
#define __shared__ _Pragma("GCC error \"shared memory comes from shared_storage<T>()\"")

// --- Barriers, shuffles, votes -----------------------------------------------------------------
using wrn_simt_where = std::source_location;

inline void __syncthreads(wrn_simt_where where = wrn_simt_where::current()) {
  wrn::cuda::simt::meet_block("__syncthreads()", where);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFF,
                       wrn_simt_where where = wrn_simt_where::current()) {
  wrn::cuda::simt::meet_warp("__syncwarp()", mask, nullptr, nullptr, true, where);
}
inline void __threadfence_block() { wrn::cuda::simt::fence(false); }
inline void __threadfence() { wrn::cuda::simt::fence(true); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              wrn_simt_where where = wrn_simt_where::current()) {
  const int source = wrn::cuda::simt::segment_begin(width) + (lane & (width - 1));
  return wrn::cuda::simt::shuffle_value("__shfl_sync()", mask, value, source, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  wrn_simt_where where = wrn_simt_where::current()) {
  const int source = wrn::cuda::simt::source_or_own(wrn::cuda::simt::current->lane ^ lane_mask, 0,
                                                    wrn::cuda::simt::segment_last(width));
  return wrn::cuda::simt::shuffle_value("__shfl_xor_sync()", mask, value, source, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 wrn_simt_where where = wrn_simt_where::current()) {
  const int source =
      wrn::cuda::simt::source_or_own(wrn::cuda::simt::current->lane - static_cast<int>(delta),
                                     wrn::cuda::simt::segment_begin(width), 31);
  return wrn::cuda::simt::shuffle_value("__shfl_up_sync()", mask, value, source, where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   wrn_simt_where where = wrn_simt_where::current()) {
  const int source =
      wrn::cuda::simt::source_or_own(wrn::cuda::simt::current->lane + static_cast<int>(delta), 0,
                                     wrn::cuda::simt::segment_last(width));
  return wrn::cuda::simt::shuffle_value("__shfl_down_sync()", mask, value, source, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              wrn_simt_where where = wrn_simt_where::current()) {
  return wrn::cuda::simt::ballot("__ballot_sync()", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      wrn_simt_where where = wrn_simt_where::current()) {
  return wrn::cuda::simt::ballot("__any_sync()", mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      wrn_simt_where where = wrn_simt_where::current()) {
  return wrn::cuda::simt::ballot("__all_sync()", mask, predicate != 0, where) == mask;
}

// --- Atomics: relaxed, as on the device. None of floats: their sums depend on the order. ---------
template <typename T>
concept WrnSimtAtomic =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

template <WrnSimtAtomic T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
template <WrnSimtAtomic T>
T atomicOr(T* p, std::type_identity_t<T> value) {
  return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
template <WrnSimtAtomic T>
T atomicExch(T* p, std::type_identity_t<T> value) {
  return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}
template <WrnSimtAtomic T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <WrnSimtAtomic T>
T atomicMax(T* p, std::type_identity_t<T> value) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < value &&
         !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

// --- Arithmetic ----------------------------------------------------------------------------------
template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)

#define WRN_SIMT_MIN_MAX(T)                                  \
  inline constexpr T min(T a, T b) { return b < a ? b : a; } \
  inline constexpr T max(T a, T b) { return a < b ? b : a; }
WRN_SIMT_MIN_MAX(int)
WRN_SIMT_MIN_MAX(unsigned)
WRN_SIMT_MIN_MAX(long)
WRN_SIMT_MIN_MAX(unsigned long)
WRN_SIMT_MIN_MAX(long long)
WRN_SIMT_MIN_MAX(unsigned long long)
#undef WRN_SIMT_MIN_MAX
// As fminf and fmaxf, these pass over a NaN.
inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }
