// What the pages read out of a run's metrics and configuration, whatever is missing or damaged
// there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace wrn {

using History = std::vector<nlohmann::json>;  // metrics.jsonl

/// NaN for what is missing, null, or past what a float holds: a diverged run gives any of them.
double number(const nlohmann::json& line, const std::string& key);
/// The number where it is whole and lies from `least` to `most`, else `otherwise`: json's own
/// conversion is not defined for all. `most` is at most 2^53, up to which a double has them all.
std::int64_t whole_within(std::int64_t least, std::int64_t most, const nlohmann::json& line,
                          const std::string& key, std::int64_t otherwise);
int int_within(int least, int most, const nlohmann::json& line, const std::string& key,
               int otherwise);
std::vector<double> finite_column(const History&, const std::string& key);
/// Some line has a finite value of it, or says that it is not finite.
bool present(const History&, const std::string& key);

/// The line's own number, or its place where it has none that can be drawn.
int epoch_of(const History&, std::size_t index);
/// "val" or "test": of the validation split if there is one, as its best epoch is chosen without
/// the test set.
std::string selection_split(const History&);
/// The line of the least error of that split.
std::optional<std::size_t> best_epoch(const History&);
/// Of an even number of values, the mean of the middle two; of none, 0.
double median(std::vector<double> values);
double total_seconds(const History&);
/// Images a second; NaN where no line has them.
double median_speed(const History&);

/// As much of it as a person reads.
std::string value_text(const nlohmann::json& value);
std::string config_text(const nlohmann::json& config, const char* pointer,
                        const std::string& otherwise);
/// A dash for what is not finite; an exponent where digits would not fit.
std::string fixed(double value, int decimals);
std::string percent(double value);

}  // namespace wrn
