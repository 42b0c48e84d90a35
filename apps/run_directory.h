// The files of a run, and what a checkpoint holds besides weights.
//
//   config.json  metrics.jsonl  report.html  latest.safetensors  best.safetensors
//   predictions.safetensors  tensorboard/
//
// A checkpoint carries the whole history of metrics, so that resuming from any of them needs no
// other file: metrics.jsonl is rewritten from it, which cuts off the epochs that came after.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "apps/options.h"
#include "apps/tensorboard.h"
#include "data/whitening.h"
#include "engine/parameters.h"
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

class RunDirectory {
 public:
  explicit RunDirectory(std::filesystem::path directory) : directory_(std::move(directory)) {}

  const std::filesystem::path& path() const { return directory_; }
  std::filesystem::path latest() const { return directory_ / "latest.safetensors"; }
  std::filesystem::path best() const { return directory_ / "best.safetensors"; }
  std::filesystem::path config() const { return directory_ / "config.json"; }
  std::filesystem::path metrics() const { return directory_ / "metrics.jsonl"; }
  std::filesystem::path report() const { return directory_ / "report.html"; }
  std::filesystem::path tensorboard() const { return directory_ / "tensorboard"; }
  std::filesystem::path predictions() const { return directory_ / "predictions.safetensors"; }

  /// One of the files that a run writes; empty where the directory holds none.
  std::filesystem::path file_of_a_run() const;
  /// Whether a run writes a file of this name.
  bool writes(const std::filesystem::path& name) const;
  /// Whether the file lies in this directory, not in one below it.
  bool contains(const std::filesystem::path& file) const;

  /// Makes the directory where there is none, and locks it: until the last copy of this object is
  /// gone, prepare() is an Error in any other process. Removes what a killed process left
  /// half-written. In the end a directory that it made and that is still empty is removed.
  void prepare();
  /// Throws an Error where the directory, or what lies in it, does not let a run write its files.
  void check_writable(bool with_events) const;
  /// What a run that is replaced leaves and the new one does not at once write itself.
  void remove_leftovers() const;
  /// From now on write_metrics() writes TensorBoard's events too.
  void begin_events();

  void write_config(const nlohmann::json& config) const;
  /// metrics.jsonl, report.html and the events, from the history and the predictions that are
  /// there.
  void write_metrics(const nlohmann::json& config,
                     const std::vector<nlohmann::json>& metrics) const;
  /// latest.safetensors; with `is_best`, best.safetensors too, as the same file.
  void save(const Checkpoint&, const Parameters&, bool is_best) const;

 private:
  struct Lock;

  std::vector<std::filesystem::path> files() const;  // without TensorBoard's

  std::filesystem::path directory_;
  std::shared_ptr<const Lock> lock_;   // once it is prepared
  std::shared_ptr<EventFile> events_;  // where they are wanted
};

}  // namespace wrn
