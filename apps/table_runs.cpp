#include "apps/table_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <span>

#include "apps/history.h"
#include "apps/json_text.h"
#include "apps/options.h"
#include "data/checksum.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// An object, empty where the text is none.
json object_of(const std::string& text) {
  json parsed = parse_json(text);
  return parsed.is_object() ? parsed : json::object();
}

/// That in a file, empty where there is none.
json object_in(const fs::path& path) {
  try {
    return object_of(read_text(path));
  } catch (const Error&) {
    return json::object();
  }
}

/// The value at a pointer, or the other where there is none of its type.
template <typename T>
T value_at(const json& object, const char* pointer, T otherwise) {
  try {
    return object.value(json::json_pointer(pointer), otherwise);
  } catch (const json::exception&) {
    return otherwise;
  }
}

}  // namespace

std::vector<std::string> Rehearsal::flags() const {
  std::vector<std::string> flags;
  const auto add = [&](const char* flag, std::int64_t value) {
    if (value != 0) flags.insert(flags.end(), {flag, std::to_string(value)});
  };
  add("--epochs", epochs);
  add("--limit-train", limit_train);
  add("--limit-test", limit_test);
  add("--batch-size", batch_size);
  return flags;
}

std::optional<TableSettings> settings_of(const json& text) {
  const json rehearsal = value_at(text, "/rehearsal", json());
  const Rehearsal r = {int_within(0, kMostEpochs, rehearsal, "epochs", -1),
                       int_within(0, INT_MAX, rehearsal, "limit_train", -1),
                       int_within(0, INT_MAX, rehearsal, "limit_test", -1),
                       int_within(0, kMostBatch, rehearsal, "batch_size", -1)};
  const int runs = int_within(1, kMostRuns, text, "runs", -1);
  if (std::min({r.epochs, r.limit_train, r.limit_test, r.batch_size}) < 0 || runs < 0) return {};
  return TableSettings{r, runs};
}

std::vector<std::string> training_flags(const Experiment& e, const Rehearsal& rehearsal) {
  std::vector<std::string> flags = {
      "--model", e.model,        "--dataset",  e.dataset,   "--recipe",
      e.recipe,  "--preprocess", e.preprocess, "--dropout", fmt::format("{:g}", e.dropout)};
  // The paper's SVHN is train and extra: not whatever is there.
  if (e.dataset == "svhn") flags.insert(flags.end(), {"--svhn-extra", "yes"});
  const std::vector<std::string> more = rehearsal.flags();
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

std::string experiment_name(const Experiment& e, const Rehearsal& rehearsal) {
  const std::string flags = fmt::format("{}", fmt::join(training_flags(e, rehearsal), " "));
  Checksum sum;
  sum.add(std::span<const char>(flags));
  const std::uint64_t hash = sum.value();
  return fmt::format("{}-{}-{}{}-{:08x}", e.model, e.dataset, e.preprocess,
                     e.dropout > 0 ? fmt::format("-dropout{:g}", e.dropout) : "",
                     (hash >> 32) ^ (hash & 0xffffffffU));
}

RunFiles::RunFiles(const fs::path& output_dir, const std::string& experiment, int seed) {
  const std::string run = (output_dir / "runs" / experiment / fmt::format("seed{}", seed)).string();
  directory = run;
  log = run + ".log";
  failed = run + ".failed";
}

RunProgress run_progress(const RunFiles& files) {
  RunProgress state;
  const json config = object_in(files.directory / "config.json");
  state.epochs = int_within(0, INT_MAX, value_at(config, "/training", json::object()), "epochs", 0);
  state.device = fmt::format("{}, {}", value_at(config, "/device_name", std::string("?")),
                             value_at(config, "/precision", std::string("?")));

  std::vector<double> seconds;
  std::ifstream metrics(files.directory / "metrics.jsonl");
  for (std::string line; state.epochs > 0 && std::getline(metrics, line);) {
    const json epoch = object_of(line);
    const double error = value_at(epoch, "/test_error", -1.0);
    const bool follows = int_within(0, INT_MAX, epoch, "epoch", 0) == state.epochs_done + 1;
    if (!follows || state.epochs_done == state.epochs || !(error >= 0 && error <= 100)) break;
    ++state.epochs_done;
    state.error = error;
    seconds.push_back(value_at(epoch, "/seconds", 0.0));
  }
  state.seconds_per_epoch = median(seconds);

  std::ifstream failed(files.failed);
  std::getline(failed, state.failure);
  return state;
}

}  // namespace wrn
