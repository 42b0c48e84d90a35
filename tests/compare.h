// How the tests of launchers compare: with the double-precision oracle within a bound that follows
// from the arithmetic, or with other floats to the bit. Both name the first element that is bad.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "oracle.h"

namespace wrn::test {

using oracle::Values;

/// Half a unit in the last place of 1: the relative error of one fp32 operation.
constexpr double kRounding = 0x1p-24;

/// "" where all of `got` are finite and within allowed[i] of expected[i], else the first that is
/// not, by its indices in an array of shape [..., columns].
inline std::string mismatch(const std::vector<float>& got, const Values& expected,
                            const Values& allowed, std::size_t columns = 1) {
  if (got.size() != expected.size()) {
    return fmt::format("{} elements in place of {}", got.size(), expected.size());
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isfinite(got[i]) && std::abs(got[i] - expected[i]) <= allowed[i]) continue;
    return fmt::format("[{}, {}] is {}, expected {}, allowed {}", i / columns, i % columns, got[i],
                       expected[i], allowed[i]);
  }
  return "";
}

/// "" where the bits are the same, else the first element that differs.
template <typename T>
std::string difference(const std::vector<T>& got, const std::vector<T>& expected,
                       std::size_t columns = 1) {
  if (got.size() != expected.size()) {
    return fmt::format("{} elements in place of {}", got.size(), expected.size());
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) == 0) continue;
    return fmt::format("[{}, {}] is {}, expected {}", i / columns, i % columns, got[i],
                       expected[i]);
  }
  return "";
}

inline std::vector<float> random_floats(std::size_t size, unsigned seed, float mean = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, 1);
  std::vector<float> values(size);
  for (float& value : values) value = normal(generator);
  return values;
}

inline Values to_double(const std::vector<float>& values) {
  return Values(values.begin(), values.end());
}

inline std::vector<float> to_float(const Values& values) {
  return std::vector<float>(values.begin(), values.end());
}

}  // namespace wrn::test
