#include "apps/checkpoint_metadata.h"

#include <algorithm>
#include <climits>
#include <cmath>

#include "apps/history.h"
#include "apps/json_text.h"
#include "kernels/augment.h"
#include "kernels/error.h"

namespace wrn {
namespace {

constexpr const char* kFormat = "wrn.cu checkpoint 1";

// Doubles go through JSON exactly: it writes as many digits as are needed to read the same bits
// back.
nlohmann::json to_json(const Position& p) {
  return {{"epoch", p.epoch},
          {"step", p.step},
          {"seconds", p.seconds},
          {"training_seconds", p.training_seconds},
          {"loss_sum", p.sums.loss_sum},
          {"wrong", p.sums.wrong},
          {"wrong_top5", p.sums.wrong_top5},
          {"images", p.sums.images}};
}

/// The count, -1 where it is none.
std::int64_t count_of(const nlohmann::json& j, const char* key) {
  return whole_within(0, std::int64_t{1} << 53, j, key, -1);
}

/// Whether json converts it to the type that `usual` has, an array element by element: it would
/// truncate a fraction, wrap a number around, and that of one as 2e32 is not defined.
bool is_exact(const nlohmann::json& value, const nlohmann::json& usual) {
  if (value.is_array()) {
    return std::ranges::all_of(value, [](const auto& element) { return is_exact(element, 0); });
  }
  if (!value.is_number() || usual.is_number_float()) return true;
  if (value.is_number_float()) return false;
  if (usual.is_number_unsigned()) return value.is_number_unsigned();
  return !value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX;
}

/// Settings that json converts without loss.
std::optional<Settings> exact_settings(const nlohmann::json& given) {
  const nlohmann::json usual_settings = Settings();
  for (const auto& [key, usual] : usual_settings.items()) {
    if (!is_exact(given.at(key), usual)) return std::nullopt;
  }
  const Settings settings = given.get<Settings>();
  const nlohmann::json read = settings;
  for (const auto& [key, value] : read.items()) {
    if (value != given.at(key)) return std::nullopt;
  }
  return settings;
}

Position position_of(const nlohmann::json& j) {
  Position p;
  p.epoch = int_within(0, INT_MAX, j, "epoch", -1);
  p.step = count_of(j, "step");
  p.seconds = j.at("seconds").get<double>();
  p.training_seconds = j.at("training_seconds").get<double>();
  p.sums.loss_sum = j.at("loss_sum").get<double>();
  p.sums.wrong = count_of(j, "wrong");
  p.sums.wrong_top5 = j.contains("wrong_top5") ? count_of(j, "wrong_top5") : 0;
  p.sums.images = count_of(j, "images");
  return p;
}

}  // namespace

std::map<std::string, std::string> to_metadata(const Checkpoint& c) {
  const nlohmann::json settings = c.settings;
  return {{"format", kFormat},
          {"model", c.settings.model},
          {"classes", std::to_string(c.classes)},
          {"class_names", nlohmann::json(c.class_names).dump()},
          {"mean", nlohmann::json(c.normalisation.mean).dump()},
          {"std", nlohmann::json(c.normalisation.std).dump()},
          {"whitening", c.whitening ? c.whitening->checksum() : "none"},
          {"settings", settings.dump()},
          {"data_checksum", c.data_checksum},
          {"position", to_json(c.position).dump()},
          {"steps_per_epoch", std::to_string(c.steps_per_epoch)},
          {"best",
           nlohmann::json{{"error", c.best.error}, {"epoch", c.best.epoch}, {"split", c.best.split}}
               .dump()},
          {"metrics", nlohmann::json(c.metrics).dump()},
          {"version", WRN_VERSION}};
}

Checkpoint checkpoint_of(const Safetensors& file) {
  const auto text = [&](const char* key) -> const std::string& {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) {
      fail("{} is no checkpoint of wrn_train: its metadata has no '{}'", file.file.string(), key);
    }
    return found->second;
  };
  if (text("format") != kFormat) {
    const bool ours = text("format").starts_with("wrn.cu checkpoint");
    fail("{} is {} of wrn_train", file.file.string(),
         ours ? "a checkpoint of another version" : "no checkpoint");
  }
  const auto parsed = [&](const char* key) { return parse_json(text(key)); };
  try {
    Checkpoint c;
    nlohmann::json settings = parsed("settings");
    // Settings that older checkpoints lack, and what held before there were any.
    const nlohmann::json later = {{"precision", "fp32"},
                                  {"gamma_init", "one"},
                                  {"svhn_extra", "auto"},
                                  {"tensorboard", false}};
    for (const auto& [key, value] : later.items()) {
      if (!settings.contains(key)) settings[key] = value;
    }
    const std::optional<Settings> exact = exact_settings(settings);
    c.settings = exact.value_or(Settings());
    const nlohmann::json counts = {{"classes", parsed("classes")},
                                   {"steps_per_epoch", parsed("steps_per_epoch")}};
    c.classes = int_within(0, INT_MAX, counts, "classes", -1);
    c.steps_per_epoch = count_of(counts, "steps_per_epoch");
    c.class_names = parsed("class_names").get<std::vector<std::string>>();
    for (std::size_t i = 0; i < 3; ++i) {
      c.normalisation.mean[i] = parsed("mean").at(i).get<float>();
      c.normalisation.std[i] = parsed("std").at(i).get<float>();
      const bool divides = std::isfinite(c.normalisation.std[i]) && c.normalisation.std[i] > 0;
      if (!std::isfinite(c.normalisation.mean[i]) || !divides) {
        fail("{}: its mean and std are those of no images", file.file.string());
      }
    }
    if (const auto found = file.metadata.find("whitening");
        found != file.metadata.end() && found->second != "none") {
      c.whitening = import_whitening(file, found->second);
      if (c.whitening->features != kImageBytes) {
        fail("{}: its whitening is of images of {} values", file.file.string(),
             c.whitening->features);
      }
    }
    c.data_checksum = text("data_checksum");
    c.position = position_of(parsed("position"));
    const nlohmann::json best = parsed("best");
    c.best = {best.at("error").get<double>(), int_within(0, INT_MAX, best, "epoch", -1),
              best.at("split").get<std::string>()};
    c.metrics = parsed("metrics").get<std::vector<nlohmann::json>>();
    const Metrics& sums = c.position.sums;
    if (!exact || c.classes < 0 || c.position.epoch < 0 || c.position.step < 0 || sums.wrong < 0 ||
        sums.wrong_top5 < 0 || sums.images < 0 || c.steps_per_epoch < 0 || c.best.epoch < 0) {
      fail("{}: its metadata has numbers that no run has", file.file.string());
    }
    try {
      check(c.settings);
    } catch (const Error& error) {
      fail("{}: its metadata has settings that no run has: {}", file.file.string(), error.what());
    }
    return c;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: its metadata cannot be read: {}", file.file.string(), error.what());
  }
}

}  // namespace wrn
