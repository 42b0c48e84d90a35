#include "data/dataset.h"

#include <cmath>

#include "data/checksum.h"
#include "kernels/error.h"

namespace wrn {

// A byte has 256 values, so a histogram holds all there is to know, exactly; the mean and the
// deviations from it are then two short sums that neither overflow nor cancel.
ChannelStats channel_stats(const Dataset& dataset) {
  WRN_CHECK(dataset.size() > 0, "{} has no images to take the mean of", dataset.name);
  std::array<std::array<std::int64_t, 256>, 3> histogram{};
  for (std::size_t i = 0; i < dataset.images.size(); i += 3) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      ++histogram[channel][dataset.images[i + channel]];
    }
  }

  const double pixels = static_cast<double>(dataset.size() * kPlane);
  ChannelStats stats{};
  for (std::size_t channel = 0; channel < 3; ++channel) {
    std::int64_t sum = 0;
    for (int value = 0; value < 256; ++value) sum += histogram[channel][value] * value;
    const double mean = static_cast<double>(sum) / pixels;
    double squares = 0;
    for (int value = 0; value < 256; ++value) {
      squares += static_cast<double>(histogram[channel][value]) * (value - mean) * (value - mean);
    }
    stats.mean[channel] = mean;
    stats.std[channel] = std::sqrt(squares / pixels);
  }
  return stats;
}

std::string checksum(std::span<const Dataset* const> parts) {
  Checksum sum;
  for (const Dataset* part : parts) {
    sum.add(std::span<const std::uint8_t>(part->images));
    sum.add(std::span<const std::uint8_t>(part->labels));
  }
  return sum.text();
}

Dataset subset(const Dataset& dataset, std::span<const std::int32_t> indices) {
  Dataset result{dataset.name, dataset.class_names, {}, {}};
  result.images.reserve(indices.size() * kImageBytes);
  result.labels.reserve(indices.size());
  for (const std::int32_t index : indices) {
    WRN_CHECK(index >= 0 && index < dataset.size(), "{} has {} images, and no image {}",
              dataset.name, dataset.size(), index);
    const auto image = dataset.images.begin() + std::int64_t{index} * kImageBytes;
    result.images.insert(result.images.end(), image, image + kImageBytes);
    result.labels.push_back(dataset.labels[static_cast<std::size_t>(index)]);
  }
  return result;
}

}  // namespace wrn
