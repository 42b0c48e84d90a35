// In what order, and which, images are used: pure functions of the seed. They are sorts of Philox
// keys (kernels/philox.h says which counter each use has), so an epoch's order needs nothing of the
// epochs before it: a resumed run has it at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wrn {

/// The indices of `keys`, smallest key first; equal keys stay in order.
std::vector<std::int32_t> argsort(std::span<const std::uint64_t> keys);

/// The order in which an epoch takes the images 0..n-1.
std::vector<std::int32_t> epoch_order(std::int64_t n, std::uint64_t seed, std::uint32_t epoch);

struct ValidationSplit {
  std::vector<std::int32_t> train;       // ascending
  std::vector<std::int32_t> validation;  // ascending
};

/// Sets round(fraction n) of n images aside, drawn by the seed. Throws an Error (usage) for a
/// fraction outside [0, 1), and for one that leaves no image to train on, or, not being 0, sets
/// none aside.
ValidationSplit split_validation(std::int64_t n, double fraction, std::uint64_t seed);

}  // namespace wrn
