// One split of a data set, whole in memory, as bytes: what the readers return and the loader takes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/augment.h"

namespace wrn {

enum class Split { train, test };

struct Dataset {
  std::string name;                      // "cifar10", "cifar100" or "svhn"
  std::vector<std::string> class_names;  // [classes]
  std::vector<std::uint8_t> images;      // [n, 32, 32, 3]: red, green, blue
  std::vector<std::uint8_t> labels;      // [n], each below classes()

  int classes() const { return static_cast<int>(class_names.size()); }
  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
};

/// Red, green, blue, in the images' units of 0..255.
struct ChannelStats {
  std::array<double, 3> mean;
  std::array<double, 3> std;  // over all pixels, divided by their number; 0 for a constant channel
};

/// Throws an Error for a data set of no images.
ChannelStats channel_stats(const Dataset& dataset);

/// Of every image and label, to tell one data set from another: 16 hexadecimal digits.
std::string checksum(std::span<const Dataset* const> parts);

/// The images of these indices, in their order; an index may repeat. Throws an Error for one
/// outside the data set.
Dataset subset(const Dataset& dataset, std::span<const std::int32_t> indices);

}  // namespace wrn
