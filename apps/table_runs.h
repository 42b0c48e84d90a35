// The runs that the tables are made of: where each is kept, and how far it is.
//
//   OUT/settings.json                                        what was asked for
//   OUT/runs/wrn-28-10-cifar10-meanstd-1a2b3c4d/seed1/       a run, as wrn_train leaves it
//   OUT/runs/wrn-28-10-cifar10-meanstd-1a2b3c4d/seed1.log    what wrn_train printed
//   OUT/runs/wrn-28-10-cifar10-meanstd-1a2b3c4d/seed1.failed why it ended, if it failed
//
// The digits are a hash of all that decides the result, so that tables share their runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/paper_tables.h"

namespace wrn {

/// What makes runs cheaper than the paper's; 0 leaves it as the recipe has it.
struct Rehearsal {
  std::int64_t epochs = 0, limit_train = 0, limit_test = 0, batch_size = 0;

  bool operator==(const Rehearsal&) const = default;
  explicit operator bool() const { return *this != Rehearsal{}; }
  std::vector<std::string> flags() const;  // of wrn_train
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Rehearsal, epochs, limit_train, limit_test, batch_size)

inline constexpr int kMostRuns = 1000;  // of a row

/// What is the same for everything in an output directory.
struct TableSettings {
  Rehearsal rehearsal;
  int runs = 5;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TableSettings, rehearsal, runs)

/// What to_json() made of settings; nothing where a value is missing, or is none that wrn_tables
/// takes on its command line.
std::optional<TableSettings> settings_of(const nlohmann::json& text);

/// The flags of wrn_train that decide a run's result, but for the seed.
std::vector<std::string> training_flags(const Experiment& experiment, const Rehearsal& rehearsal);

/// Readable, and unique to those flags: "wrn-28-10-cifar10-meanstd-1a2b3c4d".
std::string experiment_name(const Experiment& experiment, const Rehearsal& rehearsal);

struct RunFiles {
  RunFiles(const std::filesystem::path& output_dir, const std::string& experiment, int seed);
  std::filesystem::path directory, log, failed;
};

struct RunProgress {
  int epochs_done = 0, epochs = 0;  // epochs: 0 where nothing is known of the run
  double error = 0;                 // test error of the last epoch, in percent
  double seconds_per_epoch = 0;     // the median; 0 where no epoch is done
  std::string device;               // and what it computed in: "cpu, fp32"
  std::string failure;              // why the last attempt ended, where it failed

  /// With a failure after the last epoch, the last checkpoint is missing.
  bool finished() const { return epochs > 0 && epochs_done == epochs && failure.empty(); }
};

/// What the files say. A run whose files are missing or broken is one of no epochs.
RunProgress run_progress(const RunFiles& files);

}  // namespace wrn
