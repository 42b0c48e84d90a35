// The instructions of sm_90a that v5 is made of, one thin wrapper each. The numbers are sections of
// the PTX ISA, version 9.1. In the emulation tests/simt carries them out.
//
// Two kinds of machinery work beside a block's threads, and a Barrier (mbarrier) or a group says
// when they are done:
//   tensor memory accelerator   copies boxes of a tensor, which a CUtensorMap describes, between
//                               global and shared memory (load_box, store_box)
//   tensor cores, by wgmma      multiply two tiles in shared memory into the registers of four
//                               warps, a warpgroup (wgmma)
// Both see shared memory by the "asynchronous proxy": they may read what a thread has stored only
// after its fence_async_proxy(). And setmaxnreg moves registers from one warpgroup to another.
#pragma once

#include <cuda.h>  // CUtensorMap

#include "kernels/tensor_core.cuh"
#if !defined(__CUDACC__)
#include "simt/hopper.h"
#endif

/// Whether the code that is being compiled may use these: not in a build's code for older GPUs.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WRN_HOPPER 1
#else
#define WRN_HOPPER 0
#endif

namespace wrn::cuda {

using Barrier = std::uint64_t;  // an mbarrier, in shared memory

constexpr int kWarpgroup = 128;  // threads

#if defined(__CUDACC__)

// --- mbarrier (9.7.13.15) ------------------------------------------------------------------------
/// A barrier's phase is complete after `count` arrivals, when all bytes that these said to expect
/// have come. Then the next phase begins, and both counts begin again. The first phase is number 0.
__device__ __forceinline__ void init_barrier(Barrier& barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(count)
               : "memory");
}
/// After init_barrier and before a __syncthreads(): the copying machinery sees the barrier, too
/// (9.7.13.4).
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/// What this thread did before happens before what a thread does that waits for the phase.
__device__ __forceinline__ void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier))
               : "memory");
}
__device__ __forceinline__ void arrive_expecting(Barrier& barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
      "r"(bytes)
      : "memory");
}
/// Waits for the end of the phase of this parity (its number modulo 2), which is the phase under
/// way or the one before it. So on a fresh barrier, waiting for parity 1 returns at once.
__device__ __forceinline__ void wait(Barrier& barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra done;\n"
      "bra again;\n"
      "done:\n"
      "}\n" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

/// fence.proxy.async (9.7.13.4): this thread's loads and stores of shared memory so far come before
/// what the asynchronous proxy does after the barrier that follows.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// The same for global memory: what earlier kernels have stored there, for whose end the thread has
/// waited, comes before the boxes that it will load. The end of a kernel ensures that, but the PTX
/// ISA does not say so of griddepcontrol.wait, and one fence of a loading thread costs nothing.
__device__ __forceinline__ void fence_async_proxy_of_global() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
/// For shared memory that the asynchronous proxy reads or writes, too: by these the emulation sees
/// the accesses.
__device__ __forceinline__ void store_shared(void* p, unsigned value) {
  *static_cast<unsigned*>(p) = value;
}
__device__ __forceinline__ unsigned load_shared(const void* p) {
  return *static_cast<const unsigned*>(p);
}

// --- Boxes of tensors: cp.async.bulk.tensor (9.7.9.27.1) -----------------------------------------
// One thread calls; the machinery copies. Coordinates are the first element's, innermost first.
// What of a box lies outside of the tensor is read as zeros and not written.

/// When the box has come, all of its bytes are counted at the barrier.
__device__ __forceinline__ void load_box(void* shared, const CUtensorMap& map, Barrier& barrier,
                                         int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ __forceinline__ void load_box(void* shared, const CUtensorMap& map, Barrier& barrier,
                                         int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
/// The coordinates must not be negative. The thread commits its stores to groups, and waits.
__device__ __forceinline__ void store_box(const CUtensorMap& map, const void* shared, int c0,
                                          int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], "
      "[%1];" ::"l"(&map),
      "r"(shared_address(shared)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
/// cp.async.bulk.commit_group and wait_group.read (9.7.9.27.2): all but the newest kNewest groups
/// of this thread have read their shared memory, which may be used again.
__device__ __forceinline__ void commit_stores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int kNewest>
__device__ __forceinline__ void wait_for_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kNewest) : "memory");
}

/// threadIdx.x % kWarpgroup, read anew: what follows from it is computed where it is needed, and
/// not kept in registers from the kernel's start.
__device__ __forceinline__ int thread_of_warpgroup() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread % kWarpgroup;
}

