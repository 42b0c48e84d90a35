// The tensor-core instructions of sm_80 and what feeds them, one thin wrapper each. The numbers are
// sections of the PTX ISA, version 9.1. In the emulation tests/simt carries them out.
//
// A warp computes D += A B in tiles of 16 x 8, of depth 16 (bf16) or 8 (tf32: fp32 of which only
// ten bits of the mantissa count); sums are fp32. A tile is spread over the lanes as a fragment:
// with g = lane / 4 and q = lane % 4, 32-bit register j of a lane holds
//
//   A, 4 registers   row g + 8 (j % 2)   k = 2 q, 2 q + 1 (bf16) or q (tf32); the upper two
//   B, 2 registers   column g            registers 8 (bf16) or 4 (tf32) further; so in B the second
//   D, 4 registers   row g + 8 (j / 2)   column 2 q + j % 2
//
// All lanes of a warp call mma and load_matrices together.
#pragma once

#include "kernels/bf16.h"
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "simt/device.h"
#include "simt/tensor_core.h"
#endif

namespace wrn::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/// cp.async (9.7.9.25.3.1): starts a copy of kBytes = 4, 8 or 16 to shared memory, the first
/// `from_source` of them from global memory, the rest zeros. Both addresses are multiples of
/// kBytes.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int from_source) {
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(from_source)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(kBytes), "r"(from_source)
                 : "memory");
  }
}
/// cp.async.commit_group (9.7.9.25.3.2): what this thread has started since the last one is a
/// group.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// cp.async.wait_group (9.7.9.25.3.3): all groups of this thread but the newest kNewest are done,
/// and their bytes visible to it; to the block's other threads after a barrier.
template <int kNewest>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

/// ldmatrix.x4 (9.7.14.5.15): four matrices of 8 x 8 bf16, or of 8 x 4 fp32, into a fragment
/// register each. The lane's `row` is row lane % 8 of matrix lane / 8: 16 bytes, 16-byte aligned. A
/// lane gets 32 bits of row g, at q.
__device__ __forceinline__ void load_matrices(unsigned (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same of the transposed matrices, bf16 only: a lane gets element g of rows 2 q and 2 q + 1.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}

/// mma.m16n8k16, bf16 (9.7.14.5.8), and m16n8k8, tf32 (9.7.14.5.7): M x N tiles of D.
/// T is bf16, or float for tf32, whose operands must have been rounded.
template <typename T, int M, int N>
__device__ __forceinline__ void mma(float (&d)[M][N][4], const unsigned (&a)[M][4],
                                    const unsigned (&b)[N][2]) {
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if constexpr (sizeof(T) == 2) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
            : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
      } else {
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
            : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
      }
    }
  }
}

/// cvt.rna.tf32 (9.7.9.22): the nearest fp32 that tf32 holds, of two equally near the one further
/// from zero.
__device__ __forceinline__ unsigned round_to_tf32(unsigned bits) {
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__uint_as_float(bits)));
  return bits;
}

#else

template <int kBytes>
void copy_async(void* shared, const void* global, int from_source,
                simt::Where where = simt::Where::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  simt::copy_async(shared, global, kBytes, from_source, where);
}
inline void commit_copies() { simt::commit_copies(); }
template <int kNewest>
void wait_for_copies() {
  simt::wait_for_copies(kNewest);
}
inline void load_matrices(unsigned (&fragment)[4], const void* row,
                          simt::Where where = simt::Where::current()) {
  simt::load_matrices(fragment, row, false, where);
}
inline void load_matrices_transposed(unsigned (&fragment)[4], const void* row,
                                     simt::Where where = simt::Where::current()) {
  simt::load_matrices(fragment, row, true, where);
}
template <typename T, int M, int N>
void mma(float (&d)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2],
         simt::Where where = simt::Where::current()) {
  simt::multiply(sizeof(T) == 2 ? simt::Operands::kBf16 : simt::Operands::kTf32, M, N, a[0], b[0],
                 d[0][0], where);
}
inline unsigned round_to_tf32(unsigned bits) { return simt::round_to_tf32(bits); }

#endif

}  // namespace wrn::cuda
