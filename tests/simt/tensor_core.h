// The instructions of kernels/tensor_core.cuh, as the emulation carries them out. Each meets the 32
// lanes of its warp, or is the calling thread's own (copies).
//
// Stricter than the device: what ldmatrix reads must not be the target of a copy that its thread
// has not waited for; operands of a tf32 product must have been rounded.
#pragma once

#include "simt/async.h"

namespace wrn::cuda::simt {

/// cp.async: `bytes` (4, 8 or 16) to shared memory, the first `from_source` of them from global
/// memory, the rest zeros.
void copy_async(void* shared, const void* global, int bytes, int from_source, Where where);
void commit_copies();
void wait_for_copies(int newest);

/// ldmatrix.x4: `row` is the lane's row of matrix lane / 8.
void load_matrices(unsigned (&fragment)[4], const void* row, bool transposed, Where where);

enum class Operands { kBf16, kTf32 };  // m16n8k16, m16n8k8
/// Products of m x n tiles: a is [m][4], b is [n][2], d is [m][n][4].
void multiply(Operands type, int m, int n, const unsigned* a, const unsigned* b, float* d,
              Where where);

unsigned round_to_tf32(unsigned bits);

}  // namespace wrn::cuda::simt
