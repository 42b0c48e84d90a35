// A run's directory read back, for the pages made of it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/predictions.h"

namespace wrn {

struct RunRecord {
  std::string name;                     // of its directory
  nlohmann::json config;                // config.json
  std::vector<nlohmann::json> metrics;  // metrics.jsonl, an object an epoch
  std::optional<Predictions> predictions;
};

/// What is there of a run. Only config.json must be: a run that was killed early, or is older than
/// predictions.safetensors, has less. Throws an Error that names the file, and the line, of
/// whatever is not what wrn_train writes.
RunRecord read_run(const std::filesystem::path& directory);

}  // namespace wrn
