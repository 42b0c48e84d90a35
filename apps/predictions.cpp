#include "apps/predictions.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/history.h"
#include "apps/json_text.h"
#include "engine/safetensors.h"
#include "kernels/error.h"

namespace wrn {
namespace {

constexpr const char* kFormat = "wrn.cu predictions 1";
constexpr std::size_t kMostMistakes = 24;  // a page of them

}  // namespace

std::vector<Answer> most_probable(std::span<const float> logits, std::size_t count) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - largest);
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    answers.push_back({static_cast<int>(i), std::exp(logits[i] - largest) / sum});
  }
  if (std::isfinite(sum)) {
    std::stable_sort(answers.begin(), answers.end(), [](const Answer& a, const Answer& b) {
      return a.probability > b.probability;
    });
  }
  answers.resize(std::min(count, answers.size()));
  return answers;
}

Predictions predictions_of(const Dataset& test, std::span<const Answer> answers, int epoch) {
  WRN_CHECK(std::ssize(answers) == test.size(), "{} answers of {} images", answers.size(),
            test.size());
  Predictions p;
  p.epoch = epoch;
  p.class_names = test.class_names;
  p.labels = test.labels;
  for (const Answer& answer : answers) {
    p.predicted.push_back(static_cast<std::uint8_t>(answer.label));
    p.probability.push_back(static_cast<float>(answer.probability));
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (p.predicted[i] != p.labels[i]) p.mistakes.push_back(static_cast<std::int32_t>(i));
  }
  std::stable_sort(p.mistakes.begin(), p.mistakes.end(), [&](std::int32_t a, std::int32_t b) {
    return p.probability[static_cast<std::size_t>(a)] > p.probability[static_cast<std::size_t>(b)];
  });
  p.mistakes.resize(std::min(p.mistakes.size(), kMostMistakes));
  p.images = subset(test, p.mistakes).images;
  return p;
}

void write_predictions(const std::filesystem::path& path, const Predictions& p) {
  const std::int64_t n = std::ssize(p.labels), m = std::ssize(p.mistakes);
  Safetensors file;
  file.metadata = {{"format", kFormat},
                   {"epoch", std::to_string(p.epoch)},
                   {"class_names", nlohmann::json(p.class_names).dump()}};
  const auto add = [&]<typename T>(const char* name, std::vector<std::int64_t> shape,
                                   const std::vector<T>& values) {
    file.tensors.emplace_back(
        name, SafetensorsEntry::make<T>(std::move(shape), std::span<const T>(values)));
  };
  // Wider elements first: whoever maps the file into memory then finds them aligned.
  add("probability", {n}, p.probability);
  add("mistakes", {m}, p.mistakes);
  add("labels", {n}, p.labels);
  add("predicted", {n}, p.predicted);
  add("images", {m, kImageSide, kImageSide, 3}, p.images);
  write_safetensors(path, file);
}

Predictions read_predictions(const std::filesystem::path& path) {
  const Safetensors file = read_safetensors(path);
  const auto broken = [&](const char* what) { fail("{}: {}", path.string(), what); };
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (text("format") != kFormat) broken("holds no predictions that this wrn_report can read");
  Predictions p;
  try {
    p.epoch = int_within(0, INT_MAX, {{"epoch", parse_json(text("epoch"))}}, "epoch", -1);
    p.class_names = parse_json(text("class_names")).get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception&) {
    broken("its metadata cannot be read");
  }
  if (p.epoch < 0) broken("its epoch is none that a run has");
  const auto get = [&]<typename T>(const char* name, std::vector<T>& values) {
    const std::span<const T> from = file.at(name).as<T>();
    values.assign(from.begin(), from.end());
  };
  get("labels", p.labels);
  get("predicted", p.predicted);
  get("probability", p.probability);
  get("mistakes", p.mistakes);
  get("images", p.images);
  if (p.predicted.size() != p.labels.size() || p.probability.size() != p.labels.size() ||
      p.images.size() != p.mistakes.size() * kImageBytes || p.mistakes.size() > kMostMistakes) {
    broken("its tensors are not of one size");
  }
  const auto is_class = [&](std::uint8_t label) { return label < p.class_names.size(); };
  if (p.class_names.size() > 256 || !std::all_of(p.labels.begin(), p.labels.end(), is_class) ||
      !std::all_of(p.predicted.begin(), p.predicted.end(), is_class)) {
    broken("it has labels that are none of its classes");
  }
  if (!std::all_of(p.mistakes.begin(), p.mistakes.end(),
                   [&](std::int32_t i) { return i >= 0 && i < std::ssize(p.labels); })) {
    broken("it has mistakes that are none of its images");
  }
  return p;
}

}  // namespace wrn
