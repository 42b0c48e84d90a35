// What tests ask of the emulation; free of CUDA's headers and of the device's macros.
//
// A run is a function of three things, each its own, so that a difference tells what it comes from:
//   order     in which blocks and threads run, drawn from a seed
//   poison    the byte that fresh device, pinned and shared memory holds: 0xFF (NaN), 0x7F (3.4e38)
//             or 0
//   progress  when queued work runs, between its call and the next synchronisation; and when a
//             kernel's asynchronous instructions take effect
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace wrn::cuda::simt {

enum class Progress { kLatest, kAtOnce, kRandom };

/// order = seed, poison = seed % 3, progress = seed / 3 % 3 (each in the order listed above). The
/// environment variable WRN_SIMT_SEED does so at the start of the program; its default is 0.
void set_seed(std::uint64_t seed);
void set_order_seed(std::uint64_t seed);
void set_poison(unsigned char byte);
void set_progress(Progress progress);

/// The names of the kernels that have run, without template arguments, and how often.
std::map<std::string, int> launched_kernels();

/// What is allocated and not yet freed. A program that ends with any of it says so and fails.
struct Outstanding {
  std::size_t device_allocations, device_bytes, pinned, streams, events, graphs;
};
Outstanding outstanding();

/// Calls `run`, which allocates, launches and returns its outputs' bytes, with several orders and
/// poisons and each progress. "" where the outputs are the same bits, else one line that says what
/// they depend on, "the order of threads or blocks", "uninitialised memory" or "when asynchronous
/// work is done", and names the kernels that ran.
std::string check_deterministic(const std::function<std::vector<std::byte>()>& run);

}  // namespace wrn::cuda::simt
