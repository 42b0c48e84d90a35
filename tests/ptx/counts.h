// What the kernels of a run did, counted as Nsight Compute counts it on a GPU: accesses of warps to
// global memory in sectors of 32 bytes, and to shared memory in passes over its 32 banks.
#pragma once

#include <cstdint>
#include <string>

#include "ptx/interpreter.h"

namespace wrn::ptx {

struct Traffic {
  std::uint64_t requests = 0;  // of a warp
  std::uint64_t sectors = 0;   // that they touch
  std::uint64_t least = 0;     // had the lanes' bytes been next to each other
  std::uint64_t unique = 0;    // sectors, each counted once in a launch: what memory must move
};
struct Counts {
  std::uint64_t launches = 0, blocks = 0, warps = 0, instructions = 0;
  Traffic loads, stores;
  std::uint64_t shared_requests = 0, shared_passes = 0, shared_least = 0;
};

/// Of the kernel that runs, or null where nothing is counted: WRN_PTX_COUNTS, a file, asks for it.
extern Counts* counts;
/// A launch of a kernel begins and ends.
void begin_counting(const std::string& kernel);
void end_counting();

/// A warp's access: where each lane's bytes begin.
void count_global(const std::byte* const (&addresses)[kLanes], Lanes lanes, std::size_t bytes,
                  bool is_load);
/// Bytes next to each other, as the machinery of boxes moves them.
void count_global(const std::byte* address, std::size_t bytes, bool is_load);
void count_shared(const std::byte* const (&addresses)[kLanes], Lanes lanes, std::size_t bytes);

}  // namespace wrn::ptx
