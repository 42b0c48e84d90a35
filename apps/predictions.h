// What a network said of every image of the test set, kept beside the run so that its report needs
// neither the network nor the data: predictions.safetensors.
//
//   labels       u8  [n]            what each image is
//   predicted    u8  [n]            the class of the largest probability
//   probability  f32 [n]            that probability
//   mistakes     i32 [m]            the wrong answers of the largest probabilities, largest first
//   images       u8  [m,32,32,3]    those images
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace wrn {

struct Answer {
  int label = 0;  // a class
  double probability = 0;
};

/// The `count` most probable classes by a row of logits, or all where there are fewer, most
/// probable first; of equal ones the first. NaN where a logit is not finite.
std::vector<Answer> most_probable(std::span<const float> logits, std::size_t count);

struct Predictions {
  int epoch = 0;  // the network's, of finished ones
  std::vector<std::string> class_names;
  std::vector<std::uint8_t> labels, predicted;  // [n], each a class
  std::vector<float> probability;               // [n]
  std::vector<std::int32_t> mistakes;           // [m], each an image
  std::vector<std::uint8_t> images;             // [m,32,32,3]

  int classes() const { return static_cast<int>(class_names.size()); }
};

/// `answers`: one for each image of `test`.
Predictions predictions_of(const Dataset& test, std::span<const Answer> answers, int epoch);

void write_predictions(const std::filesystem::path& path, const Predictions&);
/// Throws an Error that names the file and what is wrong with it.
Predictions read_predictions(const std::filesystem::path& path);

}  // namespace wrn
