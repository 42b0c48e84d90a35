// How the tensor memory accelerator of sm_90 sees a tensor. Maps are made on the host and passed to
// kernels as `const __grid_constant__`.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <vector>

#include "kernels/bf16.h"

namespace wrn::cuda {

/// One dimension, the innermost first: its elements, the bytes from one to the next (a multiple of
/// 16; not asked for in the innermost), and how many of them a box has.
struct MapDimension {
  std::int64_t size, bytes;
  int box;
};

/// Makes `map` one of bf16, with the 16-byte groups of a box placed as Row says (hopper.cuh): the
/// innermost `box` is 16, 32 or 64 elements. Throws where the driver refuses. (The map is not a
/// return value because the driver wants it aligned, and g++ does not always align temporaries.)
void make_tensor_map(CUtensorMap& map, const bf16* tensor,
                     const std::vector<MapDimension>& dimensions);

}  // namespace wrn::cuda
