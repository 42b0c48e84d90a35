// Global contrast normalisation and ZCA whitening, as pylearn2 makes its whitened CIFAR-10
// (scripts/datasets/make_cifar10_gcn_whitened.py, datasets/preprocessing.py), on which the paper's
// older tables stand:
//
//   x' = 55 (x - mean of x) / |x - mean of x|           each image by itself, over all its values
//   x'' = (x' - m) P,  P = V diag(1 / sqrt(l + 0.1)) V^T
//
// m is the mean of the training images x', and V, l are the eigenvectors and eigenvalues of their
// covariance. An image of one colour is not divided. The values of an image are in the order in
// which a Dataset has them; any other order gives the same whitened pixels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/safetensors.h"

namespace wrn {

struct Whitening {
  int features = 0;           // values of an image
  std::vector<float> mean;    // [features]
  std::vector<float> matrix;  // [features, features], symmetric

  /// images [n, features] -> whitened [n, features]. The same bits for the same number of threads.
  void apply(std::span<const std::uint8_t> images, std::span<float> whitened, int threads) const;

  /// 16 hexadecimal digits, which tell this whitening from any other.
  std::string checksum() const;
};

/// From images [n, features]; n may be less than features. By one thread, so that the bits depend
/// on the images and the machine alone: about 15 seconds for CIFAR's 50,000 of 3,072 values.
Whitening fit_whitening(std::span<const std::uint8_t> images, int features);

/// To and from a file's tensors "whitening.mean" and "whitening.matrix"; from throws an Error that
/// names the file where one is missing or of another shape, or the checksum is another.
void export_whitening(const Whitening&, Safetensors& file);
Whitening import_whitening(const Safetensors& file, const std::string& checksum);

/// fit_whitening(), kept for the next time in `directory`/zca-CHECKSUM OF THE IMAGES.safetensors. A
/// cache is nothing to stumble over: one that is damaged or of other images is written anew. `warn`
/// is told of it in one line, and of one that cannot be written.
Whitening cached_whitening(const std::filesystem::path& directory,
                           std::span<const std::uint8_t> images, int features,
                           const std::function<void(const std::string&)>& warn);

}  // namespace wrn
