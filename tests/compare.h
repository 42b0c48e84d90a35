// How the tests of launchers compare: with the double-precision oracle within a bound that follows
// from the arithmetic, or with other floats to the bit. Both name the first element that is bad.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/error.h"
#include "oracle.h"

namespace wrn::test {

using oracle::Values;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Half a unit in the last place of 1: the relative error of one fp32 operation.
constexpr double kRounding = 0x1p-24;
/// What an fp32 result may be off by, relative to itself, once it is stored as a Real.
template <typename Real>
constexpr double kStoring = std::is_same_v<Real, bf16> ? 0x1p-8 : 0;

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
    if constexpr (std::is_same_v<T, bf16>) {
      return fmt::format("[{}, {}] has the bits {:04x}, expected {:04x}", i / columns, i % columns,
                         got[i].bits, expected[i].bits);
    } else {
      return fmt::format("[{}, {}] is {}, expected {}", i / columns, i % columns, got[i],
                         expected[i]);
    }
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

/// Rounded, as a device array holds them.
template <typename Real>
std::vector<Real> to_reals(const std::vector<float>& values) {
  std::vector<Real> reals(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<Real, bf16>) {
      reals[i] = to_bf16(values[i]);
    } else {
      reals[i] = values[i];
    }
  }
  return reals;
}

/// The values of Reals. A NaN of bf16 becomes the one NaN: which of them a conversion makes is the
/// device's choice.
inline std::vector<float> to_floats(const std::vector<float>& values) { return values; }
inline std::vector<float> to_floats(const std::vector<bf16>& values) {
  std::vector<float> floats;
  for (const bf16 value : values) {
    const float x = wrn::to_float(value);
    floats.push_back(std::isnan(x) ? kNan : x);
  }
  return floats;
}

/// The values that are left when they are stored as Reals.
template <typename Real>
std::vector<float> stored(const std::vector<float>& values) {
  return to_floats(to_reals<Real>(values));
}

/// `allowed` of fp32 results, when these are stored as Reals.
template <typename Real>
Values allowed_stored(Values allowed, const Values& expected) {
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    allowed[i] += kStoring<Real> * (std::abs(expected[i]) + allowed[i]);
  }
  return allowed;
}

}  // namespace wrn::test
