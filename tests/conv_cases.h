// The convolutions that tests and benchmarks run.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "kernels/conv3x3/ladder.h"

namespace wrn {

/// What a direction does: (version.*launch)(in, in, out, ...), and the sizes of the three tensors.
struct ConvDirection {
  const char* name;
  cuda::ConvLauncher* cuda::ConvVersion::*launch;
  std::int64_t (ConvShape::*sizes[3])() const;
};
inline constexpr ConvDirection kConvDirections[] = {
    {"fprop",
     &cuda::ConvVersion::fprop,
     {&ConvShape::x_size, &ConvShape::w_size, &ConvShape::y_size}},
    {"dgrad",
     &cuda::ConvVersion::dgrad,
     {&ConvShape::y_size, &ConvShape::w_size, &ConvShape::x_size}},
    {"wgrad",
     &cuda::ConvVersion::wgrad,
     {&ConvShape::x_size, &ConvShape::y_size, &ConvShape::w_size}}};

/// Values as a version's tensors hold them, and back; both in all of a tensor's bytes.
inline std::vector<std::byte> to_elements(const std::vector<float>& values, bool as_bf16) {
  std::vector<std::byte> bytes(values.size() * (as_bf16 ? sizeof(bf16) : sizeof(float)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bf16 rounded = to_bf16(values[i]);
    if (as_bf16) std::memcpy(&bytes[i * sizeof rounded], &rounded, sizeof rounded);
    if (!as_bf16) std::memcpy(&bytes[i * sizeof(float)], &values[i], sizeof(float));
  }
  return bytes;
}
inline std::vector<float> from_elements(const std::vector<std::byte>& bytes, bool as_bf16) {
  std::vector<float> values(bytes.size() / (as_bf16 ? sizeof(bf16) : sizeof(float)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    bf16 rounded;
    if (as_bf16) std::memcpy(&rounded, &bytes[i * sizeof rounded], sizeof rounded);
    if (as_bf16) values[i] = to_float(rounded);
    if (!as_bf16) std::memcpy(&values[i], &bytes[i * sizeof(float)], sizeof(float));
  }
  return values;
}

/// Whether a version's tensor i (0 and 1 are the inputs, 2 is the output) holds bf16.
inline bool holds_bf16(const cuda::ConvVersion& version, const ConvDirection& direction, int i) {
  const bool dw = direction.launch == &cuda::ConvVersion::wgrad && i == 2;
  return version.inputs == cuda::ConvInputs::kBf16 && !dw;
}

/// What a case is made of: one value of each factor. Tensor cores have more to go wrong with
/// channels: groups of 8, tiles of other widths.
using ConvFactors = std::array<std::vector<int>, 5>;
inline ConvFactors conv_factors(cuda::ConvInputs inputs) {
  // batch; c; k; size: 7 is 7 x 5; filter and stride: 31 is 3x3, stride 1.
  std::vector<int> channels{3, 16, 20, 64, 128, 160};
  if (inputs != cuda::ConvInputs::kFp32) channels = {3, 16, 20, 24, 32, 64, 160, 192};
  return {{{1, 3, 8}, channels, channels, {32, 16, 8, 7}, {31, 32, 11, 12}}};
}

using ConvLevels = std::array<int, 5>;
inline ConvShape conv_shape(const ConvLevels& level) {
  const auto [n, c, k, size, window] = level;
  return {n, size, size == 7 ? 5 : size, c, k, window / 10, window % 10};
}

/// Every combination of the factors: 1728 cases of the first kind, 32 thousand million
/// multiply-adds.
inline std::vector<ConvLevels> conv_product(const ConvFactors& factors) {
  std::vector<ConvLevels> product{{}};
  for (std::size_t factor = 0; factor < factors.size(); ++factor) {
    std::vector<ConvLevels> longer;
    for (ConvLevels levels : product) {
      for (const int level : factors[factor]) {
        levels[factor] = level;
        longer.push_back(levels);
      }
    }
    product = longer;
  }
  return product;
}

/// A few cases, none of more than `most_macs`, in which any two values of two factors meet: the
/// next case is always the first that has most pairs not seen yet.
inline std::vector<ConvLevels> conv_pairwise(const ConvFactors& factors, std::int64_t most_macs) {
  std::vector<ConvLevels> pool = conv_product(factors), cases;
  std::erase_if(pool, [&](const auto& levels) { return conv_shape(levels).macs() > most_macs; });
  std::set<std::array<int, 4>> seen;  // factor, factor, and their values
  const auto pairs = [](const ConvLevels& levels) {
    std::vector<std::array<int, 4>> all;
    for (int i = 0; i < 5; ++i) {
      for (int j = 0; j < i; ++j) all.push_back({i, j, levels[i], levels[j]});
    }
    return all;
  };
  for (;;) {
    const ConvLevels* best = nullptr;
    std::ptrdiff_t most = 0;
    for (const ConvLevels& levels : pool) {
      const std::vector<std::array<int, 4>> all = pairs(levels);
      const auto fresh = std::count_if(all.begin(), all.end(),
                                       [&](const auto& pair) { return !seen.contains(pair); });
      if (fresh > most) {
        most = fresh;
        best = &levels;
      }
    }
    if (!best) return cases;
    for (const auto& pair : pairs(*best)) seen.insert(pair);
    cases.push_back(*best);
  }
}

struct NamedConv {
  std::string name;
  ConvShape shape;
};

/// The different convolutions of a wide residual network on 32x32 images.
inline std::vector<NamedConv> wrn_convolutions(int batch, int widen) {
  std::vector<NamedConv> convolutions{{"conv1", {batch, 32, 32, 3, 16, 3, 1}}};
  int in = 16;
  for (int group = 0; group < 3; ++group) {
    const int out = (16 << group) * widen, side = 32 >> group;
    const int stride = group == 0 ? 1 : 2, from = side * stride;
    const std::string name = "group " + std::to_string(group + 1);
    convolutions.push_back({name + " first", {batch, from, from, in, out, 3, stride}});
    convolutions.push_back({name + " shortcut", {batch, from, from, in, out, 1, stride}});
    convolutions.push_back({name + " inner", {batch, side, side, out, out, 3, 1}});
    in = out;
  }
  return convolutions;
}

}  // namespace wrn