// --- Warpgroups ----------------------------------------------------------------------------------
/// setmaxnreg (9.7.19.5): from now on each thread of this warpgroup has kRegisters registers, fewer
/// or more than before.
template <int kRegisters>
__device__ __forceinline__ void drop_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
/// bar.sync (9.7.13.1): a barrier of `threads` threads, by its number 1-15.
__device__ __forceinline__ void named_barrier(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// --- wgmma (9.7.15) ------------------------------------------------------------------------------
/// Before the first product of a batch: the accumulators' registers are as they should be.
template <int M, int R>
__device__ __forceinline__ void begin_products(float (&d)[M][R]) {
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int j = 0; j < R; ++j) asm volatile("" : "+f"(d[i][j])::"memory");
  }
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// All batches but the newest kNewest have been multiplied. With 0 the accumulators may be used.
template <int kNewest, int M, int R>
__device__ __forceinline__ void wait_for_products(float (&d)[M][R]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kNewest) : "memory");
  if constexpr (kNewest == 0) {
#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
      for (int j = 0; j < R; ++j) asm volatile("" : "+f"(d[i][j])::"memory");
    }
  }
}

// The instruction names every accumulator, and has its width in its name. Hence these macros.
// clang-format off
#define WRN_AT_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define WRN_AT_8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define WRN_AT_16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define WRN_AT_24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define WRN_AT_32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define WRN_AT_40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define WRN_AT_48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define WRN_AT_56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define WRN_AT_64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define WRN_AT_72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define WRN_AT_80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define WRN_AT_88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define WRN_AT_96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define WRN_AT_104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define WRN_AT_112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define WRN_AT_120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define WRN_D(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WRN_WGMMA(N, D, A, B, SCALE, TRANSPOSE_A, TRANSPOSE_B, ...)                               \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " SCALE ", 0;\n"                                \
               "wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" D "}, " A ", " B ", p, 1, 1, "  \
               TRANSPOSE_A ", " TRANSPOSE_B ";\n}\n"                                              \
               : __VA_ARGS__ : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(int{kMnA}), "n"(int{kMnB}))
// clang-format on

/// wgmma.m64nNk16 (9.7.15.5): D = A B, or += with `accumulate`, where A is 64 x 16 and B 16 x N,
/// both in shared memory as their descriptors say; kMnA, kMnB: contiguous along m or n, not along
/// k. Thread t of the warpgroup holds in d[i]
///   row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (t % 4) + i % 2.
template <int N, bool kMnA, bool kMnB>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b,
                                      bool accumulate) {
  if constexpr (N == 16) {
    WRN_WGMMA("16", WRN_AT_0, "%8", "%9", "%10", "%11", "%12", WRN_D(0));
  } else if constexpr (N == 32) {
    WRN_WGMMA("32", WRN_AT_0 ", " WRN_AT_8, "%16", "%17", "%18", "%19", "%20", WRN_D(0), WRN_D(8));
  } else if constexpr (N == 64) {
    WRN_WGMMA("64", WRN_AT_0 ", " WRN_AT_8 ", " WRN_AT_16 ", " WRN_AT_24, "%32", "%33", "%34",
              "%35", "%36", WRN_D(0), WRN_D(8), WRN_D(16), WRN_D(24));
  } else if constexpr (N == 128) {
    WRN_WGMMA("128",
              WRN_AT_0 ", " WRN_AT_8 ", " WRN_AT_16 ", " WRN_AT_24 ", " WRN_AT_32 ", " WRN_AT_40
                       ", " WRN_AT_48 ", " WRN_AT_56,
              "%64", "%65", "%66", "%67", "%68", WRN_D(0), WRN_D(8), WRN_D(16), WRN_D(24),
              WRN_D(32), WRN_D(40), WRN_D(48), WRN_D(56));
  } else if constexpr (N == 160) {
    WRN_WGMMA("160",
              WRN_AT_0 ", " WRN_AT_8 ", " WRN_AT_16 ", " WRN_AT_24 ", " WRN_AT_32 ", " WRN_AT_40
                       ", " WRN_AT_48 ", " WRN_AT_56 ", " WRN_AT_64 ", " WRN_AT_72,
              "%80", "%81", "%82", "%83", "%84", WRN_D(0), WRN_D(8), WRN_D(16), WRN_D(24),
              WRN_D(32), WRN_D(40), WRN_D(48), WRN_D(56), WRN_D(64), WRN_D(72));
  } else if constexpr (N == 192) {
    WRN_WGMMA("192",
              WRN_AT_0 ", " WRN_AT_8 ", " WRN_AT_16 ", " WRN_AT_24 ", " WRN_AT_32 ", " WRN_AT_40
                       ", " WRN_AT_48 ", " WRN_AT_56 ", " WRN_AT_64 ", " WRN_AT_72 ", " WRN_AT_80
                       ", " WRN_AT_88,
              "%96", "%97", "%98", "%99", "%100", WRN_D(0), WRN_D(8), WRN_D(16), WRN_D(24),
              WRN_D(32), WRN_D(40), WRN_D(48), WRN_D(56), WRN_D(64), WRN_D(72), WRN_D(80),
              WRN_D(88));
  } else if constexpr (N == 256) {
    WRN_WGMMA("256",
              WRN_AT_0 ", " WRN_AT_8 ", " WRN_AT_16 ", " WRN_AT_24 ", " WRN_AT_32 ", " WRN_AT_40
                       ", " WRN_AT_48 ", " WRN_AT_56 ", " WRN_AT_64 ", " WRN_AT_72 ", " WRN_AT_80
                       ", " WRN_AT_88 ", " WRN_AT_96 ", " WRN_AT_104 ", " WRN_AT_112
                       ", " WRN_AT_120,
              "%128", "%129", "%130", "%131", "%132", WRN_D(0), WRN_D(8), WRN_D(16), WRN_D(24),
              WRN_D(32), WRN_D(40), WRN_D(48), WRN_D(56), WRN_D(64), WRN_D(72), WRN_D(80),
              WRN_D(88), WRN_D(96), WRN_D(104), WRN_D(112), WRN_D(120));
  } else {
    static_assert(N == 0, "no such width");
  }
}
#undef WRN_WGMMA
#undef WRN_D
#undef WRN_AT_0
#undef WRN_AT_8
#undef WRN_AT_16
#undef WRN_AT_24
#undef WRN_AT_32
#undef WRN_AT_40
#undef WRN_AT_48
#undef WRN_AT_56
#undef WRN_AT_64
#undef WRN_AT_72
#undef WRN_AT_80
#undef WRN_AT_88
#undef WRN_AT_96
#undef WRN_AT_104
#undef WRN_AT_112
#undef WRN_AT_120

