// A trained network ready to be asked: a checkpoint's weights, and what it does to an image first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "apps/checkpoint_metadata.h"
#include "apps/predictions.h"
#include "data/input.h"
#include "engine/program.h"
#include "models/wide_resnet.h"

namespace wrn {

class Classifier {
 public:
  /// `batch_size`: images that are looked at together. Throws an Error that names the file for what
  /// is no checkpoint of wrn_train.
  Classifier(const std::filesystem::path& checkpoint, int batch_size, Context& context);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  int batch_size() const { return batch_size_; }

  /// images u8 [n,32,32,3], n at most batch_size() -> of each its `count` most probable classes.
  /// Throws an Error(kNotFinite) where the network gives no numbers.
  std::vector<std::vector<Answer>> classify(std::span<const std::uint8_t> images,
                                            std::size_t count);

 private:
  Context& context_;
  int batch_size_;
  Checkpoint checkpoint_;
  RunState state_;
  std::optional<WideResNet> model_;
  std::optional<ResidentData> data_;  // a batch of images, and one that is never looked at
  Tensor order_;                      // i32 [batch_size]: 0, 1, ..., then -1
  std::optional<Program> program_;
  Tensor logits_;
  std::optional<Buffer> arena_;
};

}  // namespace wrn
