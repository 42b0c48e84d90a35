// Fast division by a number that is the same for a whole launch.
#pragma once

#include <cstdint>

#include "kernels/philox.h"  // WRN_HOST_DEVICE

namespace wrn {

/// Division by d: for 0 <= x < 2^31 a multiplication and a shift. Let 2^(s-1) < d <= 2^s and
/// m = floor(2^(31+s) / d) + 1. Then x m / 2^(31+s) exceeds x / d by at most x / (2^31 d), which is
/// less than 1 / d: too little to reach the next integer.
class Divisor {
 public:
  explicit Divisor(int value) : value_(value) {
    while ((std::int64_t{1} << (shift_ - 31)) < value) ++shift_;
    multiplier_ = static_cast<std::uint32_t>((std::uint64_t{1} << shift_) / value + 1);
  }
  WRN_HOST_DEVICE int value() const { return value_; }
  WRN_HOST_DEVICE int divide(int x) const {
    return static_cast<int>(std::uint64_t{static_cast<std::uint32_t>(x)} * multiplier_ >> shift_);
  }

 private:
  int value_, shift_ = 31;
  std::uint32_t multiplier_;
};

}  // namespace wrn