#else

inline unsigned shared_address(const void* p) { return simt::shared_address(p); }
inline int thread_of_warpgroup() { return static_cast<int>(threadIdx.x) % kWarpgroup; }
using simt::arrive, simt::arrive_expecting, simt::commit_products, simt::commit_stores;
using simt::fence_async_proxy, simt::fence_barrier_init, simt::init_barrier, simt::load_box;
using simt::load_shared, simt::named_barrier, simt::store_box, simt::store_shared, simt::wait;
inline void fence_async_proxy_of_global() {}  // boxes are loaded from the memory that all see
template <int kNewest>
void wait_for_stores() {
  simt::wait_for_stores(kNewest);
}
template <int kRegisters>
void drop_registers(simt::Where where = simt::Where::current()) {
  simt::set_registers(kRegisters, false, where);
}
template <int kRegisters>
void take_registers(simt::Where where = simt::Where::current()) {
  simt::set_registers(kRegisters, true, where);
}
template <int M, int R>
void begin_products(float (&)[M][R], simt::Where where = simt::Where::current()) {
  simt::fence_products(where);
}
template <int kNewest, int M, int R>
void wait_for_products(float (&)[M][R], simt::Where where = simt::Where::current()) {
  simt::wait_for_products(kNewest, where);
}
template <int N, bool kMnA, bool kMnB>
void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate,
           simt::Where where = simt::Where::current()) {
  simt::multiply_async({d, N, a, b, accumulate, kMnA, kMnB}, where);
}

#endif

/// Which warpgroup of the block this one is. The warp's first lane says it to all, so that ptxas
/// knows that what follows from it, such as where operands are, is the same for all of the warp.
__device__ __forceinline__ int warpgroup_of_block() {
  return __shfl_sync(0xFFFFFFFF, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}

// --- Descriptors (9.7.15.5.1.2) ------------------------------------------------------------------
/// The width of the rows that wgmma's operands and the boxes have in shared memory, in bytes. Rows
/// follow each other; within 8 of them, 16-byte groups change places, so that a column of them is
/// in as many banks: address bits 4-6 are xored with bits 7-9 (of 64-byte rows, 4-5 with 7-8; of
/// 32-byte rows, 4 with 7).
enum class Row { k32 = 32, k64 = 64, k128 = 128 };

/// All of a descriptor but the address. Bytes from 8 rows to the next 8: `eight_rows`. Of operands
/// contiguous along m or n, bytes from a row's width of them to the next: `across`; else unused.
constexpr std::uint64_t operand_layout(Row row, unsigned eight_rows, unsigned across) {
  const std::uint64_t mode = row == Row::k128 ? 1 : row == Row::k64 ? 2 : 3;
  return mode << 62 | std::uint64_t{eight_rows >> 4} << 32 | std::uint64_t{across >> 4} << 16;
}
/// At p, which is aligned to 8 rows.
__device__ inline std::uint64_t operand(std::uint64_t layout, const void* p) {
  return layout | shared_address(p) >> 4;
}
/// So many times 16 bytes behind another one. The sum does not leave the address' 14 bits, which
/// are 256 KB, so that one addition of 32 bits does.
__device__ inline std::uint64_t behind(std::uint64_t operand, unsigned sixteens) {
  return operand >> 32 << 32 | (static_cast<unsigned>(operand) + sixteens);
}

}  // namespace wrn::cuda
