// The files of a run.
//
//   config.json  metrics.jsonl  report.html  latest.safetensors  best.safetensors
//   predictions.safetensors  tensorboard/
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "apps/checkpoint_metadata.h"
#include "apps/tensorboard.h"
#include "engine/parameters.h"

namespace wrn {

/// Throws an Error where files cannot be made in the directory, which `flag` names.
void check_writable(const std::filesystem::path& directory, const char* flag);

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
  /// Whether a run writes a file or directory of this name.
  bool writes(const std::filesystem::path& name) const;
  /// Whether the file lies in this directory, not in one below it.
  bool contains(const std::filesystem::path& file) const;

  /// Makes the directory where there is none, and locks it: until the last copy of this object is
  /// gone, prepare() is an Error in any other process. Removes what a killed process left
  /// half-written. In the end the directories that it made are removed, if they are still empty.
  void prepare();
  /// Throws an Error where the directory, or what lies in it, does not let a run write its files,
  /// or one that `replaces` another remove that one's.
  void check_writable(bool with_events, bool replaces) const;
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
