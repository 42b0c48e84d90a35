// What a checkpoint holds besides weights.
//
// It carries the whole history of metrics, so that resuming from any of them needs no other file:
// metrics.jsonl is rewritten from it, which cuts off the epochs that came after.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/options.h"
#include "data/whitening.h"
#include "engine/safetensors.h"
#include "kernels/kernels.h"

namespace wrn {

/// How far a run has come.
struct Position {
  int epoch = 0;                // finished epochs
  std::int64_t step = 0;        // steps done in the epoch begun
  double seconds = 0;           // spent on that epoch
  double training_seconds = 0;  // of which in its steps
  Metrics sums{};               // of that epoch's batches
};

struct Best {
  double error = 101;  // percent
  int epoch = 0;
  std::string split = "none";
};

struct Checkpoint {
  Settings settings;
  int classes = 0;
  std::vector<std::string> class_names;
  Normalisation normalisation{};
  std::optional<Whitening> whitening;  // tensors of the file; its checksum is in the metadata
  std::string data_checksum;
  Position position;
  std::int64_t steps_per_epoch = 0;
  Best best;
  std::vector<nlohmann::json> metrics;  // a line an epoch

  /// Steps since the start of training.
  std::int64_t total_steps() const { return position.epoch * steps_per_epoch + position.step; }
};

/// To and from the file's metadata; throws an Error naming the file where a part is missing or
/// wrong.
std::map<std::string, std::string> to_metadata(const Checkpoint&);
Checkpoint checkpoint_of(const Safetensors& file);

}  // namespace wrn
