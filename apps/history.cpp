#include "apps/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

namespace wrn {

using nlohmann::json;

double number(const json& line, const std::string& key) {
  const auto found = line.find(key);
  const bool known = found != line.end() && found->is_number();
  const double value = known ? found->get<double>() : NAN;
  return std::abs(value) <= FLT_MAX ? value : NAN;
}

std::int64_t whole_within(std::int64_t least, std::int64_t most, const json& line,
                          const std::string& key, std::int64_t otherwise) {
  const double value = number(line, key);
  const bool within = value >= static_cast<double>(least) && value <= static_cast<double>(most);
  return within && value == std::floor(value) ? static_cast<std::int64_t>(value) : otherwise;
}

int int_within(int least, int most, const json& line, const std::string& key, int otherwise) {
  return static_cast<int>(whole_within(least, most, line, key, otherwise));
}

std::vector<double> finite_column(const History& metrics, const std::string& key) {
  std::vector<double> values;
  for (const json& line : metrics) {
    if (const double value = number(line, key); std::isfinite(value)) values.push_back(value);
  }
  return values;
}

bool present(const History& metrics, const std::string& key) {
  return std::any_of(metrics.begin(), metrics.end(),
                     [&](const json& line) { return line.contains(key); });
}

int epoch_of(const History& metrics, std::size_t index) {
  return int_within(0, 1'000'000'000, metrics[index], "epoch", static_cast<int>(index + 1));
}

std::string selection_split(const History& metrics) {
  return present(metrics, "val_error") ? "val" : "test";
}

std::optional<std::size_t> best_epoch(const History& metrics) {
  const std::string key = selection_split(metrics) + "_error";
  std::optional<std::size_t> best;
  double least = INFINITY;
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const double error = number(metrics[i], key);
    if (!(error < least)) continue;
    least = error;
    best = i;
  }
  return best;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

double total_seconds(const History& metrics) {
  const std::vector<double> seconds = finite_column(metrics, "seconds");
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

double median_speed(const History& metrics) {
  const std::vector<double> speed = finite_column(metrics, "images_per_second");
  return speed.empty() ? NAN : median(speed);
}

std::string value_text(const json& value) {
  constexpr std::size_t kMost = 300;
  std::string out;
  if (value.is_array() && !value.empty()) {
    for (const json& item : value) {
      out += (out.empty() ? "" : ", ") + value_text(item);
      if (out.size() > kMost) break;
    }
  } else if (value.is_number_float()) {
    out = fmt::format("{:.6g}", value.get<double>());
  } else if (value.is_string()) {
    out = value.get<std::string>();
  } else {
    out = value.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  return out.size() > kMost ? out.substr(0, kMost) + "…" : out;
}

std::string config_text(const json& config, const char* pointer, const std::string& otherwise) {
  const json::json_pointer path(pointer);
  return config.contains(path) ? value_text(config.at(path)) : otherwise;
}

std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "–";
  return std::abs(value) < 1e6 ? fmt::format("{:.{}f}", value, decimals)
                               : fmt::format("{:.3g}", value);
}

std::string percent(double value) { return std::isfinite(value) ? fixed(value, 2) + "%" : "–"; }

}  // namespace wrn
