// Which images are held out: a pure function of the seed, by a sort of Philox keys
// (kernels/philox.h says which counter each use has). An epoch's order is drawn likewise, on the
// device: shuffle() in kernels/launchers.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wrn {

/// The indices of `keys`, smallest key first; equal keys stay in order.
std::vector<std::int32_t> argsort(std::span<const std::uint64_t> keys);

struct ValidationSplit {
  std::vector<std::int32_t> train;       // ascending
  std::vector<std::int32_t> validation;  // ascending
};

/// Sets round(fraction n) of n images aside, drawn by the seed. Throws an Error (usage) for a
/// fraction outside [0, 1), and for one that leaves no image to train on, or, not being 0, sets
/// none aside.
ValidationSplit split_validation(std::int64_t n, double fraction, std::uint64_t seed);

}  // namespace wrn
